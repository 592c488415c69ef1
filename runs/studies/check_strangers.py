"""Runs the environment check over every registered environment of others' packages.

    python runs/studies/check_strangers.py
    python runs/studies/check_strangers.py --one-per-class gymnasium_robotics
    python runs/studies/check_strangers.py --only PointMaze Memory

Each environment is checked in a process of its own, which is killed after a time limit. The
result is a table with the laws of every id, also as a CSV file. Ids that cannot be built here, as a
package or its files are missing, are listed apart. An *error* on an environment that others train
is a false one, unless it cannot be trained by one agent: `KNOWN` lists those, with the reason. The
exit code is 1 if there are false ones.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib
import io
import json
import multiprocessing
import os
import re
import sys
import time
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gymnasium as gym

from rlkit.envs.make import make, prefer_egl
from rlkit.goals.check import check_env
from rlkit.goals.findings import LEVELS

PACKAGES = ("gymnasium_robotics", "highway_env", "panda_gym", "popgym", "minigrid")
RESULT = Path(__file__).parents[1] / "results" / "check_strangers.csv"
KNOWN = {
    "^intersection-multi-agent": "several agents: rewards and ends are tuples, one per agent",
}
"""Environments with true errors, by a pattern of their ids, and what is wrong with them."""
BUILT = {"built": True}


def ids(only: list[str], one_per_class: list[str]) -> list[str]:
    """Ids of Gymnasium and of the packages that are installed, newest versions alone."""
    for package in PACKAGES:
        with contextlib.suppress(ImportError), contextlib.redirect_stderr(io.StringIO()):
            gym.register_envs(importlib.import_module(package))
    newest: dict[str, int] = {}
    for spec in gym.registry.values():
        name = spec.id.rpartition("-v")[0] or spec.id
        newest[name] = max(spec.version or 0, newest.get(name, 0))
    found, classes = [], set()
    for spec in gym.registry.values():
        root = package_of(spec.id)
        name = spec.id.rpartition("-v")[0] or spec.id
        if root not in ("gymnasium", *PACKAGES) or (spec.version or 0) < newest[name]:
            continue
        if only and not any(part in spec.id for part in only):
            continue
        if root in one_per_class and str(spec.entry_point) in classes:
            continue
        classes.add(str(spec.entry_point))
        found.append(spec.id)
    return sorted(found, key=lambda one: (package_of(one), one))


def package_of(env_id: str) -> str:
    """The package that an environment's class is in."""
    return str(gym.registry[env_id].entry_point).partition(":")[0].partition(".")[0]


def check(env_id: str, bounds: dict[str, Any], answer: Connection) -> None:
    """Sends the findings of one environment, or why it cannot be built."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  until the process ends
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env = make(env_id)
            env.reset(seed=0)  # where files of a package may be missing
            env.close()
    except Exception as error:
        text = re.sub(r"/\S*site-packages/", "", str(error))
        answer.send({"unbuilt": f"{type(error).__name__}: {text}"})
        return
    answer.send(BUILT)
    started = time.perf_counter()
    found = check_env(lambda: make(env_id), **bounds)
    answer.send(
        {
            "seconds": round(time.perf_counter() - started, 2),
            **{
                level: {f.law: f"{f.where}: {f.message}" for f in found if f.level == level}
                for level in LEVELS
            },
        }
    )


def answer_of(receiver: Connection, limit: float) -> dict[str, Any]:
    """The next answer of a process, or what became of it."""
    if not receiver.poll(limit):
        return {"unbuilt": f"no answer within {limit:g} s"}
    try:
        answer: dict[str, Any] = receiver.recv()
    except EOFError:
        return {"unbuilt": "its process died"}
    return answer


def checked(env_id: str, bounds: dict[str, Any], limit: float) -> dict[str, Any]:
    """The result of `check` in a process of its own."""
    context = multiprocessing.get_context("fork")  # the packages are imported already
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=check, args=(env_id, bounds, sender))
    process.start()
    sender.close()
    result = answer_of(receiver, limit)
    if result == BUILT:  # it can be built, so the rest is the check's own matter
        result = {"seconds": limit, "error": {}, "warning": {}, "note": {}}
        found = answer_of(receiver, limit)
        result |= found if "seconds" in found else {"error": {"process": found["unbuilt"]}}
    process.kill()
    process.join()
    return result


def row(env_id: str, result: dict[str, Any]) -> str:
    """One line of the table."""
    if "unbuilt" in result:
        return f"{env_id:44} not built  {result['unbuilt'][:70]}"
    level = next((level for level in LEVELS if result[level]), "fine")
    names = ", ".join([*result["error"], *result["warning"]])
    return f"{env_id:44} {level:8} {result['seconds']:5.1f} s  {names}"


def main() -> None:
    """Checks what was asked for, prints a table and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="parts of ids")
    parser.add_argument(
        "--one-per-class", nargs="*", default=[], help="packages to take one id of each class of"
    )
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200, help="steps of an episode at most")
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds of one check")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds until it is killed")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    prefer_egl()
    bounds = {name: getattr(arguments, name) for name in ("episodes", "steps", "seconds")}
    results = {}
    for env_id in ids(arguments.only, arguments.one_per_class):
        results[env_id] = checked(env_id, bounds, arguments.limit)
        print(row(env_id, results[env_id]), flush=True)
        write(arguments.out, results)  # what there is so far
    built = {env_id: result for env_id, result in results.items() if "unbuilt" not in result}
    wrong = {
        env_id: result["error"]
        for env_id, result in built.items()
        if result["error"] and not any(re.search(pattern, env_id) for pattern in KNOWN)
    }
    summary = {
        "checked": dict(Counter(map(package_of, built))),
        "not built": dict(Counter(map(package_of, results.keys() - built.keys()))),
        "with warnings": sum(bool(result["warning"]) for result in built.values()),
        "false errors": wrong,
        "not for one agent": KNOWN,
    }
    print(json.dumps(summary, indent=1))
    sys.exit(bool(wrong))


def write(path: Path, results: dict[str, dict[str, Any]]) -> None:
    """Writes the laws of every id as CSV."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["id", "package", "seconds", *(f"{level}s" for level in LEVELS)])
        for env_id, result in results.items():
            laws = ["; ".join(result.get(level, ())) for level in LEVELS]
            outcome = result.get("seconds", f"not built: {result.get('unbuilt', '')[:80]}")
            rows.writerow([env_id, package_of(env_id), outcome, *laws])


if __name__ == "__main__":
    main()
