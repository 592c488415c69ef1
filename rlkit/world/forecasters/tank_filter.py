"""A particle filter of the driven tanks, with their true dynamics: the best possible forecast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from rlkit.world.data.synthetic import (
    DISTURBANCE,
    DRIVERS,
    NOISE,
    TARGETS,
    UNITS,
    advanced,
    disturbed,
)
from rlkit.world.data.windows import Episodes, ForecastWindows

Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass
class TankFilter:
    """The upper bound on `driven_tanks`: no forecast from the same past can be better.

    Particles, each a state and a disturbance, start around the first observation, move by the true
    laws with chance of their own, and are drawn anew by how well they predict each observation
    (Gordon et al. 1993, the bootstrap filter; systematic draws). From the present on they move. The
    bound is as tight as the particles are many.

    Attributes:
        context: Steps of the past that are read, C >= 0.
        particles: Per window, >= 1.
        noise: That of `driven_tanks`, > 0.

    Raises:
        ValueError: If a field is out of its range.
    """

    context: int = 15
    particles: int = 1_000
    noise: float = 1.0

    def __post_init__(self) -> None:
        if self.context < 0 or self.particles < 1 or not self.noise > 0:
            raise ValueError(
                f"context must be >= 0, particles >= 1 and noise > 0, got {self.context}, "
                f"{self.particles} and {self.noise}"
            )

    def fit(self, data: Episodes) -> Self:
        """Learns nothing, but refuses data that are not the tanks'.

        Raises:
            ValueError: If the columns are others.
        """
        widths = data.observation.shape[1], data.action.shape[1]
        if widths[0] != len(TARGETS) or widths[1] < len(DRIVERS):
            raise ValueError(
                f"the tanks have {len(TARGETS)} columns and {len(DRIVERS)} drivers, these data "
                f"{widths[0]} and {widths[1]}; their filter fits no other data"
            )
        return self

    def forecast(self, windows: ForecastWindows, samples: int, rng: Generator) -> Floats:
        """Samples `(S, B, H, 3)`; see `Forecaster.forecast`."""
        past = np.asarray(windows.context_observation, np.float64) / UNITS
        spread = self.noise * NOISE / UNITS
        count, each = len(past), self.particles
        state = np.repeat(past[:, 0], each, axis=0)
        state = state + spread * rng.standard_normal(state.shape)
        off = DISTURBANCE * self.noise * rng.standard_normal(len(state))
        for step in range(windows.context_action.shape[1]):
            state, off = self._moved(state, off, windows.context_action[:, step], rng)
            observed = past[:, step + 1, None]
            misses = (((state.reshape(count, each, 3) - observed) / spread) ** 2).sum(2)
            chosen = drawn_by(np.exp((misses.min(1, keepdims=True) - misses) / 2), each, rng)
            state, off = state[chosen], off[chosen]
        start = rng.integers(each, size=(count, samples)) + each * np.arange(count)[:, None]
        state, off = state[start.ravel()], off[start.ravel()]
        drawn = np.empty((count * samples, windows.future_action.shape[1], 3))
        for step in range(windows.future_action.shape[1]):
            state, off = self._moved(state, off, windows.future_action[:, step], rng)
            drawn[:, step] = UNITS * state + self.noise * NOISE * rng.standard_normal(state.shape)
        return drawn.reshape(count, samples, -1, 3).swapaxes(0, 1)

    def _moved(
        self, state: Floats, off: Floats, actions: Array, rng: Generator
    ) -> tuple[Floats, Floats]:
        """Particles `(N, 3)` and disturbances `(N,)` after actions `(B, A)`, in L/min and kW."""
        each = len(state) // len(actions)
        inflow, power = (np.repeat(actions[:, i].astype(np.float64), each) for i in range(2))
        after = advanced(state, inflow / 60_000 * (1 + off), power * 1_000)
        return after, disturbed(off, self.noise, rng)


def drawn_by(weights: Floats, count: int, rng: Generator) -> NDArray[np.int64]:
    """Systematic draws in proportion to weights `(B, P)`: flat numbers of rows, `(B * count,)`.

    Source: Kitagawa 1996, appendix: one uniform number, and steps of equal size from it.
    """
    rows, width = weights.shape
    edges = np.cumsum(weights, axis=1)
    places = (rng.random((rows, 1)) + np.arange(count)) / count * edges[:, -1:]
    # Every row of edges lies in an interval of its own, so that one search serves all.
    shift = np.arange(rows)[:, None] * (edges[:, -1].max() + 1)
    found = np.searchsorted((edges + shift).ravel(), (places + shift).ravel(), side="right")
    last = np.repeat((np.arange(rows) + 1) * width - 1, count)
    chosen: NDArray[np.int64] = np.minimum(found, last)
    return chosen
