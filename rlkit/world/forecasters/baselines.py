"""Baseline forecasts for world models: persistence and linear trend.

All baselines implement `Forecaster` and work in raw units. Autoregression is in `autoregression`,
ARIMA in `arima`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from rlkit.world.data.windows import Episodes, ForecastWindows

Array = NDArray[Any]
Floats = NDArray[np.float64]


class Forecaster(Protocol):
    """A probabilistic forecast, by samples, of observations given context and future actions."""

    @property
    def context(self) -> int:
        """C, steps of context that it needs before the present observation."""

    def fit(self, data: Episodes) -> Self:
        """Fits itself to episodes; returns itself."""

    def forecast(self, windows: ForecastWindows, samples: int, rng: Generator) -> Floats:
        """Samples `(S, B, H, F)` of what follows the context, in raw units.

        Args:
            windows: Context and future actions; future observations are not read.
            samples: S.
            rng: The only source of randomness.

        Raises:
            ValueError: If it is not fitted, or the windows do not fit.
        """


@dataclass
class Extrapolation:
    """Extrapolates the least-squares line through the last observations from the present one.

    Through one observation the line is flat.

    Samples add training errors to the line: each takes all errors after one training observation,
    over all steps and dimensions, which keeps their size and their dependence. The mean error is
    subtracted, so that the forecast is centred on the line. Scores of samples are then fair to a
    deterministic rule.

    Attributes:
        points: Observations to which the line is fitted.
        horizon: Largest number of steps ahead; some training episode must be as long.
        courses: Largest number of error sequences to keep, spaced evenly over the training data.
    """

    points: int = 1
    horizon: int = 50
    courses: int = 2000
    _errors: Floats | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("points", "horizon", "courses"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")

    @property
    def context(self) -> int:
        """All points of the line except the present one."""
        return self.points - 1

    def fit(self, data: Episodes) -> Self:
        """Collects the training errors.

        Raises:
            ValueError: If data are not finite, or no episode is long enough for points and horizon.
        """
        windows = data.forecast_windows(self.context, self.horizon, self.courses)
        line = self._ahead(windows.context_observation.astype(np.float64), self.horizon)
        errors = windows.future_observation - line
        self._errors = errors - errors.mean(0)
        return self

    def forecast(self, windows: ForecastWindows, samples: int, rng: Generator) -> Floats:
        """See `Forecaster.forecast`; windows may not reach beyond `horizon`."""
        if self._errors is None:
            raise ValueError("fit the baseline before it forecasts")
        check_windows(windows, self.context, self._errors.shape[2])
        steps = windows.future_action.shape[1]
        if steps > self.horizon:
            raise ValueError(f"fitted for horizon={self.horizon}, the windows have {steps} steps")
        line = self._ahead(np.asarray(windows.context_observation, np.float64), steps)
        sequence = rng.integers(len(self._errors), size=(samples, len(line)))
        drawn: Floats = self._errors[sequence, :steps]
        drawn += line
        return drawn

    def _ahead(self, past: Floats, steps: int) -> Floats:
        """The line, `(B, C + 1, F)` to `(B, H, F)`."""
        times = np.arange(self.points) - (self.points - 1) / 2
        weights = times / ((times**2).sum() or 1.0)
        slope = np.einsum("p,bpf->bf", weights, past[:, -self.points :])
        line: Floats = past[:, -1:] + np.arange(1, steps + 1)[:, None] * slope[:, None]
        return line


def persistence(horizon: int = 50) -> Extrapolation:
    """The present observation at every step ahead."""
    return Extrapolation(points=1, horizon=horizon)


def linear_trend(horizon: int = 50, points: int = 5) -> Extrapolation:
    """The slope of the last few points, continued from the present observation."""
    return Extrapolation(points=points, horizon=horizon)


def check_windows(
    windows: ForecastWindows, needed: int, width: int, driven: int | None = None
) -> None:
    """Whether windows fit F = `width` columns and A = `driven` actions; None for any.

    Raises:
        ValueError: If not, or if there are fewer than `needed` steps of context, or a number is not
            finite.
    """
    given = {
        "context observations": np.asarray(windows.context_observation),
        "context actions": np.asarray(windows.context_action),
        "future actions": np.asarray(windows.future_action),
    }
    shapes = [array.shape for array in given.values()]
    if any(len(shape) != 3 for shape in shapes):
        raise ValueError(f"context and future must be (B, steps, columns), got {shapes}")
    (count, observed, _), (_, steps) = shapes[0], shapes[2][:2]
    actions = shapes[2][2] if driven is None else driven
    wanted = [(count, observed, width), (count, observed - 1, actions), (count, steps, actions)]
    if shapes != wanted or steps < 1:
        raise ValueError(f"{list(given)} must have shapes {wanted}, H >= 1, got {shapes}")
    if observed <= needed:
        raise ValueError(f"the forecast needs {needed} steps of context, got {observed - 1}")
    for name, array in given.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} are not finite at {np.argwhere(~np.isfinite(array))[0]}")
