"""Random worlds, windows of them, and comparisons of batches, for tests of the replay buffer."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import strategies as st
from naive import KINDS, World

from rlkit.replay.relabelling import draw_goals, mixture, relabel
from rlkit.replay.replay_buffer import choose_windows
from rlkit.replay.storage import read_sequences

EVERY = ("future", "final", "episode", "random", "desired")
MIXED = {"future": 1, "final": 1, "episode": 1, "random": 1, "original": 1}


def any_world(kinds=KINDS, **options):
    """A strategy of worlds; `options` are further ones, or replace those here."""
    few = {
        "num_envs": st.integers(1, 3),
        "capacity": st.integers(1, 40),
        "seed": st.integers(0, 2**32 - 1),
        "terminates": st.booleans(),
        "end": st.sampled_from([0.0, 0.1, 0.5]),
    }
    return st.builds(World, kind=st.sampled_from(sorted(kinds)), **few | options)


def step_windows(world, count=48, length=3):
    """Windows that begin at random steps, with their original goals."""
    env, position = world.replay.storage.sample_steps(count, np.random.default_rng(0))
    return world.replay.storage.window(env, position, length)


def sequences(world, window=5, burn_in=3, count=32, steps=1):
    """Windows with their original goals and all inputs of recurrent encoders."""
    storage, rng = world.replay.storage, np.random.default_rng(0)
    env, step = storage.sample_steps(count, rng)
    bounds = storage.episode_bounds(env, step)
    start, length = choose_windows(step, bounds, window, rng)
    inputs = {"burn_in": burn_in, "previous_action": True, "previous_reward": True}
    return read_sequences(storage, env, start, bounds, length + steps - 1, **inputs)


def relabelled(world, batch, weights, seed=0):
    """A batch relabelled by a mixture of strategies."""
    rng = np.random.default_rng(seed)
    drawn = draw_goals(batch.env, batch.position, world.replay.storage, mixture(weights), rng)
    return relabel(batch, drawn, world.rule)


def check_equal(one, two, skip=()):
    """Two batches are equal, bit for bit."""
    for field in dataclasses.fields(one):
        if field.name not in skip:
            a, b = exact(getattr(one, field.name)), exact(getattr(two, field.name))
            assert a == b, field.name


def exact(value):
    """A field of a batch to the bit."""
    if isinstance(value, dict):
        return {key: exact(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return [exact(part) for part in value]
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    return value
