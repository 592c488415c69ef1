"""Writes a scorecard as JSON, figures and TensorBoard events, and renders it as tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from rlkit.analysis.world import plots as draw
from rlkit.analysis.world.columns import LATENT_COLUMN
from rlkit.analysis.world.data import Source
from rlkit.analysis.world.score import FigureInput, measure_worlds
from rlkit.analysis.world.video import animation, decoded, strip
from rlkit.experiment.folders import data_folder, free_folder
from rlkit.experiment.run_logger import EventFile, image_summary
from rlkit.io.atomic_write import replace_file
from rlkit.vec.vec_env import MakeEnv

SCORE = "score.json"
_COLUMNS = {
    "rmse": ("error", "{:.3f}"),
    "skill": ("over persistence", "{:.3f}"),
    "skill_over_arx": ("over ARX", "{:.3f}"),
    "crps": ("CRPS", "{:.3f}"),
    "energy": ("energy", "{:.3f}"),
    "nll": ("NLL", "{:.2f}"),
    "coverage_0.9": ("90 % covers", "{:.1%}"),
    "coverage_0.9_recalibrated": ("recalibrated", "{:.1%}"),
}

_WORST = -9


def score_worlds(
    names: Sequence[str], source: Source, make: MakeEnv, out: Path | None = None, **options: Any
) -> dict[str, Any]:
    """Scores forecasts, and writes the scorecard; see `measure_worlds`.

    Args:
        names: Folders of worlds, names of models, or baselines.
        source: The source of the data.
        make: Builds one environment from its id.
        out: The scorecard's folder; without it `runs/out/worlds/<data>/score`.
        options: Of `measure_worlds`.

    Returns:
        The content of `score.json`, and the folder.

    Raises:
        ValueError: If a name, a setting or the data are wrong; nothing is written then.
    """
    found, inputs = measure_worlds(names, source, make, **options)
    path = out or free_folder(data_folder("worlds", source.data, "score"))
    write_report(path, found, inputs)
    return {"folder": str(path), **found}


def write_report(folder: Path, found: dict[str, Any], inputs: FigureInput) -> None:
    """Writes `score.json`, the figures, and TensorBoard's events.

    Args:
        folder: Made where it is missing; what is there of an earlier score is replaced.
        found: What was scored, as JSON values.
        inputs: Input of the figures.
    """
    films = _open_loops(inputs)
    figures = _figures(found, inputs)
    figures |= {f"open_loop_{name}": strip(windows, name) for name, windows in films.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.png"), *folder.glob("*.gif")):
        old.unlink()
    events = EventFile(folder)
    for name, figure in figures.items():
        events.add_figure(f"world/{name}", figure, 0, folder / f"{name}.png")
    for name, windows in films.items():
        data, height, width = animation(windows)
        replace_file(folder / f"open_loop_{name}.gif", data)
        events.add(image_summary(f"world/open_loop_{name}_video", data, height, width), 0)
    for name, known in found["models"].items():
        for step, row in known["horizons"].items():
            curves = {f"{_file_name(name)}/{key}": value for key, value in row.items()}
            events.write(curves, {}, int(step))  # the horizon is TensorBoard's step
    events.sync()
    events.close()
    replace_file(folder / SCORE, json.dumps(found, indent=1, allow_nan=False).encode() + b"\n")


def describe_score(found: dict[str, Any]) -> str:
    """The tables of a scorecard."""
    plan, models = found["protocol"], found["models"]
    seeds = found["seeds"]
    lines = [
        f"{found['data']['data']}: {plan['windows']} windows after {plan['context']} steps of "
        f"context, {plan['samples']} samples each; errors in deviations of the training part"
        + (f"; means over {len(seeds)} seeds, ± half of a 95 % interval" if len(seeds) > 1 else "")
    ]
    if plan["horizons_left_out"]:
        left = ", ".join(map(str, plan["horizons_left_out"]))
        lines.append(f"Too short for {left} steps ahead.")
    if plan["constant_columns"]:
        lines.append(f"Constant, and not scored: {', '.join(plan['constant_columns'])}.")
    for step in plan["horizons"]:
        heads = [f"{step} step{'s' if step > 1 else ''} ahead"]
        heads += [head for head, _ in _COLUMNS.values()]
        rows = [[name, *_cells(known, str(step))] for name, known in models.items()]
        lines += ["", *_table(heads, rows)]
    heads = ["cost", "training in s", "us per imagined step", "parameters", "not finite"]
    lines += ["", *_table(heads, [_cost(name, known) for name, known in models.items()])]
    return "\n".join([*lines, "", *_verdicts(found)])


def _cells(known: dict[str, Any], step: str) -> list[str]:
    row, around = known["horizons"].get(step, {}), known["interval"].get(step, {})
    cells = []
    for key, (_, form) in _COLUMNS.items():
        value, half = row.get(key), around.get(key)
        text = "-" if value is None else form.format(value)
        if value is not None and key.startswith("skill") and value < _WORST:
            text, half = f"< {_WORST}", None  # how far below has no meaning
        cells.append(text if half is None else f"{text} ±{form.format(half)}")
    return cells


def _cost(name: str, known: dict[str, Any]) -> list[str]:
    cost, count = known["cost"], known["non_finite"]
    seconds, size = cost.get("training_s"), cost.get("parameters")
    return [
        name,
        "-" if seconds is None else f"{seconds:.1f}",
        f"{cost['us_per_imagined_step']:.2f}",
        "-" if size is None else f"{size:,.0f}",
        f"{count['windows']} of {count['of']}",
    ]


def _verdicts(found: dict[str, Any]) -> list[str]:
    """One line per model and reference: where the model has no skill."""
    lines = []
    for name, known in found["models"].items():
        if known["role"] != "model":
            continue
        for key, reference in (("skill", "persistence"), ("skill_over_arx", "ARX")):
            rows = {
                step: (row[key], known["interval"][step].get(key) or 0.0)
                for step, row in known["horizons"].items()
                if row.get(key) is not None
            }
            none = [step for step, (mean, _) in rows.items() if mean <= 0]
            unsure = [step for step, (mean, half) in rows.items() if 0 < mean <= half]
            for steps, what in ((none, "has no skill"), (unsure, "has no certain skill")):
                if steps:
                    lines.append(f"{name} {what} over {reference} at horizon {', '.join(steps)}.")
            if rows and not none and not unsure:
                lines.append(f"{name} beats {reference} at every horizon.")
        if known["non_finite"]["windows"]:
            count = known["non_finite"]
            lines.append(
                f"{name} is not finite in {count['windows']} of {count['of']} windows; its "
                f"scores are those of the others, which are probably easier."
            )
    return lines


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]

    def line(cells: list[str]) -> str:
        first, *others = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join([first, *others]).rstrip()

    return [line(heads), *(line(row) for row in rows)]


def _figures(found: dict[str, Any], inputs: FigureInput) -> dict[str, Figure]:
    models, plan = found["models"], found["protocol"]
    title = f"{found['data']['data']}, {plan['windows']} held-out forecasts"
    figures = {
        "errors": draw.error_curves(models, plan["horizons"], title),
        "calibration": draw.calibration_curves(models),
    }
    test, columns = inputs.benchmark.test, inputs.benchmark.varying.tolist()
    past, truth = test.context_observation[inputs.rows], test.future_observation[inputs.rows]
    for name, samples in inputs.forecasts.items():
        figures[f"fans_{_file_name(name)}"] = draw.fans(
            samples, past, truth, columns, inputs.data.names, name
        )
    if plan["regions"] is not None:
        regions = plan["regions"]
        figures["regions"] = draw.region_maps(models, regions["edges"], regions["steps_ahead"])
    return figures


def _open_loops(inputs: FigureInput) -> dict[str, list[Any]]:
    """Decoded forecasts by name, where latents can be decoded."""
    latent = inputs.data.latent
    if latent is None or not latent.decodes:
        return {}
    test = inputs.benchmark.test
    past, truth = test.context_observation[inputs.rows], test.future_observation[inputs.rows]
    names = inputs.data.names
    columns = [i for i, name in enumerate(names) if name.startswith(LATENT_COLUMN)]
    return {
        _file_name(name): decoded(latent, past, truth, samples, columns)
        for name, samples in inputs.forecasts.items()
    }


def _file_name(name: str) -> str:
    kept = "".join(c if c.isalnum() or c in "-_" else "-" for c in name)
    return kept.strip("-")
