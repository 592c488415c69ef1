"""Milliseconds per step and reset of Fetch: Gymnasium-Robotics' own against `rlkit.envs.make`.

    python runs/bench/fetch_speed.py --episodes 20

Both play the same episodes in turns, so that a change of the machine's speed meets both. Prints one
JSON object: medians over steps and resets, and MuJoCo's own part of a step.
"""

from __future__ import annotations

import os

# Before numpy is imported: the figures are per core.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.envs.make import make

TASKS = ("FetchReach-v4", "FetchPush-v4", "FetchPickAndPlace-v4", "FetchSlide-v4")


def measure(env_id: str, episodes: int) -> dict[str, float]:
    """Median milliseconds of steps and resets, and how much faster a step of ours is."""
    ours = make(env_id)  # also registers the packaged ids
    envs = {"packaged": gym.make(env_id), "ours": ours}
    robot: Any = ours.unwrapped
    physics = _record(robot.robot)
    steps: dict[str, list[float]] = {name: [] for name in envs}
    resets: dict[str, list[float]] = {name: [] for name in envs}
    generator = np.random.default_rng(0)
    for episode in range(episodes):
        actions = generator.uniform(-1, 1, (50, 4)).astype(np.float32)
        for name, env in envs.items():
            resets[name].append(_seconds(lambda env=env, seed=episode: env.reset(seed=seed)))
            steps[name] += [_seconds(lambda env=env, a=action: env.step(a)) for action in actions]
    found = {f"{name}_step_ms": _median_ms(values) for name, values in steps.items()}
    found |= {f"{name}_reset_ms": _median_ms(values) for name, values in resets.items()}
    found["physics_ms"] = _median_ms(physics)
    found["ratio"] = round(found["packaged_step_ms"] / found["ours_step_ms"], 2)
    return found


def _record(robot: Any) -> list[float]:
    """A list that will hold the seconds of the substeps in every later step."""
    taken: list[float] = []
    advance = robot._mujoco_step
    robot._mujoco_step = lambda action: taken.append(_seconds(lambda: advance(action)))
    return taken


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _median_ms(seconds: list[float]) -> float:
    return round(1e3 * float(np.median(seconds)), 3)


def main() -> None:
    """Measures the four tasks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=20)
    arguments = parser.parse_args()
    print(json.dumps({env_id: measure(env_id, arguments.episodes) for env_id in TASKS}, indent=2))


if __name__ == "__main__":
    main()
