from dataclasses import replace

import numpy as np
import pytest

from rlkit.world.data.synthetic import driven_tanks
from rlkit.world.data.windows import Episodes
from rlkit.world.forecasters.arima import ARIMA
from rlkit.world.forecasters.autoregression import ar, arx
from rlkit.world.forecasters.baselines import Extrapolation, linear_trend, persistence
from rlkit.world.scores.calibration import coverage

MAKERS = {
    "persistence": lambda: persistence(horizon=8),
    "trend": lambda: linear_trend(horizon=8, points=3),
    "ar": lambda: ar((1, 3)),
    "arx": lambda: arx((1, 3)),
    "arima": lambda: ARIMA((1, 1, 0), rows=400),
}


def wander(episodes=6, steps=120, width=2, seed=0, drift=0.0):
    """Random walks, which nothing forecasts better than their present value."""
    rng = np.random.default_rng(seed)
    made = [
        {
            "observation": np.cumsum(rng.normal(drift, 1, (steps + 1, width)), 0),
            "action": rng.normal(size=(steps, 1)),
        }
        for _ in range(episodes)
    ]
    return Episodes.of(made)


def given(windows, samples=50, seed=0):
    return windows, samples, np.random.default_rng(seed)


@pytest.fixture(scope="module")
def tanks():
    return driven_tanks(np.random.default_rng(0), episodes=6, steps=150)


@pytest.fixture(params=MAKERS)
def fitted(request, tanks):
    return MAKERS[request.param]().fit(tanks)


def test_samples_have_their_shape_and_the_seed_decides_them(fitted, tanks):
    windows = tanks.forecast_windows(6, 8, 10)
    one, two, other = (fitted.forecast(*given(windows, 4, seed)) for seed in (0, 0, 1))
    assert one.shape == (4, 10, 8, 3)
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_windows_are_independent(fitted, tanks):
    windows = tanks.forecast_windows(6, 8, 10)
    swapped = windows.context_observation.copy()
    swapped[1:] += 5
    whole = fitted.forecast(*given(windows))
    changed = fitted.forecast(*given(replace(windows, context_observation=swapped)))
    np.testing.assert_allclose(changed[:, 0], whole[:, 0])
    assert np.abs(changed[:, 1:] - whole[:, 1:]).min() > 0


def test_steps_do_not_depend_on_later_actions(fitted, tanks):
    windows = tanks.forecast_windows(6, 8, 10)
    later = windows.future_action.copy()
    later[:, 5:] += 3
    whole = fitted.forecast(*given(windows))
    changed = fitted.forecast(*given(replace(windows, future_action=later)))
    np.testing.assert_allclose(changed[:, :, :5], whole[:, :, :5])


def test_a_shorter_horizon_is_the_beginning_of_a_longer_one(fitted, tanks):
    windows = tanks.forecast_windows(6, 8, 400)
    short = fitted.forecast(*given(replace(windows, future_action=windows.future_action[:, :3])))
    whole = fitted.forecast(*given(windows))[:, :, :3]
    spread = whole.std(0) / np.sqrt(50)
    assert np.median(np.abs(short.mean(0) - whole.mean(0)) / spread) < 2


def test_a_constant_dimension_stays_what_it_is(fitted):
    data = wander(width=2)
    data.observation[:, 1] = 7.0
    model = type(fitted)(**_settings(fitted)).fit(data)
    made = model.forecast(*given(data.forecast_windows(6, 8, 10)))
    np.testing.assert_allclose(made[..., 1], 7.0, atol=1e-5)
    assert np.ptp(made[..., 0]) > 1


def test_a_series_without_drivers_is_forecast(fitted):
    data = wander()
    alone = Episodes(data.observation, np.zeros((data.steps, 0)), data.spans[:, 2])
    model = type(fitted)(**_settings(fitted)).fit(alone)
    made = model.forecast(*given(alone.forecast_windows(6, 8, 10)))
    assert made.shape == (50, 10, 8, 2)
    assert np.isfinite(made).all()


def test_intervals_cover_held_out_random_walks(fitted):
    model = type(fitted)(**_settings(fitted)).fit(wander(episodes=20))
    windows = wander(episodes=20, seed=1).forecast_windows(6, 8, 600)
    share = coverage(model.forecast(*given(windows, 99)), windows.future_observation, [0.9])[0]
    np.testing.assert_allclose(share.mean(1), 0.9, atol=0.06)


def test_what_does_not_fit_is_refused(fitted, tanks):
    windows = tanks.forecast_windows(6, 8, 10)
    past, actions = windows.context_observation, windows.context_action
    for change, message in [
        ({"context_observation": past[..., :2]}, "must have shapes"),
        ({"context_action": actions[:, 1:]}, "must have shapes"),
        ({"context_observation": past[0]}, r"must be \(B, steps, columns\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            fitted.forecast(*given(replace(windows, **change)))
    past[2, 3, 1] = np.nan
    with pytest.raises(ValueError, match=r"context observations are not finite at \[2 3 1\]"):
        fitted.forecast(*given(windows))
    with pytest.raises(ValueError, match="fit the baseline"):
        type(fitted)(**_settings(fitted)).forecast(*given(windows))


def test_missing_numbers_are_refused(fitted):
    data = wander()
    data.observation[-20, 1] = np.nan
    with pytest.raises(ValueError, match="must be finite, found nan"):
        type(fitted)(**_settings(fitted)).fit(data)


def _settings(model):
    """The settings of a baseline."""
    return {
        name: getattr(model, name)
        for name, field in model.__dataclass_fields__.items()
        if field.init
    }


def test_persistence_is_the_present_with_errors_of_training():
    data = wander(episodes=30, width=2, drift=1.0)
    model = persistence(horizon=9).fit(data)
    windows = data.forecast_windows(0, 9, 50)
    made = model.forecast(*given(windows, 4000))
    off = made - windows.context_observation[:, -1:]
    wanted = np.sqrt(np.arange(1, 10))
    # The mean error, a drift here, is taken off: the centre is the present observation.
    assert (np.abs(off.mean((0, 1))) < 0.1 * wanted[:, None]).all()
    np.testing.assert_allclose(off.std((0, 1)), np.repeat(wanted[:, None], 2, 1), rtol=0.15)
    # A sequence of errors is continuous.
    assert np.corrcoef(off[..., 7, 0].ravel(), off[..., 8, 0].ravel())[0, 1] > 0.85


@pytest.mark.parametrize("points", [2, 5])
def test_a_trend_follows_a_line_exactly(points):
    line = np.arange(40.0)[:, None] * [0.5, -3.0] + [1.0, 2.0]
    data = Episodes(line, np.zeros((39, 0)), [39])
    model = linear_trend(horizon=10, points=points).fit(data)
    windows = data.forecast_windows(points - 1, 10)
    made = model.forecast(*given(windows, 3))
    np.testing.assert_allclose(
        made, np.broadcast_to(windows.future_observation, made.shape), rtol=1e-5
    )


def test_the_slope_of_a_trend_is_that_of_least_squares():
    data = wander()
    windows = data.forecast_windows(4, 3, 20)
    model = linear_trend(horizon=3, points=5).fit(data)
    slope = np.polyfit(np.arange(5), windows.context_observation[:, :, 0].T, 1)[0]
    made = model.forecast(*given(windows, 20_000))[..., 0].mean(0)
    line = windows.context_observation[:, -1:, 0] + slope[:, None] * [1, 2, 3]
    np.testing.assert_allclose(made, line, atol=0.15)


def test_context_that_is_too_short_is_refused(tanks):
    windows = tanks.forecast_windows(2, 5, 3)
    for model in (linear_trend(5, points=4), arx(4), ARIMA((3, 1, 0))):
        with pytest.raises(ValueError, match=r"needs [34] steps of context, got 2"):
            model.fit(tanks).forecast(*given(windows))


def test_a_horizon_beyond_the_data_or_the_fit_is_refused(tanks):
    with pytest.raises(ValueError, match="no episode has 151 steps"):
        persistence(horizon=151).fit(tanks)
    with pytest.raises(ValueError, match="horizon=4, the windows have 8 steps"):
        persistence(horizon=4).fit(tanks).forecast(*given(tanks.forecast_windows(6, 8, 10)))


@pytest.mark.parametrize("name", ["points", "horizon", "courses"])
def test_counts_are_positive(name):
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        Extrapolation(**{name: 0})
