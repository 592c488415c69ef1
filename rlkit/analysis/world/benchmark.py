"""A benchmark of forecasts: the same windows and actions for all candidates, and their scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.analysis.world.candidates import FittedCandidate
from rlkit.analysis.world.data import WorldData, deviations
from rlkit.world import Episodes, ForecastWindows
from rlkit.world.scores.calibration import Spread, fit_spread
from rlkit.world.scores.scores import Scores, finite_windows, score, score_regions

LEVEL = 0.9
LEVELS = (0.5, LEVEL)
BINS = 20  # of the calibration curve
SAMPLES_LEAST = 19  # or there is no 90 % interval
_WINDOWS_LEAST = 10  # or there is nothing to recalibrate on
_CELLS = 5  # of the grid over goals, along each of its two sides
_CELL_LEAST = 4  # windows; fewer are not enough for a score
_REGION_STEP = 15  # steps ahead that the map of regions is drawn for, or the nearest below
Array = NDArray[Any]


@dataclass(frozen=True)
class BenchmarkSettings:
    """How forecasts are evaluated.

    Attributes:
        horizons: Steps ahead to score; those that the data do not allow are left out.
        context: Steps of context, at least.
        windows: Forecasts, at most.
        samples: Per forecast.
    """

    horizons: tuple[int, ...] = (1, 5, 15, 50)
    context: int = 15
    windows: int = 300
    samples: int = 50

    def __post_init__(self) -> None:
        if not self.horizons or min(self.horizons) < 1:
            raise ValueError(f"horizons are steps ahead, 1 or more, got {self.horizons}")
        if self.context < 0 or self.windows < _WINDOWS_LEAST or self.samples < SAMPLES_LEAST:
            raise ValueError(
                f"context must be >= 0, windows >= {_WINDOWS_LEAST} and samples >= "
                f"{SAMPLES_LEAST}, got {self.context}, {self.windows} and {self.samples}"
            )


@dataclass(frozen=True)
class Forecasts:
    """The forecasts of a candidate.

    Attributes:
        test: Samples `(S, B, H, F)` of the test windows, in raw units.
        recalibrated: The same, scaled so that intervals cover the validation windows; None where
            those forecasts are not finite.
        unscaled: Columns that could not be scaled, because their samples have no spread.
        finite: Which windows `(B,)` are finite throughout.
        us_per_step: Microseconds per imagined step, all windows and samples at once.
    """

    test: Array
    recalibrated: Array | None
    unscaled: tuple[int, ...]
    finite: NDArray[np.bool_]
    us_per_step: float


class Benchmark:
    """Windows of one set of data.

    Args:
        data: The data.
        protocol: The settings.
        context: Steps of context that the candidates need.

    Attributes:
        horizons: Those that the data allow.
        context: Steps of context.
        test: Windows to score.
        validation: Windows to recalibrate on.
        unit: Deviation of each column in the training part `(F,)`, 1 where it is constant.
        varying: Columns that vary in the training part; no other is scored.
        cells: Of each test window, the cell of the grid over goals in which it begins `(B,)`;
            None unless goals are points of a plane.
        edges: Of the grid, along both sides.

    Raises:
        ValueError: If episodes are too short or too few for any horizon.
    """

    def __init__(self, data: WorldData, protocol: BenchmarkSettings, context: int) -> None:
        self.protocol = protocol
        self.context = max(protocol.context, context)
        parts = (data.training, data.validation, data.test)
        allowed = [h for h in protocol.horizons if all(self._allows(part, h) for part in parts)]
        if not allowed:
            longest = min(int(part.spans[:, 2].max()) for part in parts)
            raise ValueError(
                f"the data are too short to forecast {min(protocol.horizons)} steps after "
                f"{self.context} of context: their longest episode has {longest} steps, and "
                f"{_WINDOWS_LEAST} windows are needed in each part; lower --context or --horizons, "
                f"or record more and longer episodes"
            )
        self.horizons = tuple(sorted(set(allowed)))
        furthest, count = self.horizons[-1], protocol.windows
        self.test = data.test.forecast_windows(self.context, furthest, count)
        self.validation = data.validation.forecast_windows(self.context, furthest, count)
        spread = deviations(data.training)
        self.varying = np.flatnonzero(spread > 0)
        self.unit = np.where(spread > 0, spread, 1.0)
        self.cells, self.edges = _grid(self.test, data.layout.achieved)

    @property
    def region_step(self) -> int:
        """Steps ahead that regions are compared at."""
        return max((h for h in self.horizons if h <= _REGION_STEP), default=self.horizons[0])

    def forecasts(self, fitted: FittedCandidate, seed: int) -> Forecasts:
        """The forecasts of a candidate in all windows."""
        samples = self.protocol.samples
        began = time.perf_counter()
        test = np.asarray(fitted.forecast(self.test, samples, seed), np.float32)
        seconds = time.perf_counter() - began
        steps = samples * len(self.test) * self.horizons[-1]
        finite = finite_windows(test)
        validation = np.asarray(fitted.forecast(self.validation, samples, seed + 1), np.float32)
        known = finite_windows(validation)
        recalibrated: Array | None = None
        unscaled: tuple[int, ...] = ()
        if known.sum() >= _WINDOWS_LEAST:
            truth = self.validation.future_observation[known]
            spread, unscaled = _fit_scale(validation[:, known], truth, self.varying)
            recalibrated = np.array(test)
            recalibrated[:, finite] = spread(test[:, finite])
        return Forecasts(test, recalibrated, unscaled, finite, seconds / steps * 1e6)

    def score(self, samples: Array, rows: NDArray[np.bool_], seed: int) -> Scores:
        """Scores of some windows at all horizons, in units of the training part's deviations."""
        drawn = samples[:, rows][..., self.varying].astype(np.float64)
        return score(
            drawn,
            self.test.future_observation[rows][..., self.varying],
            np.random.default_rng(seed),
            steps=self.horizons,
            scale=self.unit[self.varying],
            levels=LEVELS,
            bins=BINS,
        )

    def curve(self, samples: Array, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Mean squared error at every step `(H,)`, a mean over windows and columns."""
        off = samples[:, rows].mean(0) - self.test.future_observation[rows]
        squares = ((off / self.unit)[..., self.varying].astype(np.float64)) ** 2
        return np.asarray(squares.mean((0, 2)))

    def regions(
        self, samples: Array, rows: NDArray[np.bool_], seed: int
    ) -> dict[tuple[int, int], Scores]:
        """Scores by cell of the grid over goals, where there are windows enough."""
        if self.cells is None:
            return {}
        cells, count = np.unique(self.cells[rows], return_counts=True)
        kept = rows & np.isin(self.cells, cells[count >= _CELL_LEAST])
        if not kept.any():
            return {}
        found = score_regions(
            samples[:, kept][..., self.varying].astype(np.float64),
            self.test.future_observation[kept][..., self.varying],
            self.cells[kept],
            np.random.default_rng(seed),
            steps=(self.region_step,),
            scale=self.unit[self.varying],
            levels=LEVELS,
        )
        return {divmod(int(cell), _CELLS): one for cell, one in found.items()}  # type: ignore[call-overload]

    def _allows(self, part: Episodes, horizon: int) -> bool:
        places = np.maximum(part.spans[:, 2] - self.context - horizon + 1, 0)
        return int(places.sum()) >= _WINDOWS_LEAST


def _grid(windows: ForecastWindows, achieved: Sequence[int]) -> tuple[Array | None, list[Array]]:
    """The cell of each window by the goal achieved at its start, and the grid's edges."""
    if len(achieved) != 2:
        return None, []
    goals = windows.context_observation[:, -1, list(achieved)]
    edges = [
        np.linspace(low, high, _CELLS + 1)
        for low, high in zip(goals.min(0), goals.max(0), strict=True)
    ]
    places = [
        np.searchsorted(e[1:-1], g, side="right") for e, g in zip(edges, goals.T, strict=True)
    ]
    return places[0] * _CELLS + places[1], edges


def _fit_scale(samples: Array, truth: Array, varying: Array) -> tuple[Spread, tuple[int, ...]]:
    """The factor of each column's spread, and the columns that keep theirs."""
    factor = np.ones(truth.shape[1:])
    unscaled = []
    for column in varying.tolist():
        one = slice(column, column + 1)
        try:
            factor[:, one] = fit_spread(samples[..., one], truth[..., one], LEVEL).factor
        except ValueError:  # all samples agree, and are wrong
            unscaled.append(column)
    return Spread(factor, LEVEL), tuple(unscaled)
