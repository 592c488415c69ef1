"""Renders the tables of the README and of `docs/` from `runs/results`.

    python runs/studies/render_tables.py
    python runs/studies/render_tables.py --write

Prints the tables, or writes them into the documents with `--write`.
`<recipe>.json` comes from `evidence.py`, `ablation.json`, `betas.json`, `cue-maze-lengths.json` and
`world-<set>.json` from the other scripts of this folder. `bench_<name>.json` is the output of that
script in `runs/bench/`; `conformance/outsiders.json` from `runs/conformance/`;
`environments/<name>.json` from `environments.py`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import benchmark_rows
import environment_rows
import matrix_rows
import outsider_rows
import world_rows

from rlkit.analysis.world.score import interval
from rlkit.experiment.evaluate import wilson

RESULTS = Path(__file__).resolve().parents[1] / "results"
ROOT = RESULTS.parents[1]
AGENT = "agent"  # the only variant of a recipe without controls
TOPICS = {
    "vae": "latents",
    "mix": "latents",
    "mpc": "plans",
    "all": "hindsight",
    "recipe": "hindsight",
}
"""Topic of a recipe by the name of its first variant; all other recipes are recurrent."""
LEARNED = 0.9  # success rate from which the ablations of hindsight count a task as learned
Runs = Sequence[Mapping[str, Any]]


def documents() -> list[Path]:
    """The files that may contain tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def change_of(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
    prefix: str = "",
) -> str | None:
    """The first difference between two plans; None if they are equal.

    Args:
        old: The earlier plan.
        new: The later plan.
        defaults: Values of keys that the earlier plan does not have.
        prefix: Begins the name of the key that differs.
    """
    usual = defaults or {}
    for key in sorted({*old, *new}):
        was, now = old.get(key, usual.get(key)), new.get(key)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            change = change_of(was, now, usual.get(key), f"{prefix}{key}.")
            if change:
                return change
        elif was != now:
            return f"{prefix}{key} was {was!r} and is {now!r}"
    return None


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval by Student's t; the interval of a single value is that value."""
    mean, half = interval(values)
    return mean, mean - (half or 0.0), mean + (half or 0.0)


def pooled_success(runs: Runs) -> tuple[float, float, float]:
    """Share of successes over the episodes of all runs, with its 95 % score interval."""
    trials = sum(run["episodes"] for run in runs)
    successes = sum(round(run["success_rate"] * run["episodes"]) for run in runs)
    return successes / trials, *wilson(successes, trials)


def reached(runs: Runs) -> str:
    """Result of several runs with its interval: success rate if known, else return."""
    if all(run["success_rate"] is not None for run in runs):
        share, low, high = (100 * value for value in pooled_success(runs))
        return f"{share:.0f} % [{low:.0f}, {high:.0f}]"
    mean, low, high = mean_interval([run["return_mean"] for run in runs])
    interval = f" [{low:.0f}, {high:.0f}]" if len(runs) > 1 else ""
    return f"{mean:.0f}{interval}"


def _recipes(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        if not path.stem.startswith("bench_") and "kind" not in result:
            yield path.stem, result


def recipe_rows(folder: Path) -> Iterator[list[str]]:
    """One row per trained recipe without controls."""
    for name, result in _recipes(folder):
        variants = result["variants"]
        if [*variants] == [AGENT]:
            runs = variants[AGENT]["runs"]
            yield [
                f"`{name}`",
                f"`{result['env']}`, {result['agent'].upper()}",
                _steps(runs),
                _one_by_one(runs),
                _minutes(runs),
            ]


def recurrent_rows(folder: Path) -> Iterator[list[str]]:
    """One row per recipe and variant, for recipes with a recurrent encoder."""
    return _variant_rows(folder, "recurrent")


def latent_rows(folder: Path) -> Iterator[list[str]]:
    """One row per recipe and variant, for recipes whose variants differ in the latent model."""
    return _variant_rows(folder, "latents")


def plan_rows(folder: Path) -> Iterator[list[str]]:
    """One row per recipe and variant, for recipes with a planner."""
    return _variant_rows(folder, "plans")


def hindsight_rows(folder: Path) -> Iterator[list[str]]:
    """One row per ablation and variant, with the steps to a success rate."""
    for name, variant, _, runs in _variants(folder, "hindsight"):
        learned = " ".join(_learned(run["curve"]) for run in runs)
        yield [f"`{name}`", variant, reached(runs), learned, _steps(runs), _minutes(runs)]


def _learned(curve: Sequence[Sequence[float]]) -> str:
    """Thousands of steps to the first evaluation with a success rate of `LEARNED`."""
    return next((f"{steps / 1000:.0f}" for steps, share, _ in curve if share >= LEARNED), "-")


def _variant_rows(folder: Path, topic: str) -> Iterator[list[str]]:
    for name, variant, plan, runs in _variants(folder, topic):
        task = f"`{plan['env']}`, {plan['agent'].upper()}"
        counts = [str(len(runs)), _steps(runs), _minutes(runs)]
        yield [f"`{name}`", variant, task, reached(runs), *counts]


def _variants(folder: Path, topic: str) -> Iterator[tuple[str, str, Mapping[str, Any], Runs]]:
    for name, result in _recipes(folder):
        variants = result["variants"]
        if [*variants] != [AGENT] and TOPICS.get(next(iter(variants)), "recurrent") == topic:
            for variant, known in variants.items():
                yield name, variant, known["plan"], known["runs"]


def corridor_rows(folder: Path) -> Iterator[list[str]]:
    """One row per encoder: the longest corridor that it solved."""
    for path in sorted(folder.glob("*-lengths.json")):
        result = json.loads(path.read_text())
        for encoder, attempts in result["attempts"].items():
            best = [str(longest(runs, result["solved"]) or "none") for runs in attempts.values()]
            tried = [run for runs in attempts.values() for run in runs]
            if not tried:  # its first corridor is not finished
                continue
            missed = [run for run in tried if run["success_rate"] < result["solved"]]
            shares = [f"{run['length']}: {100 * run['success_rate']:.0f} %" for run in missed]
            longest_tried = max(run["length"] for run in tried)
            if not missed and longest_tried < max(result["lengths"]):
                shares = [f"not tried beyond {longest_tried}"]
            yield [encoder, " ".join(best), ", ".join(shares) or "none", _minutes(tried)]


def longest(runs: Runs, solved: float) -> int | None:
    """The longest length that was solved; None if there is none."""
    lengths = [run["length"] for run in runs if run["success_rate"] >= solved]
    return max(lengths, default=None)


def ablation_rows(folder: Path) -> Iterator[list[str]]:
    """One row per choice of each axis."""
    for row in benchmark_rows.read(folder / "ablation.json").get("rows", ()):
        runs = row["runs"]
        if runs:
            counts = [str(len(runs)), _steps(runs), _minutes(runs)]
            yield [row["axis"], row["choice"], f"`{row['recipe']}`", reached(runs), *counts]


def beta_rows(folder: Path) -> Iterator[list[str]]:
    """One row per weight of the prior; means over seeds."""
    for row in benchmark_rows.read(folder / "betas.json").get("rows", ()):
        runs = row["runs"]
        if runs:
            means = [fmean(run[name] for run in runs) for name in BETA_COLUMNS]
            yield [f"{row['beta']:g}", *(f"{mean:.2f}" for mean in means), reached(runs)]


BETA_COLUMNS = ("explained", "kl", "linear_r2", "neighbour_r2", "disentanglement")
_COUNTS = ["seeds", "steps", "minutes"]
_REACHED = "success or return, 95 % interval"
_TABLES: dict[str, tuple[list[str], Callable[[Path], Iterator[list[str]]]]] = {
    "recipes": (
        ["recipe", "task", "steps", "success, one number per seed", "minutes"],
        recipe_rows,
    ),
    "recurrent": (["recipe", "variant", "task", _REACHED, *_COUNTS], recurrent_rows),
    "latents": (["recipe", "variant", "task", _REACHED, *_COUNTS], latent_rows),
    "plans": (["recipe", "variant", "task", _REACHED, *_COUNTS], plan_rows),
    "hindsight": (
        ["ablation", "variant", _REACHED, "steps to 90 %, thousands", "steps", "minutes"],
        hindsight_rows,
    ),
    "worlds_arx": world_rows.table_of("skill_over_arx", "15", "{:.2f}"),
    "worlds_persistence": world_rows.table_of("skill", "15", "{:.2f}"),
    "worlds_far": world_rows.table_of("rmse", "50", "{:.2f}"),
    "worlds_coverage": world_rows.table_of("coverage_0.9_recalibrated", "1", "{:.1%}"),
    "worlds_cost": (world_rows.COSTS, world_rows.cost_rows),
    "worlds_speed": (benchmark_rows.SPEED_COLUMNS, benchmark_rows.world_speed_rows),
    "faults": (matrix_rows.COLUMNS, matrix_rows.matrix_rows),
    "planners": (benchmark_rows.PLANNER_COLUMNS, benchmark_rows.planner_rows),
    "betas": (
        [
            *("beta", "explained variance", "KL divergence, nats", "position, linear R2"),
            *("position, neighbours' R2", "mutual information gap", "success, 95 % interval"),
        ],
        beta_rows,
    ),
    "corridors": (
        ["encoder", "longest corridor solved, per seed", "not solved", "minutes per corridor"],
        corridor_rows,
    ),
    "ablation": (["axis", "choice", "recipe", _REACHED, *_COUNTS], ablation_rows),
    "bench": (["one thread", "rlkit-suite", "other library", "ratio"], benchmark_rows.bench_rows),
    "environments": (environment_rows.COLUMNS, environment_rows.environment_rows),
    "environment_commands": (
        ["environment", "package", "command"],
        environment_rows.command_rows,
    ),
    "outsiders": (outsider_rows.COLUMNS, outsider_rows.suite_rows),
    "outsiders_failing": (outsider_rows.REASON_COLUMNS, outsider_rows.failing_rows),
    "outsiders_not_applicable": (outsider_rows.REASON_COLUMNS, outsider_rows.not_applicable_rows),
    "acting": (["one step, µs", "batch 1", "batch 8"], benchmark_rows.acting_rows),
    "scan": (
        ["steps", "`torch.nn.GRU`, ms", "GRU, ms", "min-GRU, ms", "LRU, ms"],
        benchmark_rows.scan_rows,
    ),
}


def rendered(folder: Path = RESULTS) -> dict[str, str]:
    """Every table as Markdown, by name."""
    return {name: _markdown(head, [*rows(folder)]) for name, (head, rows) in _TABLES.items()}


def filled(text: str, folder: Path = RESULTS) -> str:
    """A document with its tables filled in between `<!-- table: NAME -->` and `<!-- end -->`.

    Raises:
        ValueError: If a mark names no table.
    """
    known = rendered(folder)
    for name in marks(text):
        if name not in known:
            raise ValueError(f"there is no table {name!r}; known: {', '.join(known)}")
        place = re.compile(
            f"({re.escape(f'<!-- table: {name} -->')}\n).*?(<!-- end -->)", re.DOTALL
        )
        table = known[name].replace("\\", r"\\")  # else the start of a reference to a group
        text = place.sub(rf"\g<1>{table}\g<2>", text)
    return text


def marks(text: str) -> list[str]:
    """Names of the tables that a document contains."""
    return re.findall(r"^<!-- table: (.*) -->$", text, re.MULTILINE)


def unplaced(folder: Path = RESULTS) -> list[str]:
    """Tables with content that no document contains."""
    placed = {name for path in documents() for name in marks(path.read_text())}
    return [
        name
        for name, (_, rows) in _TABLES.items()
        if name not in placed and next(rows(folder), None)
    ]


def _one_by_one(runs: Runs) -> str:
    if all(run["success_rate"] is not None for run in runs):
        return " ".join(f"{100 * run['success_rate']:.0f}" for run in runs) + " %"
    return " ".join(f"{run['return_mean']:.0f}" for run in runs) + " (return)"


def _steps(runs: Runs) -> str:
    steps = _range([f"{steps:,}" for steps in sorted(run["steps"] for run in runs)])
    return f"{steps} (time limit)" if any(run["stopped"] for run in runs) else steps


def _minutes(runs: Runs) -> str:
    return _range([f"{value:.1f}" for value in sorted(run["minutes"] for run in runs)])


def _range(values: list[str]) -> str:
    return values[0] if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return "Not measured yet.\n"
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Prints the tables, or writes them into the documents."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="change the documents")
    if not parser.parse_args().write:
        print("\n".join(f"{name}:\n\n{table}" for name, table in rendered().items()), end="")
        return
    for path in documents():
        path.write_text(filled(path.read_text()))
    for name in unplaced():
        print(f"no document contains the table {name!r}: <!-- table: {name} -->")


if __name__ == "__main__":
    main()
