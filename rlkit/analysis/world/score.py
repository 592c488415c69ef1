"""The scorecard of world models: error, skill, calibration and cost, next to controls."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.analysis.world.benchmark import LEVEL, LEVELS, Benchmark, BenchmarkSettings, Forecasts
from rlkit.analysis.world.candidates import ARX, CONTROL, PERSISTENCE, Candidate, make_candidates
from rlkit.analysis.world.data import Source, WorldData, load_data, split_settings
from rlkit.analysis.world.training import Fitting
from rlkit.io.serialisation import plain_data
from rlkit.vec.vec_env import MakeEnv
from rlkit.world.scores.scores import Scores, skill

_REFERENCES = {PERSISTENCE: "skill", ARX: "skill_over_arx"}
Array = NDArray[Any]


@dataclass(frozen=True)
class FigureInput:
    """Input of the figures, from the first seed.

    Attributes:
        data: The data.
        benchmark: The windows.
        forecasts: Samples `(S, b, H, F)` of a few windows, by name, without controls and without
            forecasts that are not finite.
        rows: Which of the test windows these are `(b,)`.
    """

    data: WorldData
    benchmark: Benchmark
    forecasts: dict[str, Array]
    rows: Array


def measure_worlds(
    names: Sequence[str],
    source: Source,
    make: MakeEnv,
    *,
    settings: Iterable[str] = (),
    fitting: Fitting | None = None,
    protocol: BenchmarkSettings | None = None,
    seeds: Sequence[int] = (0,),
    controls: bool = True,
) -> tuple[dict[str, Any], FigureInput]:
    """Scores forecasts on held-out data.

    All candidates are fitted to the training part, recalibrated on the validation part, and
    forecast the same windows of the test part under the same actions. Each seed collects its own
    data, if they are collected, and fits its own models; saved worlds are not changed.

    Args:
        names: Folders of worlds, names of models, or baselines; see `make_candidates`.
        source: The source of the data.
        make: Builds one environment from its id.
        settings: `"NAME.key=value"` of a candidate, `"env_options.key=value"` of the environment.
        fitting: How models are fitted that are no folders.
        protocol: How forecasts are evaluated.
        seeds: One or more.
        controls: Whether the mandatory controls are added.

    Returns:
        The scores as JSON values, and the input of the figures.

    Raises:
        ValueError: If a name, a setting or the data are wrong.
    """
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError(f"seeds are whole numbers >= 0, each once, got {list(seeds)}")
    options, others = split_settings(settings)
    source = dataclasses.replace(source, env_options=source.env_options | options)
    protocol = protocol or BenchmarkSettings()
    candidates = make_candidates(names, fitting or Fitting(), others, controls=controls)
    runs, inputs = [], None
    for seed in seeds:
        data = load_data(source, make, seed)
        benchmark = Benchmark(data, protocol, max(one.context for one in candidates))
        facts, some, rows = _evaluate(candidates, data, benchmark, seed)
        runs.append(facts)
        inputs = inputs or FigureInput(data, benchmark, some, rows)
    assert inputs is not None
    found: dict[str, Any] = plain_data(
        {
            "data": source.plain(),
            "protocol": _described(inputs, protocol),
            "seeds": list(seeds),
            "models": {
                one.name: _joined(one, [run[one.name] for run in runs]) for one in candidates
            },
        },
        finite=True,
    )
    return found, inputs


def _evaluate(
    candidates: Sequence[Candidate], data: WorldData, benchmark: Benchmark, seed: int
) -> tuple[dict[str, dict[str, Any]], dict[str, Array], Array]:
    """The scores of one seed, and forecasts of a few windows for figures."""
    rows = np.linspace(0, len(benchmark.test) - 1, 3).round().astype(int)
    facts: dict[str, dict[str, Any]] = {}
    some: dict[str, Array] = {}
    references: dict[str, Forecasts] = {}

    def forecasts_of(one: Candidate) -> tuple[Forecasts, dict[str, Any]]:
        fitted = one.fit(data, benchmark.horizons[-1], seed)
        made = benchmark.forecasts(fitted, seed)
        return made, {**fitted.facts, "us_per_imagined_step": made.us_per_step}

    known = {one.name: forecasts_of(one) for one in candidates if one.name in _REFERENCES}
    for name, (made, _) in known.items():
        if made.finite.all():  # only finite forecasts can be compared with
            references[name] = made
    for one in candidates:
        made, cost = known.get(one.name) or forecasts_of(one)
        if one.role != CONTROL and made.finite[rows].all():
            some[one.name] = made.test[:, rows]
        facts[one.name] = {"cost": cost, **_scored(made, references, benchmark, data.names, seed)}
    return facts, some, rows


def _scored(
    made: Forecasts,
    references: dict[str, Forecasts],
    benchmark: Benchmark,
    names: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """The scores of one candidate with one seed, as nested numbers."""
    count, all_of = int((~made.finite).sum()), len(made.finite)
    found: dict[str, Any] = {"non_finite": {"windows": count, "of": all_of}}
    rows = made.finite
    if not rows.any():
        return {**found, "horizons": {}, "dimensions": {}, "curve": {}, "calibration": {}}
    raw = benchmark.score(made.test, rows, seed)
    mended = None if made.recalibrated is None else benchmark.score(made.recalibrated, rows, seed)
    against = {
        key: benchmark.score(references[name].test, rows, seed)
        for name, key in _REFERENCES.items()
        if name in references
    }
    found["recalibration"] = {
        "possible": mended is not None,
        "columns_left_alone": [names[column] for column in made.unscaled],
    }
    found["horizons"] = _horizons(raw, mended, against)
    found["dimensions"] = _dimensions(
        raw, mended, against, [names[i] for i in benchmark.varying.tolist()]
    )
    found["curve"] = _curve(made, references, benchmark, rows)
    found["calibration"] = {
        kind: {str(step): _reliability(one.pit[:, k]) for k, step in enumerate(one.steps)}
        for kind, one in (("raw", raw), ("recalibrated", mended))
        if one is not None
    }
    if benchmark.cells is not None:
        found["regions"] = _regions(made, references, benchmark, rows, seed)
    return found


def _horizons(
    raw: Scores, mended: Scores | None, against: dict[str, Scores]
) -> dict[str, dict[str, float]]:
    table = {str(step): dict(row) for step, row in raw.pooled().items()}
    for k, (step, row) in enumerate(table.items()):
        for key, reference in against.items():
            row[key] = float(skill(raw.mse[k].mean(), reference.mse[k].mean()))
            row[f"crps_{key}"] = float(skill(raw.crps[k].mean(), reference.crps[k].mean()))
        if mended is not None:
            pooled = mended.pooled()[int(step)]
            names = ("crps", "nll", "energy", *(f"coverage_{level:g}" for level in LEVELS))
            row |= {f"{name}_recalibrated": pooled[name] for name in names}
    return table


def _dimensions(
    raw: Scores, mended: Scores | None, against: dict[str, Scores], names: Sequence[str]
) -> dict[str, Any]:
    """By dimension and horizon; errors in the dimension's deviation, which is its `unit`."""
    skills = {key: raw.skill(reference) for key, reference in against.items()}
    table: dict[str, Any] = {}
    for f, name in enumerate(names):
        by_step = {}
        for k, step in enumerate(raw.steps):
            row = {key: getattr(raw, key)[k, f] for key in ("rmse", "crps", "nll")}
            row |= {key: values[k, f] for key, values in skills.items()}
            row |= {f"coverage_{level:g}": raw.coverage[level][k, f] for level in LEVELS}
            if mended is not None:
                row[f"coverage_{LEVEL:g}_recalibrated"] = mended.coverage[LEVEL][k, f]
            by_step[str(step)] = row
        table[name] = {"unit": raw.scale[f], **by_step}
    return table


def _curve(
    made: Forecasts, references: dict[str, Forecasts], benchmark: Benchmark, rows: NDArray[np.bool_]
) -> dict[str, Array]:
    """Error and skill at every step ahead, all dimensions together."""
    squares = benchmark.curve(made.test, rows)
    found = {"rmse": np.sqrt(squares)}
    for name, key in _REFERENCES.items():
        if name in references:
            found[key] = skill(squares, benchmark.curve(references[name].test, rows))
    return found


def _reliability(shares: Array) -> Array:
    """Share of truths below each of the forecast's quantiles 0, 1/20, ..., 1."""
    return np.concatenate([[0.0], np.cumsum(shares.mean(1))])


def _regions(
    made: Forecasts,
    references: dict[str, Forecasts],
    benchmark: Benchmark,
    rows: NDArray[np.bool_],
    seed: int,
) -> list[dict[str, Any]]:
    against = {
        key: benchmark.regions(references[name].test, rows, seed)
        for name, key in _REFERENCES.items()
        if name in references
    }
    table = []
    for cell, one in benchmark.regions(made.test, rows, seed).items():
        row = {"cell": list(cell), "windows": one.windows, "rmse": np.sqrt(one.mse.mean())}
        row |= {"crps": one.crps.mean(), f"coverage_{LEVEL:g}": one.coverage[LEVEL].mean()}
        for key, others in against.items():
            row[key] = skill(one.mse.mean(), others[cell].mse.mean())
        table.append(row)
    return table


def _joined(one: Candidate, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """All seeds: means and half-widths of 95 % intervals, and each seed."""
    horizons = [run["horizons"] for run in runs if run["horizons"]]
    tables = {}
    for step in horizons[0] if horizons else ():
        rows = [each[step] for each in horizons]
        common = [key for key in rows[0] if all(key in row for row in rows)]
        tables[step] = {key: interval([row[key] for row in rows]) for key in common}
    return {
        "role": one.role,
        "horizons": {step: {k: v[0] for k, v in row.items()} for step, row in tables.items()},
        "interval": {step: {k: v[1] for k, v in row.items()} for step, row in tables.items()},
        "cost": {
            key: interval([run["cost"][key] for run in runs])[0]
            for key, value in runs[0]["cost"].items()
            if value is not None
        },
        "non_finite": {
            key: sum(run["non_finite"][key] for run in runs) for key in ("windows", "of")
        },
        "runs": runs,
    }


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and half-width of its 95 % interval by Student's distribution; None of one value."""
    count = len(values)
    if count == 1:
        return float(values[0]), None
    spread = float(np.std(values, ddof=1)) / math.sqrt(count)
    return float(np.mean(values)), _student(count - 1) * spread


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's distribution; beyond 9 within a thousandth."""
    exact = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
    if freedom <= len(exact):
        return exact[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def _described(inputs: FigureInput, protocol: BenchmarkSettings) -> dict[str, Any]:
    benchmark, data = inputs.benchmark, inputs.data
    parts = {name: getattr(data, name) for name in ("training", "validation", "test")}
    constant = np.setdiff1d(np.arange(len(benchmark.unit)), benchmark.varying)
    return {
        "horizons": list(benchmark.horizons),
        "horizons_left_out": sorted(set(protocol.horizons) - set(benchmark.horizons)),
        "context": benchmark.context,
        "windows": len(benchmark.test),
        "validation_windows": len(benchmark.validation),
        "samples": protocol.samples,
        "level": LEVEL,
        "parts": {
            name: {"episodes": len(part), "steps": part.steps} for name, part in parts.items()
        },
        "columns": list(data.names),
        "actions": data.layout.action,
        "constant_columns": [data.names[i] for i in constant],
        "regions": None
        if benchmark.cells is None
        else {"edges": benchmark.edges, "steps_ahead": benchmark.region_step},
    }
