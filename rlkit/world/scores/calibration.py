"""Calibration of forecasts: coverage, reliability, and recalibration of the spread.

Truth is `(B, H, F)`, forecasts are samples `(S, B, H, F)` of it, as in `scores`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]


def interval(samples: Array, level: float) -> tuple[Floats, Floats]:
    """Lower and upper end of the central interval at a level, `(B, H, F)` each.

    Quantile p is taken at place `p * (S + 1)` of the sorted samples: so that a truth drawn like
    them falls in the interval with the level's probability for any S, where the usual rule leaves
    out more. Source: Hyndman and Fan 1996, definition 6.

    Raises:
        ValueError: If the level is not inside (0, 1), or the samples are too few to have such
            outer quantiles: 90 % takes 19, 99 % takes 199.
    """
    if not 0 < level < 1:
        raise ValueError(f"a level lies between 0 and 1, got {level}")
    needed = int(np.ceil(2 / (1 - level) - 1 - 1e-9))
    if len(samples) < needed:
        raise ValueError(
            f"an interval at level {level} needs {needed} samples or more, got {len(samples)}"
        )
    outer = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(samples, outer, axis=0, method="weibull")
    return low, high


def coverage(samples: Array, truth: Array, levels: Sequence[float]) -> list[Floats]:
    """For each level, the share of windows whose truth lies in the central interval `(H, F)`.

    Calibrated forecasts cover the level itself; less is too sure, more too unsure.

    Raises:
        ValueError: As `interval`.
    """
    shares = []
    for level in levels:
        low, high = interval(samples, level)
        shares.append(((low <= truth) & (truth <= high)).mean(0))
    return shares


def pit(samples: Array, truth: Array, rng: np.random.Generator) -> Floats:
    """Probability that the forecast gave to less than the truth, in [0, 1], `(B, H, F)`.

    Uniform if and only if the forecast is calibrated in that dimension and step. A truth that
    lies between two samples, or equals some, gets a random place in that step of the distribution
    function, so that it is uniform for few samples and for constant dimensions too.

    Source: probability integral transform, Dawid 1984; randomised, Czado et al. 2009; with ranks
    of samples, Hamill 2001.
    """
    below = (samples < truth).sum(0)
    equal = (samples == truth).sum(0)
    place: Floats = (below + rng.random(truth.shape) * (equal + 1)) / (len(samples) + 1)
    return place


def histogram(places: Floats, bins: int = 10) -> Floats:
    """Shares of PIT values `(B, ...)` in equal bins, `(bins, ...)`; calibrated is `1 / bins` each.

    Hollow in the middle is too sure, humped too unsure, sloped biased.
    """
    cell = np.minimum((places * bins).astype(np.int64), bins - 1)
    return np.stack([(cell == k).mean(0) for k in range(bins)])


def reliability(places: Floats, probabilities: Sequence[float]) -> Floats:
    """Calibration curve: the share of truths below each of the forecast's quantiles.

    Args:
        places: PIT values `(B, ...)`.
        probabilities: P of them, in [0, 1].

    Returns:
        `(P, ...)`; calibrated is the probabilities themselves. Source: Kuleshov et al. 2018,
        equation 8.
    """
    return np.stack([(places <= p).mean(0) for p in probabilities])


@dataclass(frozen=True)
class Spread:
    """Scales samples around their median, so that intervals have their nominal coverage.

    Attributes:
        factor: `(H, F)`, or `(H, 1)` if the dimensions of a step share one; above 1 widens.
        level: Of the central interval that it was fitted for.
    """

    factor: Floats
    level: float

    def __call__(self, samples: Array) -> Array:
        """Stretched samples `(S, B, h, F)`, h <= H; their ranks and medians stay as they are.

        Raises:
            ValueError: If they reach further ahead than the factor does.
        """
        if samples.shape[2] > len(self.factor):
            raise ValueError(
                f"the spread is fitted for {len(self.factor)} steps, got {samples.shape[2]}"
            )
        centre = np.median(samples, axis=0)
        stretched: Array = centre + self.factor[: samples.shape[2]] * (samples - centre)
        return stretched


def fit_spread(
    samples: Array, truth: Array, level: float = 0.9, *, share_dimensions: bool = False
) -> Spread:
    """The factor by which the spread must grow for the interval to cover held-out truth.

    For each window there is a smallest factor at which its truth is inside the interval; the
    answer is the `level` quantile of those, with the correction for a finite number of windows.
    On windows like these, coverage at this level is then right whatever is wrong with the model;
    at other levels as far as the forecast has the right shape. One number per step and dimension
    can be fitted to a few hundred windows; a whole curve of levels (Kuleshov et al. 2018) cannot.

    Source: Kuleshov et al. 2018 and Malik et al. 2019 for recalibrating dynamics on held-out
    data; Vovk et al. 2005 and Romano et al. 2019 for the quantile and its guarantee.

    Args:
        samples: Forecasts of held-out windows `(S, B, H, F)`, never those of training.
        truth: `(B, H, F)`.
        level: Of the central interval.
        share_dimensions: One factor per step; for few windows.

    Raises:
        ValueError: If there are too few windows for the level, samples too few for the interval,
            a forecast is not finite, or one that is wrong does not spread at all.
    """
    if not (np.isfinite(samples).all() and np.isfinite(truth).all()):
        raise ValueError("a spread is fitted to finite forecasts and truth; leave the others out")
    low, high = interval(samples, level)
    centre = np.median(samples, axis=0)
    off = truth - centre
    reach = np.where(off > 0, high - centre, centre - low)
    off = np.abs(off)
    needed = np.divide(off, reach, out=np.full(off.shape, np.inf), where=reach > 0)
    needed[off == 0] = 0.0
    if share_dimensions:
        needed = needed.transpose(0, 2, 1).reshape(-1, needed.shape[1], 1)
    rank = int(np.ceil(level * (len(needed) + 1) - 1e-9))
    if rank > len(needed):
        least = int(np.ceil(level / (1 - level) - 1e-9))
        raise ValueError(f"level {level} needs {least} windows or more, got {len(needed)}")
    factor = np.sort(needed, axis=0)[rank - 1]
    if not np.isfinite(factor).all():
        step, dimension = np.argwhere(~np.isfinite(factor))[0]
        raise ValueError(
            f"the forecast of step {step + 1}, dimension {dimension} is wrong without any spread "
            "that could be stretched"
        )
    # A dimension that is constant in truth and forecast has no spread to fit.
    return Spread(np.where(needed.max(0) == 0, 1.0, factor), level)
