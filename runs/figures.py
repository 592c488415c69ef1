"""Figures of results: how the arms of a recipe learn, and how far encoders climb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from rlkit.experiment.plots import remove_spines, thousands

# Colours of Okabe and Ito (2008), told apart by all eyes; each arm has its line, too.
BLUE = "#0072B2"
_FIRST = (BLUE, "-", "o")
_STYLES = {
    "agent": _FIRST,
    "recurrent": _FIRST,
    "memoryless": ("#D55E00", "--", "s"),
    "oracle": ("#009E73", "-.", "^"),
    "vae": _FIRST,
    "mix": _FIRST,
    "state": ("#009E73", "-.", "^"),
}
_OTHERS = (
    ("#CC79A7", ":", "D"),
    ("#E69F00", "--", "v"),
    ("#56B4E9", "-.", "P"),
    ("#882255", "--", "h"),
    ("#000000", ":", "x"),
)
Array = NDArray[np.float64]


def arm_curves(result: Mapping[str, Any]) -> Figure:
    """Success over environment steps per arm, or the return where success is unknown.

    The line is the mean over seeds, the band reaches from the worst to the best of them. A run
    that ended early because it succeeded keeps its last value; an arm's curve ends where one of
    its runs was stopped for time.

    Args:
        result: A recipe's results, as `runs/evidence.py` writes them.
    """
    figure = Figure(figsize=(7.2, 4.4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    arms = {name: known["runs"] for name, known in result["arms"].items()}
    is_success = all(run["success_rate"] is not None for runs in arms.values() for run in runs)
    others = iter(_OTHERS * len(arms))
    for name, runs in arms.items():
        steps, values = seed_curves(runs, 1 if is_success else 2)
        colour, line, marker = _STYLES.get(name) or next(others)
        if len(values) > 1:
            axes.fill_between(
                steps, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0
            )
        axes.plot(
            steps,
            values.mean(0),
            line,
            color=colour,
            linewidth=2,
            marker=marker if len(steps) <= 30 else None,
            markersize=4.5,
            label=name,
        )
    seeds = max(len(runs) for runs in arms.values())
    label = (
        f"environment steps (mean and range of {seeds} seeds)" if seeds > 1 else "environment steps"
    )
    axes.set(xlabel=label, xlim=(0, None), title=result["env"])
    if is_success:
        axes.set_ylabel("success rate, held-out episodes")
        axes.set_ylim(-0.02, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    else:
        axes.set_ylabel("return, held-out episodes")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: thousands(value)))
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    columns = len(arms) if len(arms) <= 4 else 3  # more in a line do not fit
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, handlelength=3)
    remove_spines(axes)
    return figure


def seed_curves(runs: Sequence[Mapping[str, Any]], column: int) -> tuple[Array, Array]:
    """The curves of several runs on common steps.

    Args:
        runs: Facts of runs; each `curve` has rows of step, success rate and return.
        column: 1 for success, 2 for the return.

    Returns:
        Steps `(T,)` and values `(N, T)`.
    """
    curves = [np.array([[row[0], row[column]] for row in run["curve"]], float) for run in runs]
    ends = [curve[-1, 0] for curve, run in zip(curves, runs, strict=True) if run["stopped"]]
    steps = np.unique(np.concatenate([curve[:, 0] for curve in curves]))
    steps = steps[steps <= min(ends, default=np.inf)]
    return steps, np.stack([np.interp(steps, *curve.T) for curve in curves])


def ladder_map(result: Mapping[str, Any]) -> Figure:
    """Success of every encoder on every length that it came to, its seeds averaged.

    Args:
        result: The results of `runs/ladder.py`.
    """
    lengths, encoders = result["lengths"], list(result["climbs"])
    shares = np.full((len(encoders), len(lengths)), np.nan)
    for i, climbs in enumerate(result["climbs"].values()):
        for j, length in enumerate(lengths):
            # A seed that failed further down would not have solved this length either.
            there = [r["success_rate"] for c in climbs.values() for r in c if r["length"] == length]
            if there:
                shares[i, j] = sum(there) / len(climbs)
    figure = Figure(
        figsize=(1.8 + 1.1 * len(lengths), 1.5 + 0.45 * len(encoders)),
        dpi=120,
        layout="constrained",
    )
    axes = figure.add_subplot()
    axes.set_facecolor("#f1f1ef")
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(shares), cmap="cividis", vmin=0, vmax=1, edgecolors="white", lw=2
    )
    for (i, j), share in np.ndenumerate(shares):
        text = "not tried" if np.isnan(share) else f"{share:.0%}"
        ink = "#999999" if np.isnan(share) else "white" if share < 0.55 else "black"
        axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", color=ink, fontsize=9)
    axes.set_xticks(np.arange(len(lengths)) + 0.5, [str(length) for length in lengths])
    axes.set_yticks(np.arange(len(encoders)) + 0.5, encoders)
    axes.invert_yaxis()
    axes.set(xlabel="length of the corridor", title=f"success within {_budget(result)}")
    bar = figure.colorbar(mesh, ax=axes, format=PercentFormatter(1.0))
    bar.outline.set_visible(False)
    remove_spines(axes)
    return figure


def _budget(result: Mapping[str, Any]) -> str:
    steps = f"{thousands(result['steps'])} steps"
    return steps if result["minutes"] is None else f"{steps} and {result['minutes']:g} minutes"
