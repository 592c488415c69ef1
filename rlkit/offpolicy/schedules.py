"""Learning-rate schedules that files can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

POINTS = 1001  # at which a function is read off to save it


@dataclass(frozen=True)
class TabulatedSchedule:
    """A function of the remaining progress, linear between values at equal distances.

    Attributes:
        values: From the start of training (remaining progress 1) to its end (0); two or more.

    Raises:
        ValueError: If there are fewer, or one is negative or not finite.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuses what is no schedule."""
        good = len(self.values) >= 2 and all(0 <= value < np.inf for value in self.values)
        if not good:
            raise ValueError(
                f"learning_rate = {{schedule = {list(self.values)}}} must hold two or more numbers "
                f">= 0, from the start of training to its end"
            )

    def __call__(self, remaining: float) -> float:
        """The value at a remaining progress in [0, 1]."""
        progress = (1 - remaining) * (len(self.values) - 1)
        return float(np.interp(progress, np.arange(len(self.values)), self.values))

    @classmethod
    def of(cls, schedule: Callable[[float], float]) -> TabulatedSchedule:
        """A function of the remaining progress read off at `POINTS` points; two if it is linear."""
        remaining = np.linspace(1.0, 0.0, POINTS)
        values = np.array([float(schedule(float(part))) for part in remaining])
        line = np.linspace(values[0], values[-1], POINTS)
        if np.allclose(values, line, rtol=1e-9, atol=0):
            values = values[[0, -1]]
        return cls(tuple(values.tolist()))


def learning_rate_of(given: Any) -> Any:
    """A learning rate as an agent takes it: a table `{schedule = [...]}` becomes a function.

    Raises:
        ValueError: If the table holds anything else.
    """
    if not isinstance(given, Mapping):
        return given
    if set(given) != {"schedule"} or not isinstance(given["schedule"], list | tuple):
        raise ValueError(
            f"learning_rate = {dict(given)} must be a number > 0, a function of the remaining "
            f"progress, or a table {{schedule = [first, ..., last]}}"
        )
    return TabulatedSchedule(tuple(given["schedule"]))
