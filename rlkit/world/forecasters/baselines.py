"""Forecasts that a world model must beat to be worth its training: no change, and a straight line.

All baselines share the surface of `Forecaster`: told at construction what to try, at `fit` what
the widths are. They work in raw units. Autoregression is in `autoregression`, ARIMA in `arima`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from rlkit.world.data.windows import Episodes

Array = NDArray[Any]
Floats = NDArray[np.float64]


class Forecaster(Protocol):
    """A forecast with samples, made of what was seen and of what will be done."""

    @property
    def context(self) -> int:
        """Steps C that it must have seen before the present observation."""

    def fit(self, data: Episodes) -> Self:
        """Learns from episodes; returns itself."""

    def forecast(
        self,
        context_observations: Array,
        context_actions: Array,
        future_actions: Array,
        samples: int,
        rng: np.random.Generator,
    ) -> Floats:
        """Samples `(S, B, H, F)` of what follows the context.

        Args:
            context_observations: `(B, C + 1, F)`, the last one is the present.
            context_actions: `(B, C, A)`.
            future_actions: `(B, H, A)`, from the present on.
            samples: S.
            rng: The only source of chance.
        """


@dataclass
class Extrapolation:
    """The line through the last few observations goes on from the present one.

    Its slope is that of least squares; through one observation it is flat.

    Samples are the line and the errors that it had in training: each takes the whole course of
    errors after one training observation, for all steps and dimensions, so that errors stay as
    large, and as dependent on each other, as they were. The mean error is taken off, so that the
    forecast's centre is the line. That makes scores of samples fair to a rule without chance.

    Attributes:
        points: Observations that the line goes through.
        horizon: The most steps ahead; a training episode must hold as many.
        courses: At most so many courses of errors are kept, evenly over the training data.
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
        """All points of the line but the present one."""
        return self.points - 1

    def fit(self, data: Episodes) -> Self:
        """Collects the errors of training.

        Raises:
            ValueError: If numbers are missing, or no episode holds points and horizon together.
        """
        windows = data.forecast_windows(self.context, self.horizon, self.courses)
        line = self._ahead(windows.context_observation.astype(np.float64), self.horizon)
        errors = windows.future_observation - line
        self._errors = errors - errors.mean(0)
        return self

    def forecast(
        self,
        context_observations: Array,
        context_actions: Array,
        future_actions: Array,
        samples: int,
        rng: np.random.Generator,
    ) -> Floats:
        """Samples `(S, B, H, F)`, as in `Forecaster`.

        Raises:
            ValueError: If it is not fitted, the window does not fit, or reaches beyond `horizon`.
        """
        if self._errors is None:
            raise ValueError("fit the baseline before it forecasts")
        widths = (self._errors.shape[2], future_actions.shape[-1])
        check_window(context_observations, context_actions, future_actions, self.context, widths)
        steps = future_actions.shape[1]
        if steps > self.horizon:
            raise ValueError(f"fitted for horizon={self.horizon}, asked for {steps} steps")
        line = self._ahead(np.asarray(context_observations, np.float64), steps)
        course = rng.integers(len(self._errors), size=(samples, len(line)))
        drawn: Floats = self._errors[course, :steps]
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
    """What is now will be: the present observation, at every step ahead."""
    return Extrapolation(points=1, horizon=horizon)


def linear_trend(horizon: int = 50, points: int = 5) -> Extrapolation:
    """What goes on will go on: from the present along the line through the last few points."""
    return Extrapolation(points=points, horizon=horizon)


def check_window(
    context_observations: Array,
    context_actions: Array,
    future_actions: Array,
    needed: int,
    widths: tuple[int, int],
) -> None:
    """Whether arguments of `forecast` fit each other and the widths (F, A).

    Raises:
        ValueError: If not, or fewer than `needed` steps of context are there, or a number is not
            finite.
    """
    given = {
        "context observations": np.asarray(context_observations),
        "context actions": np.asarray(context_actions),
        "future actions": np.asarray(future_actions),
    }
    shapes = [array.shape for array in given.values()]
    if any(len(shape) != 3 for shape in shapes):
        raise ValueError(f"context and future must be (B, steps, columns), got {shapes}")
    (count, seen, _), (_, steps) = shapes[0], shapes[2][:2]
    wanted = [(count, seen, widths[0]), (count, seen - 1, widths[1]), (count, steps, widths[1])]
    if shapes != wanted or steps < 1:
        raise ValueError(f"{list(given)} must have shapes {wanted}, H >= 1, got {shapes}")
    if seen <= needed:
        raise ValueError(f"the forecast needs {needed} steps of context, got {seen - 1}")
    for name, array in given.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} are not finite at {np.argwhere(~np.isfinite(array))[0]}")
