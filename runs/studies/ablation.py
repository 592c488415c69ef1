"""Measures the effect of single choices of recurrent agents on two short tasks.

    python runs/studies/ablation.py --set steps=3000 --seeds 0 1 2 --jobs 2

Each row changes one setting of a recipe. `runs/results/ablation.json` is written after each
training; another call trains only what is missing. Choices that result in the same agent, such as a
default and the same value given explicitly, are trained once.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import training_runs
from render_tables import change_of
from training_runs import Facts, TrainingRun

from rlkit.experiment.recipe import Recipe, load_recipe
from rlkit.plugins import AGENTS

Axes = dict[str, dict[str, tuple[str, ...]]]
GOAL_AXIS = "goal"
AXES: Axes = {
    "actor's and critic's encoder": {
        "separate": ("encoder_sharing=separate",),
        "shared, without the actor's gradient": ("encoder_sharing=detached",),
        "shared, with the actor's gradient": ("encoder_sharing=joint",),
    },
    "hidden state at a window's start": {
        "zero": ("start=zero", "burn_in=0"),
        "zero, 16 steps of burn-in": ("start=zero", "burn_in=16"),
        "stored": ("start=stored", "burn_in=0"),
    },
    GOAL_AXIS: {
        # Stored hidden states need late goals; the other choices start from zero states.
        "after the encoder, stored state": ("goal_mode=late", "start=stored"),
        "after the encoder": ("goal_mode=late", "start=zero"),
        "encoder input, one per window": ("goal_mode=early", "start=zero"),
        "encoder input, one per step (wrong)": ("goal_mode=mixed", "start=zero"),
    },
    "cell": {
        "GRU": ("encoder.name=gru",),
        "LSTM": ("encoder.name=lstm",),
        "min-GRU": ("encoder.name=mingru",),
    },
}
RATE_SHARES = (1.0, 0.3, 0.1, 0.03)


def axes_of(recipe: str) -> Axes:
    """The axes with their choices as agent options; learning rates depend on the recipe."""
    usual = resolved(load_recipe(recipe))["agent_options"]["learning_rate"]
    rates: dict[str, tuple[str, ...]] = {
        f"{share:g} x": (f"encoder_lr={share * usual:.6g}",) for share in RATE_SHARES
    }
    return {**AXES, "the encoder's learning rate": rates}


def resolved(recipe: Recipe) -> dict[str, Any]:
    """All settings of a run except its seed, with the agent's defaults filled in."""
    content = dataclasses.asdict(recipe)
    del content["seed"], content["description"]
    options = _defaults(recipe.agent) | content["agent_options"]
    if options.get("encoder_lr") is None:
        options["encoder_lr"] = options["learning_rate"]
    if options.get("start") is None:
        options["start"] = "stored"  # the default with late goals, which all recipes here have
    plan: dict[str, Any] = json.loads(json.dumps(content | {"agent_options": options}))
    return plan


def _defaults(agent: str) -> dict[str, Any]:
    fields = dataclasses.fields(AGENTS.load(agent).learner_class.config_class)
    usual = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
    plain: dict[str, Any] = json.loads(json.dumps(usual))
    return plain


def rows_of(recipe: str, goal_recipe: str, shared: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One row per choice, without runs; the goal axis uses the recipe with goals."""
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
    """Adds the runs that an earlier file has for the same plans.

    Options that are newer than the file count as their defaults.
    """
    for row in rows:
        usual = {"agent_options": _defaults(row["plan"]["agent"])}
        same = (known["runs"] for known in old if not change_of(known["plan"], row["plan"], usual))
        row["runs"] = next(same, [])
    return rows


def missing_runs(
    rows: Sequence[Mapping[str, Any]], seeds: Sequence[int], out: Path
) -> dict[TrainingRun, Mapping[str, Any]]:
    """The missing trainings with their plans; equal plans once."""
    todo: dict[TrainingRun, Mapping[str, Any]] = {}
    for seed in seeds:
        for row in rows:
            is_done = any(run["seed"] == seed for run in row["runs"])
            same = (run for run, plan in todo.items() if run.seed == seed and plan == row["plan"])
            if not is_done and next(same, None) is None:
                folder = out / _slug(row["recipe"]) / _slug(f"{row['axis']} {row['choice']}")
                settings = tuple(row["settings"])
                run = TrainingRun(row["recipe"], seed, settings, folder / f"seed-{seed}")
                todo[run] = row["plan"]
    return todo


def _slug(text: str) -> str:
    parts = "".join(letter if letter.isalnum() else " " for letter in text).split()
    return "-".join(parts).lower()


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing; returns 1 if a training failed."""
    parser = training_runs.argument_parser(__doc__)
    parser.set_defaults(minutes=6.0)
    parser.add_argument("--recipe", default="pendulum-hidden-velocity")
    parser.add_argument("--goal-recipe", default="point-maze-hidden-velocity")
    parser.add_argument("--overwrite", action="store_true", help="remove all results first")
    args = parser.parse_args(arguments)

    path, out = training_runs.RESULTS / "ablation.json", training_runs.OUT / "ablation"
    if args.overwrite:
        path.unlink(missing_ok=True)
        shutil.rmtree(out, ignore_errors=True)
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = with_runs(rows_of(args.recipe, args.goal_recipe, args.settings), old)
    todo = missing_runs(rows, args.seeds, out)

    def finished(run: TrainingRun, facts: Facts) -> Iterable[TrainingRun]:
        for row in rows:
            if row["plan"] == todo[run]:
                row["runs"] = sorted([*row["runs"], facts], key=lambda known: known["seed"])
        content = {"kind": "ablation", "versions": training_runs.versions(), "rows": rows}
        training_runs.write_json(path, content)
        print(f"{run.folder.relative_to(out)}: {facts['minutes']} minutes", file=sys.stderr)
        return ()

    return 1 if training_runs.run_all(todo, args.jobs, args.minutes, finished) else 0


if __name__ == "__main__":
    sys.exit(main())
