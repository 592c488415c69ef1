"""Memory and sampling time of image replay, in memory, on disk and in SB3's buffer.

    python runs/bench/image_replay.py --out image_replay.json

Two questions. Both use 8 environments whose observation, achieved and desired goal are uint8
images, in episodes of 50 steps with one goal each:

- How much memory do 100,000 transitions of 48 pixels need here and in SB3's `HerReplayBuffer`?
  Memory is the growth of the resident set while the buffer is built and filled. Theirs is measured
  on 10,000 transitions and scaled, because its arrays grow in proportion.
- How fast is a million transitions of 84 pixels sampled from disk, compared to memory? Where a
  third of the free disk holds fewer, that number is used; memory holds as many as fit into a third
  of it. Sampling repeats until the system caches the file, that is until a round of 300 samples
  reads almost nothing from the disk. `read_from_disk_mb` is what the timed round read, of
  `sampled_mb`.

Each buffer has its own process and one thread. Prints one JSON object and a table.
"""

from __future__ import annotations

import os

# Before numpy is imported: the figures are per core.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from buffer_measurement import RewardEnv, in_own_process, resident_bytes
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer

from rlkit.goals import ExactRule
from rlkit.replay import ReplayBuffer, available_bytes, estimate_footprint

ENVS, EPISODE, IMAGES, SAMPLES = 8, 50, 256, 300
THEIRS = 10_000
COLD, ROUNDS = (
    0.005,
    40,
)  # share of a round that is read from the disk; maximum of rounds until cached
ACTIONS = spaces.Box(-1, 1, (2,), np.float32)
RULE = ExactRule(terminates=False)
KEYS = ("observation", "achieved_goal", "desired_goal")


def space_of(size: int) -> spaces.Dict:
    """Observations of `size` x `size` pixels."""
    image = spaces.Box(0, 255, (size, size, 3), np.uint8)
    return spaces.Dict(dict.fromkeys(KEYS, image))


def transitions(count: int, size: int) -> Iterator[tuple[Any, ...]]:
    """Vector steps: observation, next observation, action and done."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (IMAGES, ENVS, size, size, 3), np.uint8)
    action = generator.uniform(-1, 1, (ENVS, 2)).astype(np.float32)
    for i in range(count // ENVS):
        goal = images[i // EPISODE % IMAGES]
        observation, next_observation = (
            dict(zip(KEYS, (image, image, goal), strict=True))
            for image in (images[i % IMAGES], images[(i + 1) % IMAGES])
        )
        yield observation, next_observation, action, np.full(ENVS, i % EPISODE == EPISODE - 1)


def fill(buffer: ReplayBuffer | HerReplayBuffer, count: int, size: int) -> int:
    """Adds transitions; returns the largest resident memory on the way."""
    reward, never, most = np.full(ENVS, -1.0), np.zeros(ENVS, np.bool_), 0
    for i, (observation, next_observation, action, done) in enumerate(transitions(count, size)):
        if isinstance(buffer, ReplayBuffer):
            buffer.add(observation, action, reward, never, done, next_observation)
        else:
            infos: list[dict[str, Any]] = [{"TimeLimit.truncated": bool(end)} for end in done]
            buffer.add(observation, next_observation, action, reward, done, infos)
        if i % 100 == 0:
            most = max(most, resident_bytes())
    return max(most, resident_bytes())


def build(name: str, count: int, size: int, folder: str | None) -> ReplayBuffer | HerReplayBuffer:
    """An empty buffer: "ours" or "sb3"."""
    if name == "sb3":
        env: Any = RewardEnv(RULE)
        return HerReplayBuffer(count, space_of(size), ACTIONS, env, "cpu", ENVS)
    return ReplayBuffer(
        space_of(size), ACTIONS, count, num_envs=ENVS, rule=RULE, seed=0, directory=folder
    )


def measure(name: str, count: int, size: int, batch: int, folder: str | None) -> dict[str, Any]:
    """Memory in MB and the time of a sample in milliseconds, once the file is cached."""
    th.set_num_threads(1)
    # The first use of a library and the images allocate memory that is not the buffer's.
    first = build(name, 2 * ENVS * EPISODE, size, folder)
    fill(first, ENVS * EPISODE, size)
    first.sample(batch)
    before = resident_bytes()
    buffer = build(name, count, size, folder)
    most = fill(buffer, count, size)
    filled = resident_bytes()
    sampled = SAMPLES * batch * 3 * np.prod(space_of(size)["observation"].shape)
    for rounds in range(1, ROUNDS + 1):
        times, before_round = [], read_bytes()
        for _ in range(SAMPLES):
            start = time.perf_counter()
            buffer.sample(batch)
            times.append(time.perf_counter() - start)
            most = max(most, resident_bytes())
        read = read_bytes() - before_round
        if rounds > 1 and read <= COLD * sampled:
            break
    return {
        "transitions": count,
        "filled_mb": round((filled - before) / 1e6, 1),
        "most_resident_mb": round((most - before) / 1e6, 1),
        "sample_ms": round(float(np.median(times)) * 1e3, 3),
        "sample_mean_ms": round(float(np.mean(times)) * 1e3, 3),
        "rounds": rounds,
        "sampled_mb": round(float(sampled) / 1e6, 1),
        "read_from_disk_mb": round(read / 1e6, 1),
    }


def read_bytes() -> int:
    """Bytes that this process has read from disks so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock * 512


def compare_memory(count: int, size: int, batch: int) -> dict[str, Any]:
    """Memory of both buffers for the same transitions."""
    ours, theirs = (
        in_own_process(__file__, "ours", count, size, batch, ""),
        in_own_process(__file__, "sb3", min(count, THEIRS), size, batch, ""),
    )
    scaled = theirs["filled_mb"] * count / theirs["transitions"]
    estimate = estimate_footprint(space_of(size), ACTIONS, count, ENVS).total
    return {
        "pixels": size,
        "ours": ours | {"estimate_mb": round(estimate / 1e6, 1)},
        "sb3": theirs | {"scaled_mb": round(scaled, 1)},
        "memory_ratio": round(ours["filled_mb"] / scaled, 3),
    }


def compare_rate(count: int, size: int, batch: int, folder: Path) -> dict[str, Any]:
    """Sampling time from memory and from disk."""
    folder.mkdir(parents=True, exist_ok=True)
    per_step = estimate_footprint(space_of(size), ACTIONS, count, ENVS).total / count
    on_disk = min(count, int(shutil.disk_usage(folder).free / 3 / per_step))
    in_memory = min(count, int(available_bytes() / 3 / per_step))
    memory = in_own_process(__file__, "ours", in_memory, size, batch, "")
    disk = in_own_process(__file__, "ours", on_disk, size, batch, folder)
    return {
        "pixels": size,
        "requested": count,
        "memory": memory,
        "disk": disk | {"on_disk_mb": round(per_step * on_disk / 1e6, 1)},
        "rate_ratio": round(memory["sample_ms"] / disk["sample_ms"], 3),
        "mean_rate_ratio": round(memory["sample_mean_ms"] / disk["sample_mean_ms"], 3),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000, help="transitions on disk")
    parser.add_argument("--size", type=int, default=84, help="pixels of these, per side")
    parser.add_argument("--compared", type=int, default=100_000, help="transitions against SB3's")
    parser.add_argument("--compared-size", type=int, default=48, help="pixels of these, per side")
    parser.add_argument("--batch", type=int, default=256, help="transitions per sample")
    parser.add_argument("--directory", type=Path, default=Path("image_replay_frames"))
    parser.add_argument("--out", type=Path, help="also write the JSON to this file")
    parser.add_argument("--measure", nargs=5, help="only this buffer, in this process")
    options = parser.parse_args()
    if options.measure:
        name, count, size, batch, folder = options.measure
        print(json.dumps(measure(name, int(count), int(size), int(batch), folder or None)))
        return
    result = {
        "batch": options.batch,
        "memory": compare_memory(options.compared, options.compared_size, options.batch),
        "rate": compare_rate(options.frames, options.size, options.batch, options.directory),
    }
    if not any(options.directory.iterdir()):
        options.directory.rmdir()
    text = json.dumps(result, indent=2)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)
    rows = {
        "ours": result["memory"]["ours"],
        "sb3": result["memory"]["sb3"],
        "in memory": result["rate"]["memory"],
        "on disk": result["rate"]["disk"],
    }
    print(f"{'':>10} {'transitions':>12} {'filled MB':>10} {'most MB':>9} {'sample ms':>10}")
    for name, row in rows.items():
        memory = f"{row['filled_mb']:>10} {row['most_resident_mb']:>9}"
        print(f"{name:>10} {row['transitions']:>12} {memory} {row['sample_ms']:>10}")
    print(f"memory ratio {result['memory']['memory_ratio']}, wanted at most 0.2")
    print(f"rate ratio {result['rate']['rate_ratio']}, wanted at least 0.6")


if __name__ == "__main__":
    main()
