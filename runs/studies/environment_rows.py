"""Rows of the table of other packages' environments, from `results/environments/`."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

COLUMNS = [
    *("environment", "reached, 95 % interval", "random actions", "steps", "seconds"),
    *("check", "video", "published"),
]
_TEXTS = Path(__file__).resolve().with_name("environments.toml")


def score(summary: Mapping[str, Any]) -> tuple[float, float, float]:
    """Success rate, else mean return, with the ends of its 95 % interval."""
    if summary["success_rate"] is not None:
        return summary["success_rate"], *summary["success_ci95"]
    mean = summary["return_mean"]
    half = 1.96 * summary["return_std"] / math.sqrt(summary["episodes"] - 1)
    return mean, mean - half, mean + half


def is_apart(found: Mapping[str, Any]) -> bool:
    """Whether the agent's interval lies wholly above that of random actions."""
    return score(found["trained"])[1] > score(found["random"])[2]


def environment_rows(folder: Path) -> Iterator[list[str]]:
    """One row per environment, in the order of the collection."""
    for name, texts in tomllib.loads(_TEXTS.read_text()).items():
        path = folder / "environments" / f"{name}.json"
        if path.is_file():
            yield _row(json.loads(path.read_text()), texts)


def command_rows(folder: Path) -> Iterator[list[str]]:
    """The command of each environment; they are in the collection, not in a results folder."""
    for texts in tomllib.loads(_TEXTS.read_text()).values():
        env = texts["command"].partition("--env ")[2].split()[0]
        yield [f"`{env.rpartition(':')[2]}`", texts["package"], f"`{texts['command']}`"]


def _row(found: Mapping[str, Any], texts: Mapping[str, Any]) -> list[str]:
    env, published = f"`{found['env'].rpartition(':')[2]}`", _published(texts)
    if found["failed"]:
        return [env, f"failed: {found['failed']}", *[""] * (len(COLUMNS) - 3), published]
    levels = found["check"]
    counts = [
        f"{len(levels[level])} {level}{'s' * (len(levels[level]) > 1)}"
        for level in ("error", "warning")
        if levels[level]
    ]
    ours, random = _text(found["trained"]), _text(found["random"])
    return [
        env,
        f"**{ours}**" if is_apart(found) else ours,
        random,
        f"{found['steps']:,}{' (time limit)' * found['time_was_up']}",
        f"{found['training_s']:.0f}",
        ", ".join(counts) or "passes",
        "no" if "refused" in found["video"] else "yes",
        published,
    ]


def _published(texts: Mapping[str, Any]) -> str:
    return f"{texts['published']} ([source]({texts['source']}))"


def _text(summary: Mapping[str, Any]) -> str:
    mean, low, high = score(summary)
    if summary["success_rate"] is not None:
        return f"{100 * mean:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
    digits = 0 if max(abs(low), abs(high)) >= 20 else 2
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
