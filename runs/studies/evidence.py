"""Trains a recipe and its controls on several seeds and writes the results.

    python runs/studies/evidence.py quickstart --seeds 0 1 2
    python runs/studies/evidence.py pendulum-hidden-velocity --seeds 0 1 2 3 4 --jobs 2 --minutes 15
    python runs/studies/evidence.py fetch-push --ablation --set steps=40_000

Each variant (`variants.py`) and seed is one `rlkit train` in its own process; `--jobs` of them run
in parallel. `runs/results/<recipe>.json` and its figure are written after each training. An
interrupted call keeps what it has; the next call trains only what is missing.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import figures
import training_runs
from render_tables import change_of
from training_runs import Facts, TrainingRun
from variants import ABLATIONS, variant_names, variant_settings

from rlkit.experiment.recipe import load_recipe


class Evidence:
    """The results file of one recipe.

    Args:
        path: The file; it need not exist yet.
        recipe: Name or path of the recipe.
        settings: Changes of the recipe that all variants share.
        overwrite: Ignore existing results. The file is kept until the first new result.

    Raises:
        ValueError: If the file holds another recipe's results.
    """

    def __init__(
        self, path: Path, recipe: str, settings: Sequence[str] = (), overwrite: bool = False
    ) -> None:
        self._path, self._recipe, self._settings = path, recipe, tuple(settings)
        plan = load_recipe(recipe, settings)
        facts = {"recipe": recipe, "settings": list(settings), "env": plan.env, "agent": plan.agent}
        hint = "choose another --name, or train all variants again with --overwrite"
        found = {} if overwrite else training_runs.read_results(path, facts, hint)
        self.content: dict[str, Any] = {
            **facts,
            "versions": found.get("versions", training_runs.versions()),
            "variants": found.get("variants", {}),
        }

    def missing(self, variant: str, seeds: Iterable[int], out: Path) -> list[TrainingRun]:
        """The trainings of a variant that have no result yet.

        Raises:
            ValueError: If the variant was trained with other settings.
        """
        settings = (*self._settings, *variant_settings(self._recipe, variant))
        plan = _plan(load_recipe(self._recipe, settings))
        known = self.content["variants"].setdefault(variant, {"plan": plan, "runs": []})
        if not known["runs"]:
            known["plan"] = plan
        change = change_of(known["plan"], plan)
        if change:
            raise ValueError(
                f"{self._path}: the variant {variant!r} was trained with other settings "
                f"({change}); --overwrite trains it again"
            )
        done = {run["seed"] for run in known["runs"]}
        return [
            TrainingRun(self._recipe, seed, settings, out / variant / f"seed-{seed}")
            for seed in seeds
            if seed not in done
        ]

    def remove(self, variant: str, out: Path) -> None:
        """Removes a variant's results and run folders; its position in the file is kept."""
        if variant in self.content["variants"]:
            self.content["variants"][variant]["runs"].clear()
        shutil.rmtree(out / variant, ignore_errors=True)

    def add(self, variant: str, facts: Facts) -> None:
        """Adds one result to the file and draws the figure again."""
        runs = self.content["variants"][variant]["runs"]
        runs.append(facts)
        runs.sort(key=lambda run: run["seed"])
        trained = {name: known for name, known in self.content["variants"].items() if known["runs"]}
        content = self.content | {"variants": trained}
        training_runs.write_json(self._path, content)
        figures.variant_curves(content).savefig(self._path.with_suffix(".png"))


def _plan(recipe: Any) -> dict[str, Any]:
    """All settings of a run except its seed, as JSON values."""
    content = dataclasses.asdict(recipe)
    del content["seed"], content["description"]
    plan: dict[str, Any] = json.loads(json.dumps(content))
    return plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing; returns 1 if a training failed."""
    parser = training_runs.argument_parser(__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--variants", nargs="+", help="default: all that variants.py defines")
    parser.add_argument(
        "--ablation", action="store_true", help="train the variants of ABLATIONS in variants.py"
    )
    parser.add_argument(
        "--name", help="name of the result; default: the recipe's name, or that and -ablation"
    )
    parser.add_argument("--overwrite", action="store_true", help="train again what has results")
    training_runs.add_folders(parser, "evidence")
    args = parser.parse_args(arguments)
    if args.ablation and args.recipe not in ABLATIONS:
        parser.error(f"{args.recipe} has no ablation; those that have: {', '.join(ABLATIONS)}")

    name = args.name or Path(args.recipe).stem + ("-ablation" if args.ablation else "")
    path, out = args.results / f"{name}.json", args.out / name
    is_new = args.overwrite and not args.variants
    evidence = Evidence(path, args.recipe, args.settings, overwrite=is_new)
    usual = ABLATIONS[args.recipe] if args.ablation else variant_names(args.recipe)
    variants: list[str] = args.variants or list(usual)
    if args.overwrite:
        for variant in variants:
            evidence.remove(variant, out)
    todo = {
        run: variant for variant in variants for run in evidence.missing(variant, args.seeds, out)
    }

    def finished(run: TrainingRun, facts: Facts) -> Iterable[TrainingRun]:
        evidence.add(todo[run], facts)
        print(f"{name}, {todo[run]}, {_summary(facts)}", file=sys.stderr)
        return ()

    # Seed by seed: unfinished results then compare the variants on the same seeds.
    order = sorted(todo, key=lambda run: args.seeds.index(run.seed))
    return 1 if training_runs.run_all(order, args.jobs, args.minutes, finished) else 0


def _summary(facts: Facts) -> str:
    share = facts["success_rate"]
    reached = f"return {facts['return_mean']:.1f}" if share is None else f"success {share:.0%}"
    end = ", stopped by the time limit" if facts["stopped"] else ""
    return f"seed {facts['seed']}: {reached} in {facts['minutes']:.1f} minutes{end}"


if __name__ == "__main__":
    sys.exit(main())
