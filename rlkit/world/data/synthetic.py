"""A driven series whose laws are known: two tanks in a row, the second one heated.

With levels `h1, h2` in m, temperature `T` of the second tank in °C, inflow `q` in m³/s and heating
power `p` in W:

    A dh1/dt = (1 + w) q - c sqrt(h1)
    A dh2/dt = c sqrt(h1) - c sqrt(h2)
    A h2 dT/dt = c sqrt(h1) (T_in - T) + (p - k (T - T_room)) / (density * heat)

A tank empties by Torricelli's law, which is not linear, and its outflow transports heat, so that
drivers multiply. `w` is an unmeasured disturbance of the inflow, an Ornstein-Uhlenbeck
process. Inflow and power are known drivers: they are switched to uniformly drawn values at random
times. Further drivers, as many as asked for, are switched alike and do nothing; a model that says
what drives the series should not name them. What is observed are the levels in cm and the
temperature in °C, each with noise.

Source of the tanks: the cascade is standard in teaching control; Johansson 2000 has four of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlkit.world.data.windows import Episodes

Floats = NDArray[np.float64]

STEP = 10.0  # s between observations
SUBSTEPS = 5  # of the integration, 2 s each; the fastest time constant is about 50 s
AREA = 0.05  # m², A
OUTFLOW = 2.66e-4  # m^2.5/s, c: an opening of 1 cm² with a discharge coefficient of 0.6
HEAT = 4.186e6  # J/(m³ K), water's density times its specific heat
LOSS = 20.0  # W/K, k
COLD, ROOM = 15.0, 20.0  # °C, of the inflow and of the room
INFLOW = (0.8e-4, 2.6e-4)  # m³/s
POWER = (0.0, 8000.0)  # W
HOLD = (10, 60)  # steps from one switch of a driver to its next
DISTURBANCE, CORRELATION = 0.03, 300.0  # deviation of w, and its correlation time in s
NOISE = np.array([0.2, 0.2, 0.1])  # cm, cm, °C
UNITS = np.array([100.0, 100.0, 1.0])  # from the state's m, m, °C

TARGETS = ("level_1", "level_2", "temperature_2")
DRIVERS = ("inflow", "power")


def driven_tanks(
    rng: np.random.Generator,
    *,
    episodes: int = 1,
    steps: int = 2000,
    distractors: int = 0,
    noise: float = 1.0,
) -> Episodes:
    """Episodes of the tanks, each from the equilibrium of drivers of its own.

    Args:
        rng: The only source of randomness.
        episodes: E, independent of each other.
        steps: T, of 10 s each.
        distractors: Drivers that do nothing, after the two that do.
        noise: Times the usual measurement noise and disturbance; 0 is deterministic.

    Returns:
        Observations `level_1, level_2, temperature_2`; actions `inflow` in L/min, `power` in kW,
        and the distractors in [0, 1].

    Raises:
        ValueError: If a count or the noise is out of range.
    """
    if episodes < 1 or steps < 1 or distractors < 0 or noise < 0:
        raise ValueError(
            "episodes and steps must be >= 1, distractors and noise >= 0, got "
            f"{episodes}, {steps}, {distractors}, {noise}"
        )
    share = _switched(rng, episodes, steps, 2 + distractors)
    inflow = INFLOW[0] + share[..., 0] * (INFLOW[1] - INFLOW[0])
    power = POWER[0] + share[..., 1] * (POWER[1] - POWER[0])
    state = _equilibrium(inflow[:, 0], power[:, 0])
    off = DISTURBANCE * noise * rng.standard_normal(episodes)
    levels = np.empty((episodes, steps + 1, 3))
    levels[:, 0] = state
    for step in range(steps):
        state = advanced(state, inflow[:, step] * (1 + off), power[:, step])
        off = disturbed(off, noise, rng)
        levels[:, step + 1] = state
    measured = levels * UNITS + noise * NOISE * rng.standard_normal(levels.shape)
    actions = np.concatenate(
        [inflow[..., None] * 60_000, power[..., None] / 1000, share[..., 2:]], axis=2
    )
    return Episodes(
        measured.reshape(-1, 3), actions.reshape(-1, 2 + distractors), [steps] * episodes
    )


def change(state: Floats, inflow: Floats, power: Floats) -> Floats:
    """The equations above: change `(N, 3)` per second of h1, h2 and T."""
    level_1, level_2, temperature = np.maximum(state.T, [[1e-6], [1e-6], [-np.inf]])
    between, out = OUTFLOW * np.sqrt(level_1), OUTFLOW * np.sqrt(level_2)
    heating = (power - LOSS * (temperature - ROOM)) / HEAT
    warming = (between * (COLD - temperature) + heating) / (AREA * level_2)
    return np.stack([(inflow - between) / AREA, (between - out) / AREA, warming], axis=1)


def _equilibrium(inflow: Floats, power: Floats) -> Floats:
    """The state `(N, 3)` that constant drivers lead to."""
    level = (inflow / OUTFLOW) ** 2
    temperature = (inflow * COLD + (power + LOSS * ROOM) / HEAT) / (inflow + LOSS / HEAT)
    return np.stack([level, level, temperature], axis=1)


def advanced(state: Floats, inflow: Floats, power: Floats) -> Floats:
    """The states `(N, 3)` one step later, drivers held, by Runge and Kutta's fourth-order rule."""
    span = STEP / SUBSTEPS
    for _ in range(SUBSTEPS):
        one = change(state, inflow, power)
        two = change(state + span / 2 * one, inflow, power)
        three = change(state + span / 2 * two, inflow, power)
        four = change(state + span * three, inflow, power)
        state = state + span / 6 * (one + 2 * two + 2 * three + four)
    return state


def disturbed(off: Floats, noise: float, rng: np.random.Generator) -> Floats:
    """The disturbance w `(N,)` one step later."""
    keep = np.exp(-STEP / CORRELATION)
    fresh = DISTURBANCE * noise * np.sqrt(1 - keep**2)
    later: Floats = keep * off + fresh * rng.standard_normal(off.shape)
    return later


def _switched(rng: np.random.Generator, episodes: int, steps: int, count: int) -> Floats:
    """Signals in [0, 1] that hold and jump, `(E, T, count)`."""
    most = steps // HOLD[0] + 1
    holds = rng.integers(HOLD[0], HOLD[1] + 1, (episodes, count, most))
    values = rng.random((episodes, count, most))
    rows = [
        np.repeat(v, h)[:steps]
        for v, h in zip(values.reshape(-1, most), holds.reshape(-1, most), strict=True)
    ]
    return np.stack(rows).reshape(episodes, count, steps).transpose(0, 2, 1)
