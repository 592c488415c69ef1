import numpy as np
import pytest
from scipy import integrate

from rlkit.world.data.synthetic import DRIVERS, TARGETS, change, driven_tanks
from rlkit.world.forecasters.autoregression import arx


def test_the_seed_decides_the_series():
    one, two, other = (driven_tanks(np.random.default_rng(s), steps=50) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.observation, two.observation)
    assert not np.array_equal(one.observation, other.observation)


def test_columns_are_as_named():
    data = driven_tanks(np.random.default_rng(0), episodes=3, steps=70, distractors=2)
    assert data.observation.shape == (3 * 71, len(TARGETS))
    assert data.action.shape == (3 * 70, len(DRIVERS) + 2)
    assert data.spans[:, 2].tolist() == [70, 70, 70]


def test_everything_stays_within_what_tanks_do():
    data = driven_tanks(np.random.default_rng(0), episodes=20, steps=500)
    level, temperature = data.observation[:, :2], data.observation[:, 2]
    assert 5 < level.min() < level.max() < 105  # cm
    assert 14 < temperature.min() < temperature.max() < 45
    assert 4.8 <= data.action[:, 0].min() < data.action[:, 0].max() <= 15.6  # L/min
    assert 0 <= data.action[:, 1].min() < data.action[:, 1].max() <= 8  # kW


def test_without_noise_it_obeys_the_equations():
    data = driven_tanks(np.random.default_rng(0), steps=40, noise=0.0)
    state = data.observation[0] / (100, 100, 1)
    for step, (inflow, power) in enumerate(data.action):
        drivers = np.array([inflow / 60_000]), np.array([power * 1000])
        state = integrate.solve_ivp(
            lambda t, y, drivers=drivers: change(y[None], *drivers)[0],
            (0, 10),
            state,
            rtol=1e-9,
            atol=1e-9,
        ).y[:, -1]
        np.testing.assert_allclose(data.observation[step + 1], state * (100, 100, 1), rtol=1e-5)


def test_an_episode_starts_where_its_drivers_lead():
    data = driven_tanks(np.random.default_rng(0), episodes=8, steps=9, noise=0.0)
    first = data.observation.reshape(8, 10, 3)
    np.testing.assert_allclose(first[:, 9], first[:, 0], rtol=1e-9)  # before the first switch


def test_drivers_drive_and_distractors_do_not():
    data = driven_tanks(np.random.default_rng(0), episodes=30, steps=300, distractors=2)
    weights = arx(1).fit(data)._dynamics.actions[0] * data.action.std(0)[:, None]
    strength = np.abs(weights / data.observation.std(0)).max(1)
    assert strength[:2].min() > 10 * strength[2:].max()


def test_noise_has_its_deviation():
    loud, quiet = (driven_tanks(np.random.default_rng(0), steps=50, noise=n) for n in (1.0, 0.0))
    np.testing.assert_array_equal(loud.action, quiet.action)
    off = (loud.observation - quiet.observation)[:3].std()
    assert 0.02 < off < 1


@pytest.mark.parametrize(
    "options", [{"episodes": 0}, {"steps": 0}, {"distractors": -1}, {"noise": -1}]
)
def test_arguments_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="episodes and steps must be >= 1"):
        driven_tanks(np.random.default_rng(0), **options)
