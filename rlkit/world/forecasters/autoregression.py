"""Linear dynamics by least squares: AR of each dimension by itself, ARX of all under actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from rlkit.world.data.windows import Episodes, ForecastWindows, require_finite
from rlkit.world.forecasters.baselines import Floats, check_windows

Rows = NDArray[np.int64]
ORDERS = (1, 2, 3, 5, 8)
RIDGE = 1e-9  # of standardised columns: only decides between identical columns
CHUNK = 8192  # records that are factorised at once
HELD_OUT = 5  # every fifth episode, or the last fifth of each, chooses the order
WORTH = 0.01  # a higher order is taken if it saves this share of the error
TRIALS = 500  # windows that an order is tried on


@dataclass
class Autoregression:
    """Each step is linear in the last p observations and actions, with Gaussian noise.

    Fitted to all training records at once by least squares of one step; run freely for more, every
    sample with noise of its own in every step, correlated between dimensions as the errors of
    training were. What is uncertain about the coefficients is left out. Of several orders it takes
    the lowest whose free-running forecasts of held-out data have the least squared error or nearly
    that, then fits it to all data.

    The regression is written in the present observation and the last p - 1 changes, which is the
    same model, and solved by QR of chunks, without forming products of columns: neighbouring
    observations of a smooth movement differ so little that the usual normal equations lose it.

    Source: Luetkepohl 2005, chapter 3 (vector autoregression) and 10 (with inputs); Ljung 1999,
    chapter 4 (ARX).

    Attributes:
        order: p, or several to choose from.
        coupled: Whether a dimension follows the others too, or only itself.
        driven: Whether it follows actions, the present one and the last p - 1.
        trial_horizon: Steps ahead over which orders are compared.
        chosen: The order in use, after `fit`.
    """

    order: int | Sequence[int] = ORDERS
    coupled: bool = True
    driven: bool = True
    trial_horizon: int = 15
    chosen: int | None = field(default=None, init=False)
    _widths: tuple[int, int] = field(default=(0, 0), init=False, repr=False)
    _dynamics: _Dynamics | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.orders or self.orders[0] < 1:
            raise ValueError(f"order must be >= 1, or several such, got {self.order}")

    @property
    def orders(self) -> list[int]:
        """The orders to choose from, ascending."""
        return sorted({self.order} if isinstance(self.order, int) else set(self.order))

    @property
    def context(self) -> int:
        """One step less than the chosen order; before `fit`, than the highest."""
        return (self.chosen or self.orders[-1]) - 1

    def fit(self, data: Episodes) -> Self:
        """Chooses the order and fits the coefficients.

        Raises:
            ValueError: If numbers are missing, or records are too few for the highest order.
        """
        records = _Records.of(data, self.orders[-1], self.driven)
        self._widths = (data.observation.shape[1], data.action.shape[1])
        if len(self.orders) == 1:
            self.chosen = self.orders[0]
        else:
            held = records.held_out()
            triangle = records.triangle(~held)
            trials = records.trials(held, self.trial_horizon)
            wrong = [
                _trial_error(records.solve(triangle, p, self.coupled), *trials) for p in self.orders
            ]
            near = np.asarray(wrong) <= (1 + WORTH) * min(wrong)
            self.chosen = self.orders[int(np.argmax(near))]
        everything = records.triangle(np.ones(len(records.time), np.bool_))
        self._dynamics = records.solve(everything, self.chosen, self.coupled)
        return self

    def forecast(self, windows: ForecastWindows, samples: int, rng: Generator) -> Floats:
        """See `Forecaster.forecast`; samples of unstable dynamics may overflow."""
        if self._dynamics is None:
            raise ValueError("fit the baseline before it forecasts")
        check_windows(windows, self.context, *self._widths)
        past = np.asarray(windows.context_observation, np.float64)
        actions = np.concatenate([windows.context_action, windows.future_action], 1)
        steps = windows.future_action.shape[1]
        expected = self._dynamics.expected(past, actions.astype(np.float64), steps)
        drawn = np.empty((samples, *expected.shape))
        block = max(1, CHUNK // len(expected))
        for start in range(0, samples, block):
            part = drawn[start : start + block]
            noise = rng.standard_normal((len(part) * len(expected), *expected.shape[1:]))
            part[:] = self._dynamics.response(noise).reshape(part.shape) + expected
        return drawn


def ar(order: int | Sequence[int] = ORDERS) -> Autoregression:
    """Each dimension from its own past."""
    return Autoregression(order, coupled=False, driven=False)


def arx(order: int | Sequence[int] = ORDERS) -> Autoregression:
    """All dimensions from the past of all and from actions: the linear model of the dynamics."""
    return Autoregression(order)


@dataclass(frozen=True)
class _Dynamics:
    """Fitted coefficients; `change = constant + level @ A + sum changes @ C + sum actions @ D`."""

    constant: Floats  # (F,)
    level: Floats  # (F, F)
    changes: Floats  # (p - 1, F, F), the latest first
    actions: Floats  # (p, A, F), the latest first; none where actions are left out
    noise: Floats  # (F, F), times standard normal numbers it is one step's noise

    def expected(self, past: Floats, actions: Floats, steps: int) -> Floats:
        """The mean `(B, H, F)` after `(B, C + 1, F)` under all actions `(B, C + H, A)`."""
        drive = np.broadcast_to(self.constant, (len(past), steps, len(self.constant))).copy()
        for lag, weight in enumerate(self.actions):
            stop = actions.shape[1] - lag
            drive += actions[:, stop - steps : stop] @ weight
        changes = np.diff(past, axis=1)[:, ::-1][:, : len(self.changes)]
        return self._run(past[:, -1], changes, drive)

    def response(self, noise: Floats) -> Floats:
        """What standard normal noise `(N, H, F)` adds up to; the sum with the mean is a sample."""
        count, _, width = noise.shape
        rest = np.zeros((count, len(self.changes), width))
        return self._run(np.zeros((count, width)), rest, noise @ self.noise)

    def _run(self, level: Floats, changes: Floats, drive: Floats) -> Floats:
        """Observations `(N, H, F)` from the present, its last changes and what is added."""
        past = [changes[:, lag] for lag in range(len(self.changes))]
        path = np.empty_like(drive)
        with np.errstate(over="ignore", invalid="ignore"):  # unstable dynamics may overflow
            for step in range(drive.shape[1]):
                change = level @ self.level + drive[:, step]
                for weight, old in zip(self.changes, past, strict=True):
                    change += old @ weight
                level = level + change
                past = [change, *past][: len(self.changes)]
                path[:, step] = level
        return path


@dataclass(frozen=True)
class _Records:
    """The regression's rows: the time of every observation with enough past and one successor."""

    data: Episodes
    order: int
    lags: int  # of actions
    rows_observed: Rows  # (N,), rows of observations
    actions: Rows  # (N,), rows of the actions taken there
    episode: Rows  # (N,)
    time: Rows  # (N,), steps since the episode's start

    @classmethod
    def of(cls, data: Episodes, order: int, driven: bool) -> _Records:
        counts = np.maximum(data.spans[:, 2] - order + 1, 0)
        episode = np.repeat(np.arange(len(data)), counts)
        if len(episode) == 0:
            raise ValueError(
                f"order {order} needs episodes of {order} steps or more, the longest has "
                f"{data.spans[:, 2].max()}"
            )
        time = np.arange(len(episode)) - np.repeat(np.cumsum(counts) - counts, counts) + order - 1
        first, record, _ = data.spans[episode].T
        return cls(data, order, order * driven, first + time, record + time, episode, time)

    def held_out(self) -> NDArray[np.bool_]:
        """Which records choose the order."""
        lengths = self.data.spans[self.episode, 2]
        held: NDArray[np.bool_] = (
            self.episode % HELD_OUT == HELD_OUT - 1
            if len(self.data) >= HELD_OUT
            else self.time >= lengths * (1 - 1 / HELD_OUT)
        )
        if held.all() or not held.any():
            raise ValueError(
                f"{len(held)} records with {self.order} steps of past are too few to choose the "
                "order on; give one"
            )
        return held

    def triangle(self, which: NDArray[np.bool_]) -> tuple[Floats, int]:
        """R of the QR factorisation of records, and their number, for least squares."""
        picked = np.flatnonzero(which)
        triangle = self._design(picked[:0])
        for start in range(0, len(picked), CHUNK):
            new = self._design(picked[start : start + CHUNK])
            _, triangle = np.linalg.qr(np.concatenate([triangle, new]))
        return triangle, len(picked)

    def solve(self, factors: tuple[Floats, int], order: int, coupled: bool) -> _Dynamics:
        """The coefficients of an order, which uses some of the columns."""
        triangle, count = factors
        width, driving = self.data.observation.shape[1], self.data.action.shape[1]
        inputs = 1 + width * self.order
        lags = min(self.lags, order)
        own = 1 + width * np.arange(order)  # of the first dimension: its level, its changes
        driven = inputs + np.arange(driving * lags)
        targets = triangle[:, -width:]
        weights = np.zeros((triangle.shape[1] - width, width))
        for group in [np.arange(width)] if coupled else np.arange(width)[:, None]:
            used = np.concatenate([[0], (own[:, None] + group).ravel(), driven])
            if count <= len(used):
                raise ValueError(
                    f"order {order} has {len(used)} coefficients per dimension, but there are "
                    f"only {count} records to fit them to: lower the order or give more data"
                )
            weights[np.ix_(used, group)] = _least_squares(
                triangle[:, used], targets[:, group], count
            )
        error = targets - triangle[:, :-width] @ weights
        values, vectors = np.linalg.eigh(error.T @ error / (count - len(used)))
        return _Dynamics(
            constant=weights[0],
            level=weights[1 : 1 + width],
            changes=weights[1 + width : 1 + width * order].reshape(order - 1, width, width),
            actions=weights[driven].reshape(lags, driving, width),
            noise=np.sqrt(np.maximum(values, 0))[:, None] * vectors.T,
        )

    def trials(
        self, held: NDArray[np.bool_], horizon: int
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Held-out windows for multi-step errors: context, actions, truth, and its variance."""
        left = self.data.spans[self.episode, 2] - self.time
        steps = min(horizon, int(left[held].max()))
        fit = np.flatnonzero(held & (left >= steps))
        picked = fit[np.linspace(0, len(fit) - 1, min(TRIALS, len(fit))).round().astype(int)]
        past = self._observed(self.rows_observed[picked, None] + np.arange(1 - self.order, 1))
        actions = self._done(self.actions[picked, None] + np.arange(1 - self.order, steps))
        truth = self._observed(self.rows_observed[picked, None] + np.arange(1, steps + 1))
        return past, actions, truth, past.reshape(-1, past.shape[2]).var(0)

    def _design(self, rows: Rows) -> Floats:
        """Columns `[1, level, changes, actions, next change]` of some records."""
        past = self._observed(self.rows_observed[rows, None] + np.arange(1 - self.order, 2))
        width = past.shape[2]
        changes = np.diff(past, axis=1)[:, ::-1]  # the first of them is the target
        actions = self._done(self.actions[rows, None] - np.arange(self.lags))
        flat = [
            changes[:, 1:].reshape(len(rows), width * (self.order - 1)),
            actions.reshape(len(rows), self.lags * actions.shape[2]),
        ]
        ones = np.ones((len(rows), 1))
        return np.concatenate([ones, past[:, -2], *flat, changes[:, 0]], 1)

    def _observed(self, rows: Rows) -> Floats:
        found = np.asarray(self.data.observation[rows], np.float64)
        require_finite(found, "observation")
        return found

    def _done(self, rows: Rows) -> Floats:
        found = np.asarray(self.data.action[rows], np.float64)
        require_finite(found, "action")
        return found


def _least_squares(columns: Floats, targets: Floats, count: int) -> Floats:
    """Weights of columns, the first of which is the constant; a column without variance gets 0."""
    mean = np.abs(columns[0] / columns[0, 0])
    spread = np.sqrt((columns[1:] ** 2).sum(0) / count)  # QR has taken the constant's share off
    varies = spread > 1e-9 * mean
    varies[0] = True
    unit = np.where(varies, spread, 1.0)
    unit[0] = 1.0
    small = np.sqrt(RIDGE * count) * np.eye(len(unit))[1:]
    design = np.concatenate([columns / unit * varies, small])
    wanted = np.concatenate([targets, np.zeros((len(small), targets.shape[1]))])
    weights: Floats = np.linalg.lstsq(design, wanted)[0] * (varies / unit)[:, None]
    return weights


def _trial_error(
    dynamics: _Dynamics, past: Floats, actions: Floats, truth: Floats, variance: Floats
) -> float:
    """Squared error of free-running forecasts, as a share of each dimension's variance."""
    with np.errstate(over="ignore", invalid="ignore"):
        off = ((dynamics.expected(past, actions, truth.shape[1]) - truth) ** 2).mean((0, 1))
    share = np.divide(off, variance, out=np.zeros_like(off), where=variance > 0)
    return float(share.mean()) if np.isfinite(share).all() else np.inf
