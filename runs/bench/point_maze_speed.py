"""Environment steps per second of PointMaze on one core, including autoresets and infos.

    python runs/bench/point_maze_speed.py --seconds 2

Prints one JSON object. The peer is Gymnasium-Robotics' maze of the same shape, if installed.
"""

from __future__ import annotations

import os

# Before numpy is imported: the figures are per core.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import importlib.util
import json
import time
from typing import Any

import gymnasium as gym
import numpy as np

import rlkit.envs  # noqa: F401  registers the ids

PEER = "PointMaze_UMaze-v3"


def vector_speed(num_envs: int, seconds: float) -> float:
    """Environment steps per second of the native vector environment."""
    env = gym.make_vec("rlkit/PointMaze-U-v0", num_envs=num_envs)
    env.reset(seed=0)
    generator = np.random.default_rng(0)
    actions = generator.uniform(-1, 1, (64, num_envs, 2)).astype(np.float32)
    # Without this all episodes end at the same step, and some measurements include no reset.
    state = env.get_state()
    env.set_state(state | {"elapsed": generator.integers(0, 100, num_envs)})
    return num_envs * _rate(lambda i: env.step(actions[i % 64]), seconds)


def single_speed(env_id: str, seconds: float) -> float:
    """Steps per second of a single environment, resets included."""
    env = gym.make(env_id)
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (64, 2)).astype(np.float32)

    def step(i: int) -> None:
        _, _, terminated, truncated, _ = env.step(actions[i % 64])
        if terminated or truncated:
            env.reset()

    return _rate(step, seconds)


def _rate(call: Any, seconds: float) -> float:
    for i in range(10):
        call(i)
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        for i in range(20):
            call(count + i)
        count += 20
    return count / elapsed


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="per measurement")
    seconds = parser.parse_args().seconds
    result = {f"vector_{n}": round(vector_speed(n, seconds)) for n in (1, 8, 64, 4096)}
    result["single"] = round(single_speed("rlkit/PointMaze-U-v0", seconds))
    if importlib.util.find_spec("gymnasium_robotics"):
        import gymnasium_robotics

        gym.register_envs(gymnasium_robotics)
        result[f"peer_{PEER}"] = round(single_speed(PEER, seconds))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
