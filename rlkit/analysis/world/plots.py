"""Figures of a scorecard: error and skill over the horizon, calibration, fans, regions of goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from rlkit.experiment.plots import mean_with_range, remove_spines

# Colours of Okabe and Ito (2008), distinguishable with colour blindness; lines differ as well.
_STYLES = {
    "persistence": ("#999999", ":", "x"),
    "arx": ("#000000", "-.", "s"),
    "linear": ("#56B4E9", "--", "^"),
}
_OTHERS = (
    ("#0072B2", "-", "o"),
    ("#D55E00", "-", "D"),
    ("#009E73", "-", "v"),
    ("#CC79A7", "-", "P"),
    ("#E69F00", "--", "*"),
    ("#882255", "--", "h"),
    ("#332288", "-.", "p"),
    ("#117733", "-.", "X"),
    ("#8A6D3B", "-.", "d"),
)
_INK, _PALE, _GRID = "#333333", "#f1f1ef", "#dddddd"
_DIMENSIONS = 4  # of a fan figure, at most
_WORST_SKILL = -1.0  # lower values are cut off
_WORST_ERROR = 2.0  # times persistence's, likewise
Array = NDArray[Any]
Style = tuple[str, str, str]


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Colour, line and marker of every candidate, the same in all figures."""
    others = iter(_OTHERS * len(names))
    return {name: _STYLES.get(name) or next(others) for name in names}


def error_curves(models: Mapping[str, Any], horizons: Sequence[int], title: str) -> Figure:
    """Error, and skill over persistence, over steps ahead; bands reach over all seeds.

    Markers are at the horizons of the tables. Curves far worse than persistence are cut off.
    """
    style_of = styles(list(models))
    figure = Figure(figsize=(10.5, 4.6), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, known in models.items():
        curves = [run["curve"] for run in known["runs"] if run["curve"]]
        if not curves:
            continue
        _curve(left, [one["rmse"] for one in curves], name, style_of[name], horizons)
        if name != "persistence" and all("skill" in one for one in curves):
            _curve(right, [one["skill"] for one in curves], name, style_of[name], horizons)
    left.set(ylabel="RMSE, in deviations of the training part")
    left.set_ylim(0, min(left.get_ylim()[1], _top(models)))
    right.axhline(0, color=_STYLES["persistence"][0], linestyle=":", linewidth=2)
    right.set(ylabel="squared error avoided, of persistence's")
    right.set_ylim(max(_WORST_SKILL, right.get_ylim()[0]), 1.02)
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in (left, right):
        axes.set(xlabel="steps ahead", xlim=(0, 1.03 * max(horizons)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        remove_spines(axes)
    figure.suptitle(title)
    _legend(figure, left, len(models))
    return figure


def calibration_curves(models: Mapping[str, Any]) -> Figure:
    """Share of truths below each quantile, by steps ahead: as forecast, and recalibrated below."""
    drawn = {name: known for name, known in models.items() if known["role"] != "control"}
    style_of = styles(list(models))
    kinds = [run["calibration"] for known in drawn.values() for run in known["runs"]]
    steps = list(next((kind["raw"] for kind in kinds if kind), {}))
    columns = max(len(steps), 1)
    figure = Figure(figsize=(0.8 + 2.6 * columns, 6.2), dpi=120, layout="constrained")
    panels = figure.subplots(2, columns, sharex=True, sharey=True, squeeze=False)
    for row, kind in zip(panels, ("raw", "recalibrated"), strict=True):
        for axes, step in zip(row, steps, strict=False):
            axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1, label="calibrated")
            for name, known in drawn.items():
                found = [run["calibration"].get(kind) for run in known["runs"]]
                runs = [one[step] for one in found if one]
                if runs:
                    colour, line, marker = style_of[name]
                    style: dict[str, Any] = {"color": colour, "linewidth": 1.6, "label": name}
                    style |= {"marker": marker, "markevery": 5, "markersize": 4}
                    place = np.linspace(0, 1, len(runs[0]))
                    axes.plot(place, np.mean(runs, 0), line, **style)
            axes.set(xlim=(0, 1), ylim=(0, 1))
            axes.set_aspect("equal")
            remove_spines(axes)
        row[0].yaxis.set_major_formatter(PercentFormatter(1.0))
        row[0].set_ylabel(f"truths below it, {'as forecast' if kind == 'raw' else kind}")
    for top, bottom, step in zip(*panels, steps, strict=False):
        top.set_title("1 step ahead" if step == "1" else f"{step} steps ahead")
        bottom.set_xlabel("quantile of the forecast")
        bottom.xaxis.set_major_formatter(PercentFormatter(1.0))
    _legend(figure, panels[0, 0], 1 + len(drawn))
    return figure


def fans(
    samples: Array, past: Array, truth: Array, columns: Sequence[int], names: Sequence[str], of: str
) -> Figure:
    """Forecasts of a few windows: truth, mean, and the central 50 % and 90 % of samples.

    Args:
        samples: `(S, b, H, F)` in raw units.
        past: Context `(b, C + 1, F)`.
        truth: `(b, H, F)`.
        columns: Those that vary; of many, some evenly spread.
        names: Of all columns.
        of: Whose forecasts.
    """
    count = min(len(columns), _DIMENSIONS)
    chosen = [columns[i] for i in np.linspace(0, len(columns) - 1, count).round().astype(int)]
    windows = samples.shape[1]
    size = (1.2 + 3.3 * windows, 1.2 + 1.75 * len(chosen))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    panels = figure.subplots(len(chosen), windows, sharex=True, sharey="row", squeeze=False)
    colour = _OTHERS[0][0]
    ahead = np.arange(samples.shape[2] + 1)
    before = np.arange(past.shape[1]) - past.shape[1] + 1
    for row, column in zip(panels, chosen, strict=True):
        for window, axes in enumerate(row):
            now = past[window, -1, column]
            drawn = samples[:, window, :, column]
            drawn = np.concatenate([np.full((len(drawn), 1), now), drawn], 1)
            for level, alpha in ((0.9, 0.18), (0.5, 0.32)):
                low, high = np.quantile(drawn, [0.5 - level / 2, 0.5 + level / 2], axis=0)
                label = f"{level:.0%} of samples"
                axes.fill_between(
                    ahead, low, high, color=colour, alpha=alpha, linewidth=0, label=label
                )
            axes.plot(ahead, drawn.mean(0), color=colour, linewidth=1.8, label="mean forecast")
            true = np.append(now, truth[window, :, column])
            axes.plot(before, past[window, :, column], color=_INK, linewidth=1.2)
            axes.plot(ahead, true, color=_INK, linewidth=1.2, label="truth")
            axes.axvline(0, color="#bbbbbb", linewidth=0.8)
            remove_spines(axes)
        row[0].set_ylabel(names[column])
    for axes in panels[-1]:
        axes.set_xlabel("steps from the present")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
    figure.align_ylabels(panels[:, 0])
    figure.suptitle(f"Forecasts of {of}, under the actions that were taken")
    _legend(figure, panels[0, 0], 4)
    return figure


def region_maps(models: Mapping[str, Any], edges: Sequence[Sequence[float]], step: int) -> Figure:
    """Error by the goal achieved at a forecast's start, on one scale for all; a mean over seeds.

    The grid of each seed spans what that seed's windows reach; drawn is the first one's.
    """
    cells = len(edges[0]) - 1
    maps = {}
    for name, known in models.items():
        grid = np.full((len(known["runs"]), cells, cells), np.nan)
        for each, run in zip(grid, known["runs"], strict=True):
            for row in run.get("regions", ()):
                each[tuple(row["cell"])] = row["rmse"]
        counted = np.isfinite(grid).sum(0)
        total = np.nansum(grid, axis=0)
        maps[name] = np.divide(total, counted, out=np.full(total.shape, np.nan), where=counted > 0)
    known_values = np.concatenate([grid[np.isfinite(grid)] for grid in maps.values()])
    top = float(known_values.max()) if len(known_values) else 1.0
    if "persistence" in maps and np.isfinite(maps["persistence"]).any():
        top = min(top, _WORST_ERROR * float(np.nanmax(maps["persistence"])))
    across = min(len(maps), 4)
    down = -(-len(maps) // across)
    figure = Figure(figsize=(1.2 + 3.0 * across, 0.6 + 3.0 * down), dpi=120, layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    mesh = None
    for axes, (name, grid) in zip(panels.flat, maps.items(), strict=False):
        axes.set_facecolor(_PALE)
        mesh = axes.pcolormesh(
            *edges, np.ma.masked_invalid(grid.T), cmap="cividis_r", vmin=0, vmax=top
        )
        _write_cells(axes, grid, edges, top)
        axes.set_title(name, fontsize=10)
        axes.set_aspect("equal")
        remove_spines(axes)
    for i, axes in enumerate(panels.flat):
        axes.set_visible(i < len(maps))
        axes.tick_params(labelbottom=i + across >= len(maps))
    figure.supxlabel("achieved goal at the start, dimension 0", fontsize=10)
    figure.supylabel("dimension 1", fontsize=10)
    if mesh is not None:
        bar = figure.colorbar(mesh, ax=panels, shrink=0.85)
        bar.set_label("RMSE, in deviations")
        bar.outline.set_visible(False)
    figure.suptitle(f"Error {step} steps ahead, by where the forecast starts")
    return figure


def _write_cells(axes: Axes, grid: Array, edges: Sequence[Sequence[float]], top: float) -> None:
    middles = [(np.asarray(edge)[1:] + np.asarray(edge)[:-1]) / 2 for edge in edges]
    for (i, j), value in np.ndenumerate(grid):
        if np.isfinite(value):
            ink = "white" if value > 0.5 * top else "black"
            place = (float(middles[0][i]), float(middles[1][j]))
            axes.text(*place, f"{value:.2g}", ha="center", va="center", color=ink, fontsize=7)


def _top(models: Mapping[str, Any]) -> float:
    """The largest error that is drawn."""
    runs = models.get("persistence", {"runs": []})["runs"]
    errors = [max(run["curve"]["rmse"]) for run in runs if run["curve"]]
    return _WORST_ERROR * max(errors) if errors else np.inf


def _curve(
    axes: Axes,
    curves: Sequence[Sequence[float]],
    name: str,
    style: Style,
    horizons: Sequence[int],
) -> None:
    values = np.array(curves, float)  # null, where infinite, becomes NaN and is not drawn
    steps = np.arange(1, values.shape[1] + 1)
    marks = [step - 1 for step in horizons]
    mean_with_range(axes, steps, values, style, markersize=5, markevery=marks, label=name)


def _legend(figure: Figure, axes: Axes, entries: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(entries, 5),
        frameon=False,
        handlelength=3,
    )
