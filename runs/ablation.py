"""What each choice about memory is worth: one change from a recipe at a time, on two short tasks.

    python runs/ablation.py --seeds 0 1 2 --minutes 6 --jobs 2

`runs/results/ablation.json` is written after every training; called again, only what is missing is
trained. Choices that come to the same agent, as a default and the same value spelled out, are
trained once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from series import OUT, RESULTS, Facts, Training, run_all, versions, write_json
from tables import change_of

from rlkit.experiment.recipe import Recipe, load_recipe
from rlkit.plugins import AGENTS

Axes = dict[str, dict[str, tuple[str, ...]]]
GOAL_AXIS = "goal"
AXES: Axes = {
    "actor's and critic's encoder": {
        "separate": ("encoder_sharing=separate",),
        "shared, the actor cannot bend it": ("encoder_sharing=detached",),
        "shared, both bend it": ("encoder_sharing=joint",),
    },
    "memory at a window's start": {
        "fresh": ("start=zero", "burn_in=0"),
        "fresh, 16 steps of burn-in": ("start=zero", "burn_in=16"),
        "as stored": ("start=stored", "burn_in=0"),
    },
    GOAL_AXIS: {
        # Only late goals go with stored carries; the others stand beside fresh ones.
        "after the memory, as stored": ("goal_mode=late", "start=stored"),
        "after the memory": ("goal_mode=late", "start=zero"),
        "in it, one per window": ("goal_mode=early", "start=zero"),
        "in it, one per step (wrong)": ("goal_mode=mixed", "start=zero"),
    },
    "cell": {
        "GRU": ("encoder.name=gru",),
        "LSTM": ("encoder.name=lstm",),
        "min-GRU": ("encoder.name=mingru",),
    },
}
RATE_SHARES = (1.0, 0.3, 0.1, 0.03)


def axes_of(recipe: str) -> Axes:
    """The axes with their choices as options of the agent; learning rates depend on the recipe."""
    usual = resolved(load_recipe(recipe))["agent_options"]["learning_rate"]
    rates: dict[str, tuple[str, ...]] = {
        f"{share:g} x": (f"encoder_lr={share * usual:.6g}",) for share in RATE_SHARES
    }
    return {**AXES, "the encoder's learning rate": rates}


def resolved(recipe: Recipe) -> dict[str, Any]:
    """All that a run depends on but its seed, the agent's defaults spelled out."""
    content = dataclasses.asdict(recipe)
    del content["seed"], content["description"]
    fields = dataclasses.fields(AGENTS.load(recipe.agent).learner_class.config_class)
    usual = {one.name: one.default for one in fields if one.default is not dataclasses.MISSING}
    options = usual | content["agent_options"]
    if options.get("encoder_lr") is None:
        options["encoder_lr"] = options["learning_rate"]
    if options.get("start") is None:
        options["start"] = "stored"  # goals join late wherever it is left open here
    plan: dict[str, Any] = json.loads(json.dumps(content | {"agent_options": options}))
    return plan


def rows_of(recipe: str, goal_recipe: str, shared: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One row per choice, without runs; where goals join is asked on the recipe with goals."""
    rows = []
    for axis, choices in axes_of(recipe).items():
        name = goal_recipe if axis == GOAL_AXIS else recipe
        for choice, options in choices.items():
            settings = [*shared, *(f"agent_options.{option}" for option in options)]
            plan = resolved(load_recipe(name, settings))
            row = {"axis": axis, "choice": choice, "recipe": name, "settings": settings}
            rows.append({**row, "plan": plan, "runs": []})
    return rows


def with_runs(rows: list[dict[str, Any]], old: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the runs that an earlier file has for the same plans."""
    for row in rows:
        same = (known["runs"] for known in old if not change_of(known["plan"], row["plan"]))
        row["runs"] = next(same, [])
    return rows


def trainings(
    rows: Sequence[Mapping[str, Any]], seeds: Sequence[int], out: Path
) -> dict[Training, Mapping[str, Any]]:
    """What is missing, each training with the plan that it follows; equal plans once."""
    todo: dict[Training, Mapping[str, Any]] = {}
    for seed in seeds:
        for row in rows:
            is_there = any(run["seed"] == seed for run in row["runs"])
            same = (one for one, plan in todo.items() if one.seed == seed and plan == row["plan"])
            if not is_there and next(same, None) is None:
                folder = out / _slug(row["recipe"]) / _slug(f"{row['axis']} {row['choice']}")
                settings = tuple(row["settings"])
                one = Training(row["recipe"], seed, settings, folder / f"seed-{seed}")
                todo[one] = row["plan"]
    return todo


def _slug(text: str) -> str:
    words = "".join(letter if letter.isalnum() else " " for letter in text).split()
    return "-".join(words).lower()


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing; 1 where something failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--recipe", default="pendulum-hidden-velocity")
    parser.add_argument("--goal-recipe", default="point-maze-hidden-velocity")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=6.0, help="longest time of one training")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--anew", action="store_true", help="forget all results first")
    args = parser.parse_args(arguments)

    path, out = RESULTS / "ablation.json", OUT / "ablation"
    if args.anew:
        path.unlink(missing_ok=True)
        shutil.rmtree(out, ignore_errors=True)
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = with_runs(rows_of(args.recipe, args.goal_recipe, args.settings), old)
    todo = trainings(rows, args.seeds, out)

    def finished(training: Training, facts: Facts) -> Iterable[Training]:
        for row in rows:
            if row["plan"] == todo[training]:
                row["runs"] = sorted([*row["runs"], facts], key=lambda run: run["seed"])
        write_json(path, {"kind": "ablation", "versions": versions(), "rows": rows})
        print(f"{training.folder.relative_to(out)}: {facts['minutes']} minutes", file=sys.stderr)
        return ()

    return 1 if run_all(todo, args.jobs, args.minutes, finished) else 0


if __name__ == "__main__":
    sys.exit(main())
