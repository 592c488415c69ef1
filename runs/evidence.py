"""Trains a recipe on several seeds, beside its controls, and writes down what came of it.

    python runs/evidence.py quickstart --seeds 0 1 2
    python runs/evidence.py pendulum-hidden-velocity --seeds 0 1 2 3 4 --jobs 2 --minutes 15

Every arm (runs/arms.py) and seed is one `rlkit train` in a process of its own, `--jobs` of them
side by side. `runs/results/<recipe>.json` and its figure are written after each, so that an
interrupted series keeps what it has: called again, it trains only what is missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from arms import arm_names, arm_settings
from figures import arm_curves
from series import OUT, RESULTS, Facts, Training, run_all, versions, write_json
from tables import change_of

from rlkit.experiment.recipe import load_recipe


class Evidence:
    """The file of one recipe's results.

    Args:
        path: Where it lies or will lie.
        recipe: Name or path of the recipe.
        settings: Changes of the recipe that all arms share.
        anew: Whether to forget what the file holds; it stays until the first result.

    Raises:
        ValueError: If the file holds another recipe's results.
    """

    def __init__(
        self, path: Path, recipe: str, settings: Sequence[str] = (), anew: bool = False
    ) -> None:
        self._path, self._recipe, self._settings = path, recipe, tuple(settings)
        plan = load_recipe(recipe, settings)
        facts = {"recipe": recipe, "settings": list(settings), "env": plan.env, "agent": plan.agent}
        found = json.loads(path.read_text()) if path.exists() and not anew else {}
        for key, value in facts.items():
            if found and found[key] != value:
                raise ValueError(
                    f"{path} holds {key} = {found[key]!r}, not {value!r}; give these results "
                    f"another --name, or train all arms --anew"
                )
        self.content: dict[str, Any] = {
            **facts,
            "versions": found.get("versions", versions()),
            "arms": found.get("arms", {}),
        }

    def missing(self, arm: str, seeds: Iterable[int], out: Path) -> list[Training]:
        """The trainings of an arm that have no result yet.

        Raises:
            ValueError: If the arm's results are those of other settings.
        """
        settings = (*self._settings, *arm_settings(self._recipe, arm))
        plan = _plan(load_recipe(self._recipe, settings))
        known = self.content["arms"].setdefault(arm, {"plan": plan, "runs": []})
        if not known["runs"]:
            known["plan"] = plan
        change = change_of(known["plan"], plan)
        if change:
            raise ValueError(
                f"{self._path}: the arm {arm!r} was trained with other settings ({change}); "
                f"--anew trains it again"
            )
        there = {run["seed"] for run in known["runs"]}
        return [
            Training(self._recipe, seed, settings, out / arm / f"seed-{seed}")
            for seed in seeds
            if seed not in there
        ]

    def forget(self, arm: str, out: Path) -> None:
        """Removes an arm's results, and its runs; it keeps its place among the arms."""
        if arm in self.content["arms"]:
            self.content["arms"][arm]["runs"].clear()
        shutil.rmtree(out / arm, ignore_errors=True)

    def add(self, arm: str, facts: Facts) -> None:
        """Writes one more result into the file, and draws its figure."""
        runs = self.content["arms"][arm]["runs"]
        runs.append(facts)
        runs.sort(key=lambda run: run["seed"])
        trained = {name: known for name, known in self.content["arms"].items() if known["runs"]}
        write_json(self._path, self.content | {"arms": trained})
        arm_curves(self.content | {"arms": trained}).savefig(self._path.with_suffix(".png"))


def _plan(recipe: Any) -> dict[str, Any]:
    """Everything that a run of the recipe depends on, but its seed, as JSON holds it."""
    content = dataclasses.asdict(recipe)
    del content["seed"], content["description"]
    plan: dict[str, Any] = json.loads(json.dumps(content))
    return plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing; 1 where something failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", help="default: those that runs/arms.py knows")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--name", help="name of the result, if not the recipe's")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    parser.add_argument("--minutes", type=float, help="longest time of one training")
    parser.add_argument("--anew", action="store_true", help="forget the arms' results first")
    parser.add_argument("--results", type=Path, default=RESULTS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=OUT / "evidence", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)

    name = args.name or Path(args.recipe).stem
    path = args.results / f"{name}.json"
    evidence = Evidence(path, args.recipe, args.settings, anew=args.anew and not args.arms)
    out = args.out / name
    arms: list[str] = args.arms or list(arm_names(args.recipe))
    if args.anew:
        for arm in arms:
            evidence.forget(arm, out)
    todo = {one: arm for arm in arms for one in evidence.missing(arm, args.seeds, out)}

    def finished(training: Training, facts: Facts) -> Iterable[Training]:
        evidence.add(todo[training], facts)
        print(f"{name}, {todo[training]}, {_told(facts)}", file=sys.stderr)
        return ()

    # Seed by seed, so that an early look compares the arms on the same seeds.
    order = sorted(todo, key=lambda training: args.seeds.index(training.seed))
    return 1 if run_all(order, args.jobs, args.minutes, finished) else 0


def _told(facts: Facts) -> str:
    share = facts["success_rate"]
    reached = f"return {facts['return_mean']:.1f}" if share is None else f"success {share:.0%}"
    end = ", stopped for time" if facts["stopped"] else ""
    return f"seed {facts['seed']}: {reached} in {facts['minutes']:.1f} minutes{end}"


if __name__ == "__main__":
    sys.exit(main())
