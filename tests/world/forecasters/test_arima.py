import sys
import warnings

import numpy as np
import pytest
from statsmodels.tsa.statespace.sarimax import SARIMAX

from rlkit.world.data.windows import Episodes
from rlkit.world.forecasters.arima import ARIMA, sarima
from rlkit.world.forecasters.autoregression import ar
from rlkit.world.scores.scores import score


def moving_average(episodes=20, steps=150, seed=0, jump=100.0):
    """ARIMA(1, 1, 1) in each episode, which begins anywhere."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(episodes, steps + 2))
    change = np.zeros((episodes, steps + 1))
    for t in range(steps):
        change[:, t + 1] = 0.6 * change[:, t] + noise[:, t + 1] + 0.4 * noise[:, t]
    level = np.cumsum(change, 1) + jump * rng.normal(size=(episodes, 1))
    return Episodes(level.reshape(-1, 1), np.zeros((episodes * steps, 0)), [steps] * episodes)


def seasons(steps=600, period=12, seed=0):
    rng = np.random.default_rng(seed)
    time = np.arange(steps + 1)
    shape = np.tile(rng.normal(size=period), steps // period + 1)[: steps + 1]
    series = 5 * shape + 0.01 * time + rng.normal(size=steps + 1) * 0.3
    return Episodes(series[:, None], np.zeros((steps, 0)), [steps])


def given(windows, samples, seed=0):
    return windows, samples, np.random.default_rng(seed)


def test_coefficients_are_found_across_episodes_that_begin_anywhere():
    model = ARIMA((1, 1, 1)).fit(moving_average())
    lag, average, variance = model._parameters[0]
    np.testing.assert_allclose([lag, average], [0.6, 0.4], atol=0.08)
    np.testing.assert_allclose(variance * model._unit[0] ** 2, 1.0, atol=0.1)
    assert model.converged == [True]


@pytest.mark.parametrize(
    "model", [ARIMA((2, 0, 1)), ARIMA((1, 1, 1)), sarima(4, (1, 0, 1), (1, 1, 0))]
)
def test_the_batch_forecasts_as_statsmodels_does_one_by_one(model):
    data = moving_average(episodes=6, jump=1.0)
    windows = data.forecast_windows(30, 6, 3)
    made = model.fit(data).forecast(*given(windows, 20_000))
    seasonal = (*model.seasonal, model.period) if model.period else (0, 0, 0, 0)
    for b in range(3):
        seen = (windows.context_observation[b, :, 0].astype(float) - model._mean) / model._unit
        law = SARIMAX(seen, order=model.order, seasonal_order=seasonal, trend="n")
        wanted = law.filter(model._parameters[0]).get_forecast(6)
        deviation = np.sqrt(wanted.var_pred_mean) * model._unit
        off = made[:, b, :, 0].mean(0) - (wanted.predicted_mean * model._unit + model._mean)
        assert np.abs(off / deviation).max() < 0.03
        np.testing.assert_allclose(made[:, b, :, 0].std(0), deviation, rtol=0.03)


@pytest.mark.slow
def test_seasonal_models_reduce_errors_of_seasonal_data():
    data, unseen = seasons().split_time(0.3)
    windows = unseen.forecast_windows(40, 12, 60)
    rng = np.random.default_rng(0)
    plain, seasonal = (
        score(
            model.fit(data).forecast(*given(windows, 50)),
            windows.future_observation,
            rng,
        )
        for model in (ar(3), sarima(12))
    )
    assert seasonal.skill(plain).min() > 0.8


def test_the_last_rows_are_used_and_no_more():
    data = moving_average(episodes=4, steps=100)  # of 101 observations each
    last = Episodes(data.observation[-150:].copy(), np.zeros((148, 0)), [48, 100])
    data.observation[:-150] = np.nan
    whole, part = (ARIMA((1, 1, 0), rows=150).fit(one) for one in (data, last))
    np.testing.assert_allclose(whole._parameters[0], part._parameters[0])


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="needs 18 observations after differencing, got 14"):
        ARIMA((2, 1, 1)).fit(moving_average(episodes=1, steps=14))


def test_a_search_without_a_maximum_warns(monkeypatch):
    monkeypatch.setattr(ARIMA, "_fit_one", lambda self, series: (np.array([0.1, 1.0]), False))
    with pytest.warns(RuntimeWarning, match=r"dimensions \[0\] found no maximum"):
        assert ARIMA((1, 0, 0)).fit(moving_average()).converged == [False]


def test_the_fit_itself_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ARIMA((2, 0, 2), rows=300).fit(moving_average())


@pytest.mark.parametrize(
    "options",
    [{"order": (1, -1, 0)}, {"seasonal": (1, 0, 0)}, {"seasonal": (0, 1, 0), "period": 1}],
)
def test_orders_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match="seasons need a period of 2 steps or more"):
        ARIMA(**options)


def test_without_statsmodels_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels.tsa.statespace.sarimax", None)
    with pytest.raises(ImportError, match=r"pip install 'rlkit-suite\[forecast\]'"):
        ARIMA().fit(moving_average())
