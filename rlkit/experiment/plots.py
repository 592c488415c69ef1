"""Figures: where goals are reached, and success over environment steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from rlkit.experiment.evaluate import EpisodeResult
from rlkit.experiment.run_folder import RunFolder

COLOURS = ("#2f6fb3", "#d9742b", "#3a9a5b", "#b0405f", "#7a5fb0", "#8a6d3b", "#4aa3a8", "#666666")
COLUMNS = 12  # images in a row of a sheet
_SHEET, _MARGIN, _HEADING = 9.0, 0.9, 0.35  # inches: images, labels on the left, title above
_DARK, _PALE = "#333333", "#f1f1ef"
Array = NDArray[np.float64]


def goal_heat_map(
    goals: NDArray[Any],
    success: NDArray[Any],
    episodes: Sequence[EpisodeResult] = (),
    title: str = "",
) -> Figure | None:
    """Heat map of success over the first two dimensions of the goal.

    Args:
        goals: Goals of training episodes `(N, G)`; colours show the success rate per cell.
        success: Whether each was reached `(N,)`.
        episodes: Evaluated episodes, drawn as markers.
        title: Heading.

    Returns:
        The figure, or None for goals that are one-dimensional or binary.
    """
    tested = [row for row in episodes if row.goal is not None]
    marks = np.array([np.ravel(row.goal)[:2] for row in tested if row.goal is not None], float)
    plane = np.asarray(goals, float).reshape(len(goals), -1)[:, :2] if len(goals) else marks
    points = np.concatenate([plane, marks.reshape(-1, plane.shape[1])]) if len(marks) else plane
    if len(points) == 0 or points.shape[1] < 2 or np.isin(points, (0.0, 1.0)).all():
        return None
    # Fewer cells for fewer goals, so that most cells are not empty.
    cells = int(np.clip(np.sqrt(len(goals) / 4), 6, 16))
    edges = [_edges(points[:, 0], cells), _edges(points[:, 1], cells)]
    figure = Figure(figsize=(6.2, 5.2), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor(_PALE)
    shares = _success_share(plane, np.asarray(success, bool), edges) if len(goals) else None
    if shares is not None:
        mesh = axes.pcolormesh(edges[0], edges[1], shares.T, cmap="YlGnBu", vmin=0, vmax=1)
        bar = figure.colorbar(mesh, ax=axes, format=PercentFormatter(1.0), shrink=0.85)
        bar.set_label("reached while training")
        bar.outline.set_visible(False)
    _draw_marks(axes, marks, np.array([bool(row.success) for row in tested], bool))
    spans = [edge[-1] - edge[0] for edge in edges]
    if 0.2 < spans[0] / spans[1] < 5:
        axes.set_aspect("equal")
    axes.set(xlabel="goal, dimension 0", ylabel="goal, dimension 1", title=title)
    remove_spines(axes)
    return figure


def _edges(values: Array, cells: int) -> Array:
    low, high = values.min(), values.max()
    margin = 0.04 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, cells + 1)


def _success_share(goals: Array, success: NDArray[np.bool_], edges: list[Array]) -> Any:
    count, _, _ = np.histogram2d(goals[:, 0], goals[:, 1], bins=edges)
    reached, _, _ = np.histogram2d(goals[success, 0], goals[success, 1], bins=edges)
    return np.ma.masked_invalid(np.divide(reached, count, where=count > 0, out=count * np.nan))


def _draw_marks(axes: Axes, marks: Array, reached: NDArray[np.bool_]) -> None:
    if not len(marks):
        return
    common: dict[str, Any] = {"linewidths": 1.4, "zorder": 3}
    styles: dict[str, dict[str, Any]] = {
        "reached": {"marker": "o", "s": 34, "facecolors": "white", "edgecolors": "#1f7a4d"},
        "missed": {"marker": "X", "s": 60, "facecolors": "#c2362f", "edgecolors": "white"},
    }
    for (word, style), chosen in zip(styles.items(), (reached, ~reached), strict=True):
        x, y = marks[chosen].T
        axes.scatter(x, y, label=f"test goal {word} ({len(x)})", **style, **common)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False, handletextpad=0.2
    )


def success_curves(runs: Sequence[Path]) -> Figure:
    """Success over environment steps; runs of one environment and agent share a curve.

    One run is a line; two show their mean and range; from three on it is the interquartile mean
    with a 95 % bootstrap interval over runs. A finished run keeps its last value; a curve ends
    where one of its runs was interrupted.

    Args:
        runs: Folders of runs.

    Raises:
        ValueError: If a folder is not a run, or no run has been evaluated yet.
    """
    groups: dict[str, list[tuple[Array, Array]]] = {}
    ends: dict[str, float] = {}
    is_success = True
    for path in runs:
        run = RunFolder.open(path)
        rows = run.evaluations()
        if not rows:
            raise ValueError(f"{str(path)!r} has no evaluations to plot yet")
        recipe = run.recipe()
        is_success = is_success and rows[-1]["success_rate"] is not None
        name = f"{recipe.env}, {recipe.agent}"
        groups.setdefault(name, []).append(_curve(rows))
        if not rows[-1]["final"]:
            ends[name] = min(ends.get(name, math.inf), rows[-1]["step"])
    key = "success rate" if is_success else "return"
    figure = Figure(figsize=(7.2, 4.4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for (name, curves), colour in zip(groups.items(), _cycle(len(groups)), strict=True):
        chosen = [(x, y[:, 0 if is_success else 1]) for x, y in curves]
        _draw_group(axes, name, chosen, ends.get(name, math.inf), colour)
    axes.set(xlabel="environment steps", ylabel=f"{key}, held-out episodes", xlim=(0, None))
    if is_success:
        axes.set_ylim(-0.02, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: thousands(value)))
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False)
    remove_spines(axes)
    return figure


def _curve(rows: Sequence[Mapping[str, Any]]) -> tuple[Array, Array]:
    # The last evaluation of a step counts: the one at the end has the most episodes.
    by_step = {row["step"]: (row["success_rate"] or 0.0, row["return_mean"]) for row in rows}
    return np.array(list(by_step), float), np.array(list(by_step.values()), float)


def _draw_group(
    axes: Axes, name: str, curves: list[tuple[Array, Array]], end: float, colour: str
) -> None:
    steps = np.unique(np.concatenate([x for x, _ in curves]))
    steps = steps[steps <= end]
    values = np.stack([np.interp(steps, x, y) for x, y in curves])
    if len(curves) >= 3:
        centre = interquartile_mean(values)
        low, high = bootstrap_interval(values)
        name = f"{name} (IQM of {len(curves)}, 95 % interval)"
    else:
        centre, low, high = values.mean(0), values.min(0), values.max(0)
        name = f"{name} (mean and range of 2)" if len(curves) == 2 else name
    if len(curves) > 1:
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    marker = "o" if len(steps) <= 30 else ""
    axes.plot(steps, centre, color=colour, linewidth=2, marker=marker, markersize=4, label=name)


def interquartile_mean(values: NDArray[Any]) -> Array:
    """Mean of the middle half over the first axis `(N, ...)`; all values where N < 4."""
    cut = len(values) // 4
    return np.asarray(np.sort(values, axis=0)[cut : len(values) - cut].mean(0))


def bootstrap_interval(values: NDArray[Any], samples: int = 2_000) -> tuple[Array, Array]:
    """95 % percentile interval of the interquartile mean over the first axis `(N, T)`."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(values), size=(samples, len(values)))
    means = np.stack([interquartile_mean(values[rows]) for rows in drawn])
    low, high = np.percentile(means, (2.5, 97.5), axis=0)
    return low, high


def _cycle(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def thousands(value: float) -> str:
    """A number in short form: `950`, `20k`, `1.5M`."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e3 else f"{value:g}"


def mean_with_range(
    axes: Axes, steps: Array, values: Array, style: tuple[str, str, str | None], **line: Any
) -> None:
    """Draws the mean of several curves as a line and their range as a band.

    Args:
        axes: Where to draw.
        steps: `(T,)`.
        values: `(N, T)`; one curve has no band.
        style: Colour, line style and marker.
        **line: Further properties of the line.
    """
    colour, dashes, marker = style
    if len(values) > 1:
        low, high = values.min(0), values.max(0)
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(steps, values.mean(0), dashes, color=colour, linewidth=2, marker=marker, **line)


def remove_spines(axes: Axes) -> None:
    """Removes the upper and right spines of axes, and draws the others in grey."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")
    axes.tick_params(colors=_DARK, length=3)


def imagined_goals(images: NDArray[Any]) -> Figure:
    """Figure of an agent's decoded goals `(N, H, W, C)` in full rows of 12."""
    rows = [images[i : i + COLUMNS] for i in range(0, len(images) - COLUMNS + 1, COLUMNS)]
    return image_grid(rows, [""] * len(rows), "Goals that the agent imagines, decoded")


def image_grid(rows: Sequence[NDArray[Any]], labels: Sequence[str], title: str) -> Figure:
    """Figure of rows of images in [0, 1], with two or more pixels per pixel of an image."""
    count, (height, width, channels) = len(rows[0]), rows[0].shape[1:]
    line = [np.pad(row, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0) for row in rows]
    tiled = np.concatenate([np.concatenate(list(row), axis=1) for row in line], axis=0)
    tall, wide = len(rows) * (height + 2), count * (width + 2)
    inches = _SHEET * tall / wide
    figure = Figure(figsize=(_SHEET + _MARGIN, inches + _HEADING), dpi=130)
    share = _MARGIN / (_SHEET + _MARGIN)
    axes = figure.add_axes((share, 0.01, 0.995 - share, inches / (inches + _HEADING) - 0.01))
    shown = tiled if channels == 3 else tiled.mean(2)
    axes.imshow(shown.clip(0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    middles = [(i + 0.5) * (height + 2) - 0.5 for i in range(len(rows))]
    axes.set_yticks(middles, list(labels), fontsize=9)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, fontsize=11)
    return figure
