"""Scores of forecasts by samples: errors, skill, CRPS, energy score, likelihood.

Truth is `(B, H, F)`: B windows, H steps ahead, F dimensions. Forecasts are samples `(S, B, H, F)`
of the same, S draws each. Every rule here is a loss, lower is better, and is proper: no forecaster
gains by another distribution than the one it expects. Coverage and spread are in `calibration`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlkit.world.scores.calibration import coverage, histogram, pit

Array = NDArray[Any]
Floats = NDArray[np.float64]
LEVELS = (0.5, 0.8, 0.9)
LEAST_SPREAD = 1e-6
BLOCK = 1 << 20  # numbers handled at once: what stays in a core's cache is several times faster


def crps(samples: Array, truth: Array) -> Floats:
    """Continuous ranked probability score per window, step and dimension `(B, H, F)`.

    The distance of the forecast's distribution from the truth, in the truth's unit; of samples
    that are all the same it is the absolute error. From S samples it is estimated without bias (as
    if S were infinite), so forecasts with few and many samples compare.

    Source: Gneiting and Raftery 2007, equation 21; Ferro 2014 for the fair estimator; Zamo and
    Naveau 2018 for its form over sorted samples, which costs S log S.

    Raises:
        ValueError: If shapes do not fit, or there are fewer than two samples.
    """
    _check(samples, truth)
    count = len(samples)
    weights = (2 * np.arange(1, count + 1) - count - 1) / (count * (count - 1))
    score = np.empty(truth.shape)
    for window in _blocks(samples):
        drawn = np.sort(np.asarray(samples[:, window], np.float64), axis=0)
        score[window] = np.abs(drawn - truth[window]).mean(0)
        score[window] -= np.tensordot(weights, drawn, axes=1)
    return score


def energy_score(samples: Array, truth: Array) -> Floats:
    """Energy score per window and step `(B, H)`: the CRPS of all dimensions together.

    It also measures the dependence between dimensions. Distances are Euclidean, so scale
    dimensions of different units first. In one dimension it equals the CRPS. Estimated without
    bias over all pairs of samples.

    Source: Gneiting and Raftery 2007, equation 22, with beta = 1.

    Raises:
        ValueError: If shapes do not fit, or there are fewer than two samples.
    """
    _check(samples, truth)
    count = len(samples)
    score = np.empty(truth.shape[:2])
    for window in _blocks(samples):
        drawn = np.asarray(samples[:, window], np.float64)
        far = _length(drawn - truth[window]).mean(0)
        apart = np.zeros_like(far)
        for lag in range(1, count):  # every pair once: samples that are `lag` places apart
            apart += _length(drawn[lag:] - drawn[:-lag]).sum(0)
        score[window] = far - apart / (count * (count - 1))
    return score


def gaussian_nll(samples: Array, truth: Array, least: ArrayLike = LEAST_SPREAD) -> Floats:
    """Negative log likelihood in nats per window, step and dimension `(B, H, F)`.

    Of the normal distribution with the samples' mean and variance. A kernel density would fit
    several modes, but its score depends on a bandwidth and on the few truths in its tails.
    This one is, up to a constant and a factor of two, the score of Dawid and Sebastiani, which is
    proper by itself: it measures mean and variance, whatever the shape. A model with a
    density of its own may report that beside it.

    Source: Dawid and Sebastiani 1999; Krueger et al. 2021, section 3, on the choice.

    Args:
        samples: `(S, B, H, F)`.
        truth: `(B, H, F)`.
        least: Smallest standard deviation, in the truth's unit, a number or
            `(F,)`: a forecast that spreads less counts as one that spreads so much.

    Raises:
        ValueError: If shapes do not fit, or there are fewer than two samples.
    """
    _check(samples, truth)
    score = np.empty(truth.shape)
    for window in _blocks(samples):
        drawn = np.asarray(samples[:, window], np.float64)
        spread = np.maximum(drawn.std(0, ddof=1), least)
        surprise = (truth[window] - drawn.mean(0)) / spread
        score[window] = surprise**2 / 2 + np.log(spread) + np.log(2 * np.pi) / 2
    return score


def skill(loss: ArrayLike, reference: ArrayLike) -> Floats:
    """One less the loss as a share of a reference's: 1 is perfect, 0 no better, below 0 worse.

    Means over windows belong in, not single windows. Where both are 0 it is 0; where only the
    reference is perfect it is -inf.

    Source: Murphy 1988.
    """
    loss, reference = np.asarray(loss, np.float64), np.asarray(reference, np.float64)
    share = np.divide(loss, reference, out=np.full(loss.shape, np.inf), where=reference > 0)
    return np.asarray(1 - np.where((loss == 0) & (reference == 0), 1.0, share))


def finite_windows(samples: Array) -> NDArray[np.bool_]:
    """Which windows `(B,)` have a forecast that is finite in every sample, step and dimension."""
    return np.asarray(np.isfinite(samples).all((0, 2, 3)))


@dataclass(frozen=True)
class Scores:
    """What a forecast scored over B windows; K steps ahead, F dimensions.

    Attributes:
        steps: Steps ahead that are scored, counted from 1, K of them.
        windows: How many windows the scores are means of.
        excluded: Windows left out because the forecast was not finite there.
        scale: Unit of each dimension `(F,)`; all scores but those of coverage are in it.
        mse: Squared error of the samples' mean `(K, F)`. S samples of spread s add `s**2 / S`.
        mae: Absolute error of the samples' median `(K, F)`.
        crps: `(K, F)`.
        nll: Of the moment-matched normal, in nats `(K, F)`.
        energy: Energy score over all dimensions `(K,)`.
        coverage: By level, the share of truths in the central interval `(K, F)`.
        pit: Shares of truths in equal bins of the forecast's probability `(bins, K, F)`.
    """

    steps: tuple[int, ...]
    windows: int
    excluded: int
    scale: Floats
    mse: Floats
    mae: Floats
    crps: Floats
    nll: Floats
    energy: Floats
    coverage: Mapping[float, Floats]
    pit: Floats

    @property
    def rmse(self) -> Floats:
        """Root of the mean squared error `(K, F)`."""
        root: Floats = np.sqrt(self.mse)
        return root

    def skill(self, reference: Scores) -> Floats:
        """Share of the reference's squared error that is avoided, per step and dimension `(K, F)`.

        Raises:
            ValueError: If the two are not of the same windows, steps and units.
        """
        self._same(reference)
        return skill(self.mse, reference.mse)

    def pooled(self, reference: Scores | None = None) -> dict[int, dict[str, float]]:
        """By step, the scores as plain numbers over all dimensions, each in its own unit.

        With a reference also `skill` in squared error and `crps_skill`, of pooled losses.
        """
        table = {}
        for k, step in enumerate(self.steps):
            row = {"rmse": float(np.sqrt(self.mse[k].mean())), "energy": float(self.energy[k])}
            row |= {name: float(getattr(self, name)[k].mean()) for name in ("mae", "crps", "nll")}
            row |= {f"coverage_{level:g}": float(c[k].mean()) for level, c in self.coverage.items()}
            if reference is not None:
                self._same(reference)
                row["skill"] = float(skill(self.mse[k].mean(), reference.mse[k].mean()))
                row["crps_skill"] = float(skill(self.crps[k].mean(), reference.crps[k].mean()))
            table[step] = row
        return table

    def _same(self, other: Scores) -> None:
        ours, theirs = ((s.steps, s.windows, s.excluded, s.scale.tolist()) for s in (self, other))
        if ours != theirs:
            raise ValueError(
                "skill compares forecasts of the same windows, steps and units, but (steps, "
                f"windows, excluded, scale) are {ours} and {theirs}; score both with the same "
                "arguments and, where one is not finite, on the other's finite windows"
            )


def score(
    samples: Array,
    truth: Array,
    rng: np.random.Generator,
    *,
    steps: Sequence[int] | None = None,
    scale: ArrayLike | None = None,
    levels: Sequence[float] = LEVELS,
    bins: int = 10,
    exclude: bool = False,
) -> Scores:
    """All scores of one forecast.

    Args:
        samples: `(S, B, H, F)`.
        truth: `(B, H, F)`.
        rng: Breaks ties between truth and samples in the PIT.
        steps: Steps ahead to score, counted from 1; all H by default.
        scale: Unit of each dimension `(F,)`, such as its standard deviation in training; ones by
            default. Makes dimensions comparable in the energy score and in pooled numbers.
        levels: Of the central intervals.
        bins: Of the PIT.
        exclude: Leave windows out whose forecast is not finite, and count them, rather than
            refuse. Those tend to be the hard ones: a score beside a count above 0 flatters.

    Raises:
        ValueError: If a forecast is not finite and `exclude` is off, or nothing is left; if shapes
            do not fit, the truth is not finite, a step lies beyond H, or there are too few samples
            for a level.
    """
    _check(samples, truth)
    steps = tuple(range(1, truth.shape[1] + 1)) if steps is None else tuple(steps)
    if not steps or min(steps) < 1 or max(steps) > truth.shape[1]:
        raise ValueError(f"steps {steps} must lie in 1..{truth.shape[1]}, the forecast's horizon")
    if not np.isfinite(truth).all():
        raise ValueError(f"the truth is not finite at {_first(~np.isfinite(truth))}")
    unit = np.broadcast_to(np.asarray(1.0 if scale is None else scale, float), truth.shape[2:])
    if not (np.isfinite(unit) & (unit > 0)).all():
        raise ValueError(f"scale must be positive and finite, got {unit}; use 1 where constant")
    finite = finite_windows(samples)
    if not finite.all() and not (exclude and finite.any()):
        where = _first(~np.asarray(np.isfinite(samples).all(0)))
        raise ValueError(
            f"the forecasts of {int((~finite).sum())} of {len(finite)} windows are not finite, "
            f"first at {where}"
        )
    picked = [step - 1 for step in steps]
    drawn = samples[:, finite][:, :, picked] / unit
    real = truth[finite][:, picked] / unit
    return Scores(
        steps=steps,
        windows=int(finite.sum()),
        excluded=int((~finite).sum()),
        scale=unit,
        mse=((drawn.mean(0) - real) ** 2).mean(0),
        mae=np.abs(np.median(drawn, 0) - real).mean(0),
        crps=crps(drawn, real).mean(0),
        nll=gaussian_nll(drawn, real).mean(0),
        energy=energy_score(drawn, real).mean(0),
        coverage=dict(zip(levels, coverage(drawn, real, levels), strict=True)),
        pit=histogram(pit(drawn, real, rng), bins),
    )


def score_regions(
    samples: Array, truth: Array, regions: Array, rng: np.random.Generator, **options: Any
) -> dict[Hashable, Scores]:
    """The scores of each region, by its label, in sorted order.

    Args:
        samples: `(S, B, H, F)`.
        truth: `(B, H, F)`.
        regions: Label of each window `(B,)`, such as the cell of the grid that its goal lies in.
        rng: As in `score`.
        options: As in `score`.
    """
    regions = np.asarray(regions)
    if regions.shape != truth.shape[:1]:
        raise ValueError(
            f"regions must be one label per window {truth.shape[:1]}, got {regions.shape}"
        )
    parts = {label.item(): regions == label for label in np.unique(regions)}
    return {
        label: score(samples[:, rows], truth[rows], rng, **options) for label, rows in parts.items()
    }


def _check(samples: Array, truth: Array) -> None:
    if truth.ndim != 3 or samples.shape[1:] != truth.shape:
        raise ValueError(
            f"samples must be (S, B, H, F) and truth (B, H, F), got {samples.shape}, {truth.shape}"
        )
    if len(samples) < 2:
        raise ValueError(f"scores of distributions need two samples or more, got {len(samples)}")
    if len(truth) == 0:
        raise ValueError("there are no windows to score")


def _blocks(samples: Array) -> list[slice]:
    """Slices of windows that are small enough to be handled at once."""
    count, windows = samples.shape[:2]
    size = max(1, BLOCK // (count * max(1, int(np.prod(samples.shape[2:])))))
    return [slice(start, start + size) for start in range(0, windows, size)]


def _length(vectors: Floats) -> Floats:
    length: Floats = np.sqrt(np.einsum("...f,...f->...", vectors, vectors))
    return length


def _first(wrong: NDArray[np.bool_]) -> str:
    window, step, dimension = np.argwhere(wrong)[0]
    return f"window {window}, step {step + 1}, dimension {dimension}"
