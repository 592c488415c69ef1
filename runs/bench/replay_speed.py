"""Sampling time and memory of the replay buffer and of Stable-Baselines3's `HerReplayBuffer`.

    python runs/bench/replay_speed.py --sizes 10000 100000 1000000 --out replay_speed.json

Both hold the same transitions, shaped as FetchReach's: 8 environments, observation 10, goals 3,
action 4, episodes of 50 steps. Each buffer has its own process and one thread; memory is the growth
of the resident set while it is built and filled. Prints one JSON object and a table.
"""

from __future__ import annotations

import os

# Before numpy is imported: the figures are per core.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from buffer_measurement import RewardEnv, in_own_process, resident_bytes
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer

from rlkit.goals import DistanceRule
from rlkit.replay import ReplayBuffer

ENVS, EPISODE, BATCH, SAMPLES = 8, 50, 256, 1000
WIDTHS = {"observation": 10, "achieved_goal": 3, "desired_goal": 3}
SPACE = spaces.Dict({key: spaces.Box(-np.inf, np.inf, (n,), float) for key, n in WIDTHS.items()})
ACTIONS = spaces.Box(-1, 1, (4,), np.float32)
RULE = DistanceRule(0.05)


def transitions(size: int) -> Iterator[tuple[Any, ...]]:
    """Vector steps: observation, next observation, action, reward and done."""
    generator = np.random.default_rng(0)
    observation = {key: np.zeros((ENVS, width)) for key, width in WIDTHS.items()}
    for i in range(size // ENVS):
        if i % EPISODE == 0:
            observation = {
                key: generator.normal(size=(ENVS, width)) for key, width in WIDTHS.items()
            }
        next_observation = {
            "observation": generator.normal(size=(ENVS, 10)),
            "achieved_goal": generator.normal(size=(ENVS, 3)),
            "desired_goal": observation["desired_goal"],
        }
        action = generator.uniform(-1, 1, (ENVS, 4)).astype(np.float32)
        done = np.full(ENVS, i % EPISODE == EPISODE - 1)
        yield observation, next_observation, action, np.full(ENVS, -1.0), done
        observation = next_observation


def ours(size: int) -> tuple[Callable[..., None], Callable[[], Any]]:
    """Functions that add to and sample from the replay buffer."""
    replay = ReplayBuffer(SPACE, ACTIONS, size, num_envs=ENVS, rule=RULE, seed=0)
    never = np.zeros(ENVS, np.bool_)

    def add(observation: Any, next_observation: Any, action: Any, reward: Any, done: Any) -> None:
        replay.add(observation, action, reward, never, done, next_observation)

    return add, lambda: replay.sample(BATCH)


def sb3(size: int) -> tuple[Callable[..., None], Callable[[], Any]]:
    """Functions that add to and sample from `HerReplayBuffer`."""
    env: Any = RewardEnv(RULE)
    buffer = HerReplayBuffer(size, SPACE, ACTIONS, env, "cpu", ENVS)

    def add(observation: Any, next_observation: Any, action: Any, reward: Any, done: Any) -> None:
        infos = [{"TimeLimit.truncated": bool(end)} for end in done]
        buffer.add(observation, next_observation, action, reward, done, infos)

    return add, lambda: buffer.sample(BATCH)


def measure(name: str, size: int) -> dict[str, float]:
    """Microseconds of an add and of a sample, and the memory in MB."""
    th.set_num_threads(1)
    # The first use of a library allocates memory that is not the buffer's.
    add, sample = (ours if name == "ours" else sb3)(2 * ENVS * EPISODE)
    for step in transitions(ENVS * EPISODE):
        add(*step)
    sample()
    before = resident_bytes()
    add, sample = (ours if name == "ours" else sb3)(size)
    spent = 0.0
    for step in transitions(size):
        start = time.perf_counter()
        add(*step)
        spent += time.perf_counter() - start
    memory = resident_bytes() - before
    times = []
    for _ in range(SAMPLES):
        start = time.perf_counter()
        sample()
        times.append(time.perf_counter() - start)
    return {
        "sample_us": round(float(np.median(times)) * 1e6, 1),
        "add_us": round(spent / (size // ENVS) * 1e6, 1),
        "memory_mb": round(memory / 1e6, 1),
    }


def compare(size: int) -> dict[str, Any]:
    """Both buffers at one size, each in its own process."""
    result: dict[str, Any] = {}
    for name in ("ours", "sb3"):
        result[name] = in_own_process(__file__, name, "--sizes", size)
    result["ratio"] = round(result["sb3"]["sample_us"] / result["ours"]["sample_us"], 2)
    result["memory_ratio"] = round(result["ours"]["memory_mb"] / result["sb3"]["memory_mb"], 3)
    return result


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--out", type=Path, help="also write the JSON to this file")
    parser.add_argument(
        "--measure", choices=("ours", "sb3"), help="only this buffer, in this process"
    )
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.sizes[0])))
        return
    result = {str(size): compare(size) for size in options.sizes}
    text = json.dumps(result, indent=2)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)
    print(f"{'steps':>9} {'ours us':>9} {'sb3 us':>9} {'faster':>7} {'ours MB':>9} {'sb3 MB':>9}")
    for size, row in result.items():
        times = f"{row['ours']['sample_us']:>9} {row['sb3']['sample_us']:>9} {row['ratio']:>7}"
        print(f"{size:>9} {times} {row['ours']['memory_mb']:>9} {row['sb3']['memory_mb']:>9}")


if __name__ == "__main__":
    main()
