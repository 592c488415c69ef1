"""Batches of random numbers, as learners take them, and the comparison of parameters."""

import numpy as np
import torch
from gymnasium import spaces

F, G, A = 3, 2, 2  # widths of observation, goal and action


def is_discrete(algorithm):
    return spaces.Discrete in algorithm.action_spaces


def random_batch(algorithm, seed=0, rows=8, steps=1):
    rng = np.random.default_rng(seed)
    if is_discrete(algorithm):
        action = rng.integers(0, A, (rows, steps))
    else:
        action = rng.uniform(-1, 1, (rows, steps, A)).astype(np.float32)
    return {
        "observation": rng.normal(size=(rows, steps + 1, F)).astype(np.float32),
        "goal": rng.normal(size=(rows, steps, G)).astype(np.float32),
        "action": action,
        "reward": rng.normal(size=(rows, steps)).astype(np.float32),
        "discount": np.full((rows, steps), 0.9, np.float32),
        "mask": np.ones((rows, steps), np.float32),
    }


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
