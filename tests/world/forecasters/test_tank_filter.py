from dataclasses import replace

import numpy as np
import pytest

from rlkit.world.data.synthetic import driven_tanks
from rlkit.world.forecasters.autoregression import arx
from rlkit.world.forecasters.tank_filter import TankFilter, drawn_by
from rlkit.world.scores.scores import score


@pytest.fixture(scope="module")
def windows():
    return driven_tanks(np.random.default_rng(1), episodes=40, steps=100).forecast_windows(
        15, 15, 120
    )


def forecast_by(forecaster, windows, seed=0):
    return forecaster.forecast(windows, 60, np.random.default_rng(seed))


@pytest.mark.slow
def test_the_true_dynamics_beat_arx_and_are_calibrated(windows):
    data = driven_tanks(np.random.default_rng(0), episodes=20, steps=500)
    filtered, fitted = TankFilter(particles=300).fit(data), arx().fit(data)
    ours, theirs = (forecast_by(one, windows) for one in (filtered, fitted))
    truth, unit = windows.future_observation, data.observation.std(0)
    ours, theirs = (
        score(samples, truth, np.random.default_rng(0), steps=(1, 15), scale=unit, levels=(0.9,))
        for samples in (ours, theirs)
    )
    assert (ours.mse.mean(1) < (0.9, 0.4) * theirs.mse.mean(1)).all()
    assert (abs(ours.coverage[0.9] - 0.9) < 0.07).all()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_samples(windows):
    one, two, other = (forecast_by(TankFilter(particles=50), windows, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_without_a_past_it_starts_from_the_present(windows):
    now = windows.context_observation[:, -1:]
    short = replace(windows, context_observation=now, context_action=windows.context_action[:, :0])
    made = TankFilter(context=0, particles=20).forecast(short, 30, np.random.default_rng(0))
    assert made.shape == (30, len(now), 15, 3)
    assert abs(made.mean(0)[:, 0] - now[:, 0]).mean() < 1


def test_draws_are_in_proportion_to_weights():
    rng = np.random.default_rng(0)
    weights = rng.random((7, 5)) ** 4
    weights[2] = (0, 0, 1, 0, 0)
    chosen = drawn_by(weights, 4_000, rng).reshape(7, 4_000)
    assert (chosen // 5 == np.arange(7)[:, None]).all()
    shares = np.stack([np.bincount(row % 5, minlength=5) / 4_000 for row in chosen])
    np.testing.assert_allclose(shares, weights / weights.sum(1, keepdims=True), atol=1e-3)


@pytest.mark.parametrize("wrong", [{"context": -1}, {"particles": 0}, {"noise": 0.0}])
def test_what_is_out_of_range_is_named(wrong):
    with pytest.raises(ValueError, match="must be"):
        TankFilter(**wrong)


def test_other_data_are_refused():
    data = driven_tanks(np.random.default_rng(0), steps=30)
    data.action = data.action[:, :1]
    with pytest.raises(ValueError, match="3 columns and 2 drivers, these data 3 and 1"):
        TankFilter().fit(data)
