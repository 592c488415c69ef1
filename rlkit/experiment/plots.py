"""Figures: where goals are reached, sheets of images, and the style that figures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from rlkit.experiment.evaluate import EpisodeResult

COLOURS = ("#2f6fb3", "#d9742b", "#3a9a5b", "#b0405f", "#7a5fb0", "#8a6d3b", "#4aa3a8", "#666666")
COLUMNS = 12  # images in a row of a sheet
_SHEET, _MARGIN, _HEADING = 9.0, 0.9, 0.35  # inches: images, labels on the left, title above
_DARK, _PALE = "#333333", "#f1f1ef"
_ENOUGH = 5  # goals in a cell from which on its colour is full
_TEXT: dict[str, Any] = {"fontsize": 6, "ha": "center"}
Array = NDArray[np.float64]


def goal_heat_map(
    goals: NDArray[Any],
    success: NDArray[Any],
    episodes: Sequence[EpisodeResult] = (),
    title: str = "",
    names: Sequence[str] = (),
) -> Figure | None:
    """Success over the first two dimensions of the goal, or over its only one.

    A cell shows how many goals of training episodes fell into it; cells of few goals are paler,
    since their share says little.

    Args:
        goals: Goals of training episodes `(N, G)`; colours show the success rate per cell.
        success: Whether each was reached `(N,)`.
        episodes: Evaluated episodes, drawn as markers.
        title: Heading.
        names: Names of the goal's dimensions, for the axes.

    Returns:
        The figure, or None without goals and for binary goals of more than one dimension.
    """
    tested = [row for row in episodes if row.goal is not None]
    marks = np.array([np.ravel(row.goal)[:2] for row in tested if row.goal is not None], float)
    plane = np.asarray(goals, float).reshape(len(goals), -1)[:, :2] if len(goals) else marks
    points = np.concatenate([plane, marks.reshape(-1, plane.shape[1])]) if len(marks) else plane
    if points.size == 0 or (points.shape[1] > 1 and np.isin(points, (0.0, 1.0)).all()):
        return None
    known = tuple(names) + tuple(f"goal, dimension {i}" for i in range(len(names), 2))
    reached = np.array([bool(row.success) for row in tested], bool)
    trained = (plane if len(goals) else plane[:0], np.asarray(success, bool))
    figure = Figure(figsize=(6.2, 5.2), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=known[0], title=title)
    if points.shape[1] == 1:
        _draw_line(axes, points[:, 0], trained)
        marks = np.stack([marks[:, 0], np.full(len(marks), -0.06)], 1) if len(marks) else marks
    else:
        axes.set(ylabel=known[1])
        _draw_plane(figure, axes, points, trained)
    _draw_marks(axes, marks, reached)
    remove_spines(axes)
    return figure


def value_figure(
    steps: NDArray[Any], value: NDArray[Any], achieved: NDArray[Any], title: str = ""
) -> Figure:
    """The critics' values of hindsight goals against the steps that were left to them.

    Args:
        steps: Steps until the goal was achieved in the stored episode, `(K,)`.
        value: Mean, 10 % and 90 % quantiles of the values, `(K, 3)`.
        achieved: Mean return of the stored steps up to the goal, `(K,)`.
        title: Heading.
    """
    figure = Figure(figsize=(6.2, 4.2), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    mean, low, high = value.T
    axes.fill_between(steps, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
    axes.plot(steps, mean, "o-", color=COLOURS[0], label="critic, with 10 to 90 %")
    axes.plot(steps, achieved, "--", color=_DARK, label="return of the stored steps")
    axes.set(xlabel="steps to the goal in the stored episode", ylabel="value", title=title)
    axes.legend(frameon=False)
    remove_spines(axes)
    return figure


def _edges(values: Array, cells: int) -> Array:
    low, high = values.min(), values.max()
    margin = 0.04 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, cells + 1)


def _draw_line(axes: Axes, points: Array, trained: tuple[Array, NDArray[np.bool_]]) -> None:
    """Success per interval of a goal of one dimension, as bars with the number of goals."""
    goals, success = trained
    edges = _edges(points, int(np.clip(len(goals) / 8, 6, 20)))
    count, _ = np.histogram(goals, bins=edges)
    reached, _ = np.histogram(goals[:, 0][success], bins=edges)
    middles, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    for x, hits, total in zip(middles, reached, count, strict=True):
        if total:
            alpha = _opacity(np.array(total))
            axes.bar(x, hits / total, 0.92 * width, color=COLOURS[0], alpha=float(alpha))
            axes.annotate(
                str(total), (x, hits / total), (0, 2), textcoords="offset points", **_TEXT
            )
    axes.set(ylabel="reached while training", ylim=(-0.12, 1.08))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _draw_plane(
    figure: Figure, axes: Axes, points: Array, trained: tuple[Array, NDArray[np.bool_]]
) -> None:
    """Success per cell of a goal's first two dimensions, with the number of goals."""
    goals, success = trained
    axes.set_facecolor(_PALE)
    # Fewer cells for fewer goals, so that most cells are not empty.
    cells = int(np.clip(np.sqrt(len(goals) / 4), 6, 16))
    edges = [_edges(points[:, 0], cells), _edges(points[:, 1], cells)]
    if len(goals):
        count, _, _ = np.histogram2d(goals[:, 0], goals[:, 1], bins=edges)
        reached, _, _ = np.histogram2d(goals[success, 0], goals[success, 1], bins=edges)
        shares = np.ma.masked_invalid(
            np.divide(reached, count, where=count > 0, out=np.full_like(count, np.nan))
        )
        mesh = axes.pcolormesh(edges[0], edges[1], shares.T, cmap="YlGnBu", vmin=0, vmax=1)
        bar = figure.colorbar(mesh, ax=axes, format=PercentFormatter(1.0), shrink=0.85)
        bar.set_label("reached while training; numbers: goals per cell")
        bar.outline.set_visible(False)
        opacity: Any = _opacity(count.T)  # Matplotlib takes an array, its stubs do not
        mesh.set_alpha(opacity)
        middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
        for i, j in np.argwhere(count > 0).tolist():
            colour = "white" if shares[i, j] > 0.5 else _DARK
            where = (middles[0][i], middles[1][j])
            axes.annotate(f"{count[i, j]:.0f}", where, color=colour, va="center", **_TEXT)
    spans = [edge[-1] - edge[0] for edge in edges]
    if 0.2 < spans[0] / spans[1] < 5:
        axes.set_aspect("equal")


def _opacity(count: NDArray[Any]) -> Array:
    return np.clip(0.4 + 0.6 * count / _ENOUGH, 0, 1)


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
