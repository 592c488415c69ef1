"""ARIMA and SARIMA of each dimension by itself, fitted by statsmodels, forecast in batches."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.random import Generator

from rlkit.world.data.windows import Episodes, ForecastWindows, require_finite
from rlkit.world.forecasters.baselines import Floats, check_windows

APART = 20  # missing values between two episodes, beyond the model's own lags


@dataclass
class ARIMA:
    """Autoregressive integrated moving average, with seasons if a period is given.

    Coefficients are those of maximum likelihood over the training data, given once; a window's
    context then only sets the state. Episodes are differenced one by one and joined with missing
    values in between, so that no jump from one to the next is learned from. There are no actions
    (an ARX has them), and dimensions are independent.

    Statsmodels fits and gives the filter's gains, which depend on no observation: all windows are
    filtered and sampled at once with the same ones. What is uncertain about the coefficients is
    left out; what is about the state is in the samples.

    Source: Box and Jenkins 1970; state space form as in Durbin and Koopman 2012, section 3.4.

    Attributes:
        order: (p, d, q), lags of the past, differences, lags of the noise.
        seasonal: (P, D, Q), the same from period to period.
        period: Steps in a season; 0 without.
        rows: The last so many training observations are used; the cost grows with them.
        converged: After `fit`, whether each dimension's likelihood found its maximum.
    """

    order: tuple[int, int, int] = (2, 1, 1)
    seasonal: tuple[int, int, int] = (0, 0, 0)
    period: int = 0
    rows: int = 2000
    converged: list[bool] = field(default_factory=list, init=False)
    _parameters: list[Floats | None] = field(default_factory=list, init=False, repr=False)
    _mean: Floats = field(default_factory=lambda: np.zeros(0), init=False, repr=False)
    _unit: Floats = field(default_factory=lambda: np.zeros(0), init=False, repr=False)

    def __post_init__(self) -> None:
        if min(*self.order, *self.seasonal) < 0 or (any(self.seasonal) and self.period < 2):
            raise ValueError(
                "order and seasonal are three counts each, and seasons need a period of 2 steps or "
                f"more, got order={self.order}, seasonal={self.seasonal}, period={self.period}"
            )

    @property
    def context(self) -> int:
        """As many steps as differences and lags of the past reach back."""
        return self.order[0] + self._lost + self.seasonal[0] * self.period

    @property
    def _lost(self) -> int:
        """Observations that differencing takes."""
        return self.order[1] + self.seasonal[1] * self.period

    def fit(self, data: Episodes) -> Self:
        """Maximises the likelihood of each dimension; a constant one is left at its last value.

        Raises:
            ImportError: If statsmodels is missing.
            ValueError: If numbers are missing, or records are too few for the model.

        Warns:
            RuntimeWarning: If the search did not converge for some dimensions.
        """
        episodes, left = [], self.rows
        for first, _, steps in data.spans[::-1]:
            episodes.append(
                _finite(data, int(first + max(0, steps + 1 - left)), int(first + steps + 1))
            )
            left -= len(episodes[-1])
            if left <= self.context:
                break
        joined = np.concatenate(episodes)
        self._mean, deviation = joined.mean(0), joined.std(0)
        varies = deviation > 1e-9 * np.abs(self._mean)
        self._unit = np.where(varies, deviation, 1.0)
        series = self._differenced([(e - self._mean) / self._unit for e in episodes[::-1]])
        needed = 2 * (sum(self.order) + sum(self.seasonal)) + 10
        if np.isfinite(series[:, 0]).sum() < needed:
            raise ValueError(
                f"{self} needs {needed} observations after differencing, got "
                f"{np.isfinite(series[:, 0]).sum()}"
            )
        fits = [self._fit_one(column) for column in (series * varies).T]
        self._parameters = [parameters for parameters, _ in fits]
        self.converged = [converged for _, converged in fits]
        if not all(self.converged):
            failed = np.flatnonzero(~np.array(self.converged)).tolist()
            warnings.warn(
                f"the likelihood of dimensions {failed} found no maximum; try a lower order than "
                f"{self.order}, seasonal={self.seasonal}",
                RuntimeWarning,
                stacklevel=2,
            )
        return self

    def forecast(self, windows: ForecastWindows, samples: int, rng: Generator) -> Floats:
        """See `Forecaster.forecast`."""
        if not self._parameters:
            raise ValueError("fit the baseline before it forecasts")
        check_windows(windows, self.context, len(self._parameters))
        past = (np.asarray(windows.context_observation, np.float64) - self._mean) / self._unit
        steps = windows.future_action.shape[1]
        drawn = np.empty((samples, len(past), steps, len(self._parameters)))
        for f, parameters in enumerate(self._parameters):
            if parameters is None:
                drawn[..., f] = past[:, -1:, f]
            else:
                drawn[..., f] = self._sample(past[:, :, f], parameters, steps, samples, rng)
        drawn *= self._unit
        drawn += self._mean
        return drawn

    def _differenced(self, episodes: list[Floats]) -> Floats:
        """One series `(N, F)`: the episodes' differences, missing values between episodes."""
        reach = max(self.order[0], self.order[2])
        reach += max(self.seasonal[0], self.seasonal[2]) * self.period
        parts = []
        for episode in episodes:
            change = np.diff(episode, self.order[1], axis=0)
            for _ in range(self.seasonal[1]):
                change = change[self.period :] - change[: -self.period]
            parts += [change, np.full((reach + APART, episode.shape[1]), np.nan)]
        return np.concatenate(parts[:-1])

    def _fit_one(self, series: Floats) -> tuple[Floats | None, bool]:
        """Coefficients of one dimension, None if it never changes; whether they converged."""
        spread = np.sqrt(np.nanmean(series**2))
        if spread == 0:
            return None, True
        (p, _, q), (sp, _, sq) = self.order, self.seasonal
        # At unit scale: the search fails on the tiny variances of differences.
        model = _sarimax(series / spread, (p, 0, q), (sp, 0, sq, self.period))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on starting points; convergence is returned
            found = model.fit(disp=False, maxiter=200)
        parameters = np.array(found.params)
        parameters[-1] *= spread**2
        return parameters, bool(found.mle_retvals["converged"])

    def _sample(
        self, past: Floats, parameters: Floats, steps: int, samples: int, rng: Generator
    ) -> Floats:
        """Samples `(S, B, H)` of one dimension after `(B, C + 1)`."""
        model = _sarimax(past[0], self.order, (*self.seasonal, self.period))
        filtered = model.filter(parameters).filter_results
        transition, design = filtered.transition[..., 0], filtered.design[0, :, 0]
        state = np.repeat(filtered.initial_state[None], len(past), 0)
        for step, gain in enumerate(filtered.kalman_gain[:, 0].T):
            surprise = past[:, step] - state @ design
            state = state @ transition.T + surprise[:, None] * gain
        doubt = _root(filtered.predicted_state_cov[..., -1])
        selection = filtered.selection[..., 0]
        noise = selection @ _root(filtered.state_cov[..., 0])
        shape = (samples, len(past))
        state = state + rng.standard_normal((*shape, len(doubt))) @ doubt.T
        path = np.empty((*shape, steps))
        for step in range(steps):
            path[..., step] = state @ design
            state = state @ transition.T + rng.standard_normal((*shape, noise.shape[1])) @ noise.T
        return path


def sarima(
    period: int,
    order: tuple[int, int, int] = (1, 0, 1),
    seasonal: tuple[int, int, int] = (1, 1, 0),
) -> ARIMA:
    """ARIMA that also repeats itself, with a known period in steps."""
    return ARIMA(order, seasonal, period)


def _sarimax(
    series: Floats, order: tuple[int, int, int], seasonal: tuple[int, int, int, int]
) -> Any:
    try:
        from statsmodels.tsa.statespace.sarimax import SARIMAX
    except ImportError as error:
        raise ImportError(
            "ARIMA stands on statsmodels: pip install 'rlkit-suite[forecast]'"
        ) from error
    seasonal = seasonal if any(seasonal[:3]) else (0, 0, 0, 0)
    return SARIMAX(series, order=order, seasonal_order=seasonal, trend="n")


def _root(covariance: Floats) -> Floats:
    """A matrix whose product with standard normal numbers has that covariance."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    root: Floats = vectors * np.sqrt(np.maximum(values, 0))
    return root


def _finite(data: Episodes, start: int, stop: int) -> Floats:
    rows = np.asarray(data.observation[start:stop], np.float64)
    require_finite(rows, "observation", start)
    return rows
