"""Success over environment steps: runs that differ in their seed alone share a curve."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from rlkit.experiment.folders import RECIPE
from rlkit.experiment.plots import COLOURS, Array, remove_spines, thousands
from rlkit.experiment.run_folder import RunFolder
from rlkit.names import require_known

# Settings that do not change what an agent learns.
_WITHOUT_EFFECT = ("seed", "description", "check_env", "checkpoint.", "pictures.")
_LABEL_WIDTH = 104  # characters of a legend's line that fit into the figure


@dataclass(frozen=True)
class _Curve:
    """The evaluations of one run: steps `(T,)`, success and return `(T, 2)`."""

    settings: dict[str, Any]
    steps: Array
    values: Array
    knows_success: bool
    finished: bool


def success_curves(runs: Sequence[Path], group_by: Sequence[str] = ()) -> Figure:
    """Success over environment steps; runs of one recipe, with other seeds, share a curve.

    One run is a line; two show their mean and range; from three on it is the interquartile mean
    with a 95 % bootstrap interval over runs. A finished run keeps its last value; a curve ends
    where one of its runs was interrupted.

    Args:
        runs: Folders of runs, or folders that hold runs.
        group_by: Settings such as `agent_options.learning_rate`; runs with equal values share a
            curve. The label of a curve then names the settings in which its runs differ.

    Raises:
        ValueError: If a folder is not a run, no run has been evaluated yet, or no recipe has a
            setting of `group_by`.
    """
    curves = [_read(path) for run in runs for path in _expand(run)]
    if group_by:
        require_known("the runs", group_by, sorted({key for c in curves for key in c.settings}))
    groups: dict[tuple[str, ...], list[_Curve]] = {}
    for curve in curves:
        keys = group_by or [key for key in curve.settings if not key.startswith(_WITHOUT_EFFECT)]
        name = tuple(f"{key}={curve.settings.get(key, 'default')}" for key in sorted(keys))
        groups.setdefault(name, []).append(curve)
    is_success = all(curve.knows_success for curve in curves)
    figure = Figure(figsize=(7.2, 4.4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    labels = _labels(list(groups.values()), group_by)
    for i, (label, members) in enumerate(zip(labels, groups.values(), strict=True)):
        _draw_group(axes, label, members, 0 if is_success else 1, COLOURS[i % len(COLOURS)])
    key = "success rate" if is_success else "return"
    axes.set(xlabel="environment steps", ylabel=f"{key}, held-out episodes", xlim=(0, None))
    if is_success:
        axes.set_ylim(-0.02, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: thousands(value)))
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    figure.legend(loc="outside upper left", frameon=False, fontsize=8.5)
    remove_spines(axes)
    return figure


def _expand(path: Path) -> Iterator[Path]:
    """A run itself, or the runs in a folder."""
    inside = [] if (path / RECIPE).is_file() else sorted(path.rglob(RECIPE))
    if not inside:
        yield path
    yield from (recipe.parent for recipe in inside)


def _read(path: Path) -> _Curve:
    run = RunFolder.open(path)
    rows = run.evaluations()
    if not rows:
        raise ValueError(f"{str(path)!r} has no evaluations to plot yet")
    # The last evaluation of a step counts: the one at the end has the most episodes.
    by_step = {row["step"]: (row["success_rate"] or 0.0, row["return_mean"]) for row in rows}
    steps, values = np.array(list(by_step), float), np.array(list(by_step.values()), float)
    knows_success = rows[-1]["success_rate"] is not None
    return _Curve(
        run.recipe(trust=True).flat(), steps, values, knows_success, bool(rows[-1]["final"])
    )


def _labels(groups: Sequence[Sequence[_Curve]], group_by: Sequence[str]) -> list[str]:
    """Names of curves: environment and agent, what tells them apart, and how many runs they have.

    A setting that differs within a curve is named as mixed, so that a curve never looks like one
    experiment when it is several.
    """
    firsts = [group[0].settings for group in groups]
    labels = []
    for group, first in zip(groups, firsts, strict=True):
        mixed = _differing([curve.settings for curve in group])
        alike = [one for one in firsts if all(one[key] == first[key] for key in ("env", "agent"))]
        told_apart = list(group_by) or _differing(alike)
        hidden = {"env", "agent"} - {*mixed}
        words = [str(first[key]) for key in ("env", "agent") if key in hidden]
        words += [
            f"{key.removeprefix('agent_options.')}={first.get(key, 'default')}"
            for key in told_apart
            if key not in hidden
        ]
        words += [f"mixed: {', '.join(mixed)}"] if mixed else []
        labels.append(", ".join(words))
    return labels


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose values are not the same everywhere."""
    keys = dict.fromkeys(key for one in settings for key in one)
    return [
        key
        for key in keys
        if not key.startswith(_WITHOUT_EFFECT)
        and any(one.get(key) != settings[0].get(key) for one in settings)
    ]


def _draw_group(
    axes: Axes, label: str, members: Sequence[_Curve], column: int, colour: str
) -> None:
    end = min((c.steps[-1] for c in members if not c.finished), default=math.inf)
    steps = np.unique(np.concatenate([curve.steps for curve in members]))
    steps = steps[steps <= end]
    values = np.stack([np.interp(steps, c.steps, c.values[:, column]) for c in members])
    if len(members) >= 3:
        centre = interquartile_mean(values)
        low, high = bootstrap_interval(values)
        label = f"{label} (IQM of {len(members)}, 95 % interval)"
    else:
        centre, low, high = values.mean(0), values.min(0), values.max(0)
        label = f"{label} (mean and range of 2)" if len(members) == 2 else label
    if len(members) > 1:
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    marker = "o" if len(steps) <= 30 else ""
    label = textwrap.fill(label, _LABEL_WIDTH, subsequent_indent="  ")
    axes.plot(steps, centre, color=colour, linewidth=2, marker=marker, markersize=4, label=label)


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
