"""Rows of the tables of benchmarks, from `results/bench_<name>.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read(path: Path) -> dict[str, Any]:
    """Contents of a results file; empty if there is none."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def acting_rows(folder: Path) -> Iterator[list[str]]:
    """One row per encoder: microseconds per step."""
    for encoder, found in read(folder / "bench_recurrent_speed.json").get("acting_us", {}).items():
        yield [encoder, *(f"{value:,.0f}" for value in found.values())]


def scan_rows(folder: Path) -> Iterator[list[str]]:
    """One row per window length: milliseconds of a forward and backward pass."""
    for steps, found in read(folder / "bench_recurrent_speed.json").get("scan_ms", {}).items():
        yield [steps, *(f"{found[cell]:.1f}" for cell in ("torch.nn.GRU", "gru", "mingru", "lru"))]


SPEED_COLUMNS = [
    *("one core", "training, records/s", "of the bare layers'", "of all steps at once"),
    *("imagining 750 rows, steps/s", "of the bare layers'"),
]


def world_speed_rows(folder: Path) -> Iterator[list[str]]:
    """One row per world model: rates, and their ratios to bare layers."""
    for name, found in read(folder / "bench_world_speed.json").get("models", {}).items():
        fit, ahead = found["training"], found["imagining_750"]
        at_once = fit.get("ratio_to_at_once")
        yield [
            name,
            f"{fit['tokens_per_s']:,}",
            f"{fit['ratio_to_floor']:.2f}",
            "-" if at_once is None else f"{at_once:.2f}",
            f"{ahead['steps_per_s']:,}",
            f"{ahead['ratio_to_floor']:.2f}",
        ]


PLANNER_COLUMNS = [
    *("planner", "samples", "PointMaze-U, steps to the goal", "Pendulum-v1, return"),
    *("one decision, 95 %", "in 10 ms, 95 %", "in 30 ms, 95 %"),
]


def planner_rows(folder: Path) -> Iterator[list[str]]:
    """One row per planner and number of samples; decisions are timed with the larger one."""
    found = read(folder / "bench_planners.json")
    for key, maze in found.get("maze", {}).items():
        name, samples = key.split("_")
        swing, latency = found["pendulum"][key], found["latency"][name]
        large = samples == str(round(latency["by samples"]["samples"]))
        yield [
            f"`{name}`",
            samples,
            f"{100 * maze['success']:.1f} %, {maze['steps']:.1f}",
            f"{swing['mean']:.0f} ± {1.96 * swing['standard_error']:.0f}",
            *(f"{one['p95']:.1f} ms" if large else "" for one in latency.values()),
        ]


def bench_rows(folder: Path) -> Iterator[list[str]]:
    """One row per comparison with another library."""
    for name, rows in _BENCHES.items():
        if found := read(folder / f"bench_{name}.json"):
            yield from rows(found)


def _speeds(what: str, ours: float, theirs: float, peer: str, digits: int = 1) -> list[str]:
    return [what, f"{ours:,.0f}", f"{theirs:,.0f} ({peer})", f"{ours / theirs:.{digits}f} x"]


def _fetch_reach(result: dict[str, Any]) -> Iterator[list[str]]:
    seconds = result["median_seconds"]
    ours, theirs = f"{seconds['ours']:.1f} s", f"{seconds['sb3']:.0f} s (SB3 SAC + HER)"
    faster = f"{result['times_faster']['sb3']:.0f} x"
    yield ["FetchReach-v4 to 95 % success, collecting and learning", ours, theirs, faster]


def _pendulum_recurrent(result: dict[str, Any]) -> Iterator[list[str]]:
    seconds, peer = result["median_seconds"], "sb3-contrib RecurrentPPO"
    runs = [run for run in result["runs"] if run["name"] == "recurrent_ppo"]
    reached = "recurrent_ppo" in seconds
    # If the peer does not reach the target, its whole time is a lower bound.
    spent = seconds["recurrent_ppo"] if reached else min(r["curve"][-1]["seconds"] for r in runs)
    yield [
        "Pendulum without velocity to a return of -218, collecting and learning",
        f"{seconds['ours']:.0f} s",
        f"{'' if reached else 'over '}{spent:.0f} s ({peer})",
        f"{'' if reached else '> '}{spent / seconds['ours']:.1f} x",
    ]


def _update_speed(result: dict[str, Any]) -> Iterator[list[str]]:
    for layers, found in result.items():
        for peer, title in (("sb3", "SB3"), ("sbx", "SBX")):
            if layers.startswith("2x") and peer in found:
                ours, theirs = (found[n]["updates_per_s"] for n in ("ours compiled", peer))
                what = f"SAC updates per second, layers of {layers}, batch 256"
                yield _speeds(what, ours, theirs, title)


def _replay_speed(result: dict[str, Any]) -> Iterator[list[str]]:
    size = max(result, key=int)
    ours, theirs = result[size]["ours"], result[size]["sb3"]
    yield [
        f"Relabelled batch of 256 from {int(size):,} steps",
        f"{ours['sample_us']:,.0f} µs",
        f"{theirs['sample_us']:,.0f} µs (SB3 `HerReplayBuffer`)",
        f"{theirs['sample_us'] / ours['sample_us']:.1f} x",
    ]
    yield [
        f"Replay buffer of {int(size):,} steps",
        f"{ours['memory_mb']:,.0f} MB",
        f"{theirs['memory_mb']:,.0f} MB (SB3 `HerReplayBuffer`)",
        f"{theirs['memory_mb'] / ours['memory_mb']:.1f} x",
    ]


def _image_replay(result: dict[str, Any]) -> Iterator[list[str]]:
    found, size = result["memory"], result["memory"]["pixels"]
    yield [
        f"Replay buffer of {found['ours']['transitions']:,} steps with goals, {size}-pixel images",
        f"{found['ours']['filled_mb']:,.0f} MB",
        f"{found['sb3']['scaled_mb']:,.0f} MB (SB3 `HerReplayBuffer`)",
        f"{1 / found['memory_ratio']:.1f} x",
    ]
    found, size = result["rate"], result["rate"]["pixels"]
    yield [
        f"Batch of {result['batch']} from {found['disk']['transitions']:,} steps on disk, cached, "
        f"{size}-pixel images, {found['disk']['most_resident_mb']:,.0f} MB resident",
        f"{found['disk']['sample_ms']:.1f} ms",
        f"{found['memory']['sample_ms']:.1f} ms (in memory, {found['memory']['transitions']:,})",
        f"{found['rate_ratio']:.2f} x",
    ]


def _point_maze_speed(result: dict[str, Any]) -> Iterator[list[str]]:
    peers = [value for name, value in result.items() if name.startswith("peer_")]
    yield [
        "PointMaze steps per second, 4,096 environments",
        f"{result['vector_4096']:,}",
        f"{peers[0]:,} (Gymnasium-Robotics)" if peers else "not measured",
        f"{result['vector_4096'] / peers[0]:.0f} x" if peers else "",
    ]


def _fetch_speed(result: dict[str, Any]) -> Iterator[list[str]]:
    found = result["FetchPush-v4"]
    yield [
        f"Step of FetchPush-v4, of which MuJoCo {found['physics_ms']:.2f} ms",
        f"{found['ours_step_ms']:.2f} ms",
        f"{found['packaged_step_ms']:.2f} ms (Gymnasium-Robotics)",
        f"{found['ratio']:.1f} x",
    ]


def _recurrent(result: dict[str, Any]) -> Iterator[list[str]]:
    for name, found in result.get("update", {}).items():
        for floor, title in (("encoders", "encoders alone"), ("networks", "encoders and heads")):
            ours, bare = found["ours"], found[f"floor_{floor}"]
            what = f"Recurrent SAC update, {name.upper()}, tokens per second"
            yield _speeds(what, ours, bare, f"bare `torch.nn.{name.upper()}`, {title}", digits=2)
    found = result.get("training")
    if found and found["recurrent_ppo"] is not None:
        what = f"Steps per second while training, `{found['env']}`, recurrent SAC"
        yield _speeds(what, found["ours"], found["recurrent_ppo"], "sb3-contrib RecurrentPPO")


_BENCHES = {
    "fetch_reach": _fetch_reach,
    "update_speed": _update_speed,
    "replay_speed": _replay_speed,
    "image_replay": _image_replay,
    "point_maze_speed": _point_maze_speed,
    "fetch_speed": _fetch_speed,
    "recurrent_speed": _recurrent,
    "pendulum_recurrent": _pendulum_recurrent,
}
