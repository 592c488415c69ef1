"""Figures of results: learning curves per variant, and success per encoder and corridor length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from rlkit.experiment.plots import mean_with_range, remove_spines, thousands

# Okabe and Ito (2008): distinguishable with colour blindness. Line styles differ as well.
BLUE = "#0072B2"
_FIRST = (BLUE, "-", "o")
_STYLES = {
    "agent": _FIRST,
    "recurrent": _FIRST,
    "feed-forward": ("#D55E00", "--", "s"),
    "oracle": ("#009E73", "-.", "^"),
    "vae": _FIRST,
    "mix": _FIRST,
    "all": _FIRST,
    "recipe": ("#D55E00", "--", "s"),
    "state": ("#009E73", "-.", "^"),
}
_OTHERS = (
    ("#CC79A7", ":", "D"),
    ("#E69F00", "--", "v"),
    ("#56B4E9", "-.", "P"),
    ("#882255", "--", "h"),
    ("#000000", ":", "x"),
    ("#CC79A7", "-", "s"),
    ("#E69F00", ":", "^"),
    ("#56B4E9", "--", "o"),
    ("#882255", "-.", "*"),
    ("#000000", "-", "+"),
    ("#009E73", ":", "d"),
)
_WIDE = 24  # characters of a name of which no three fit in one row
Array = NDArray[np.float64]


def variant_curves(result: Mapping[str, Any]) -> Figure:
    """Success rate over environment steps per variant, or the return where success is unknown.

    The line is the mean over seeds, the band is their range. A run that ended early by success
    keeps its last value; a variant's curve ends where one of its runs reached the time limit.

    Args:
        result: A recipe's results, as `evidence.py` writes them.
    """
    figure = Figure(figsize=(7.2, 4.4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    variants = {name: known["runs"] for name, known in result["variants"].items()}
    is_success = all(run["success_rate"] is not None for runs in variants.values() for run in runs)
    others = iter(_OTHERS * len(variants))
    for name, runs in variants.items():
        steps, values = seed_curves(runs, 1 if is_success else 2)
        colour, dashes, marker = _STYLES.get(name) or next(others)
        style = (colour, dashes, marker if len(steps) <= 30 else None)
        mean_with_range(axes, steps, values, style, markersize=4.5, label=name)
    fewest, most = (end(map(len, variants.values())) for end in (min, max))
    seeds = f"{most}" if fewest == most else f"{fewest} to {most}"
    label = (
        f"environment steps (mean and range of {seeds} seeds)" if most > 1 else "environment steps"
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
    columns = len(variants) if len(variants) <= 4 else 3  # more do not fit in one row
    if max(map(len, variants)) > _WIDE and columns > 2:
        columns = 2
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


def length_map(result: Mapping[str, Any]) -> Figure:
    """Success rate of each encoder on each length that it tried, averaged over seeds.

    Args:
        result: Results, as `corridor_lengths.py` writes them.
    """
    lengths, encoders = result["lengths"], list(result["attempts"])
    shares = np.full((len(encoders), len(lengths)), np.nan)
    for i, attempts in enumerate(result["attempts"].values()):
        for j, length in enumerate(lengths):
            # A seed that failed a shorter length counts as failing this one.
            there = [
                r["success_rate"] for c in attempts.values() for r in c if r["length"] == length
            ]
            if there:
                shares[i, j] = sum(there) / len(attempts)
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
