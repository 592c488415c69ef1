"""Trains a recipe on several seeds and writes what the README's table says about it.

    python runs/evidence.py quickstart --seeds 0 1 2

Every seed is one `rlkit train` in a process of its own; `runs/results/<recipe>.json` is written
after each, so that an interrupted series keeps what it has. Seeds that are there already are not
trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

RUNS = Path(__file__).resolve().parent
PACKAGES = ("torch", "numpy", "gymnasium", "stable-baselines3", "gymnasium-robotics", "mujoco")


def train_seed(recipe: str, seed: int, settings: list[str], folder: Path) -> dict[str, Any]:
    """One training and its outcome, with the success curve on held-out episodes."""
    flags = [flag for setting in settings for flag in ("--set", setting)]
    command = [
        "rlkit",
        "train",
        recipe,
        "--seed",
        str(seed),
        "--out",
        str(folder),
        *flags,
        "--json",
    ]
    answer = subprocess.run(
        [sys.executable, "-m", "rlkit.cli", *command[1:]],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    outcome = json.loads(answer.stdout)
    evaluations = json.loads((folder / "evaluations.json").read_text())
    curve = [[e["step"], e["success_rate"]] for e in evaluations if not e["final"]]
    return {"outcome": outcome, "curve": curve}


def main() -> None:
    """Trains the seeds that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--name", help="name of the result, if not the recipe's")
    args = parser.parse_args()

    from rlkit.experiment.recipe import load_recipe

    recipe = load_recipe(args.recipe, args.settings)
    name = args.name or args.recipe
    path = RUNS / "results" / f"{name}.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else _empty(recipe, args)
    for seed in args.seeds:
        if seed in result["seeds"]:
            continue
        folder = RUNS / "out" / "evidence" / name / f"seed-{seed}"
        found = train_seed(args.recipe, seed, args.settings, folder)
        outcome = found["outcome"]
        result["seeds"].append(seed)
        result["success"].append(outcome["success_rate"])
        result["success_ci95"].append(outcome["success_ci95"])
        result["episodes"].append(outcome["episodes"])
        result["steps"].append(outcome["steps"])
        result["minutes"].append(round(outcome["wall_s"] / 60, 2))
        result["curves"].append(found["curve"])
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"{args.recipe} seed {seed}: {outcome['success_rate']:.0%}", file=sys.stderr)


def _empty(recipe: Any, args: argparse.Namespace) -> dict[str, Any]:
    installed = {found.metadata["Name"] for found in distributions()}
    lists = ("seeds", "success", "success_ci95", "episodes", "steps", "minutes", "curves")
    return {
        "recipe": args.recipe,
        "settings": args.settings,
        "env": recipe.env,
        "agent": recipe.agent,
        "versions": {name: version(name) for name in PACKAGES if name in installed}
        | {"python": platform.python_version()},
        **{name: [] for name in lists},
    }


if __name__ == "__main__":
    main()
