from dataclasses import replace

import numpy as np
import pytest

from rlkit.world.data.synthetic import driven_tanks
from rlkit.world.data.windows import Episodes
from rlkit.world.forecasters.autoregression import Autoregression, ar, arx
from rlkit.world.forecasters.baselines import persistence
from rlkit.world.scores.scores import score

# o' = o A1 + o_before A2 + u B + b + noise
A1 = np.array([[1.2, 0.2], [-0.1, 0.9]])
A2 = np.array([[-0.4, 0.0], [0.1, -0.2]])
B = np.array([[0.5, -1.0]])
OFFSET = np.array([1.0, 0.3])
NOISE = np.array([[0.3, 0.1], [0.0, 0.2]])


def linear(episodes=40, steps=100, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(episodes):
        action = rng.normal(size=(steps, 1))
        rows = [rng.normal(size=2) * 3, rng.normal(size=2) * 3]
        for u in action[1:]:
            step = rows[-1] @ A1 + rows[-2] @ A2 + u @ B + OFFSET
            rows.append(step + noise * rng.normal(size=2) @ NOISE)
        made.append({"observation": np.array(rows), "action": action})
    return Episodes.of(made)


def given(windows, samples, seed=0):
    return windows, samples, np.random.default_rng(seed)


def test_dynamics_without_noise_are_found_exactly():
    data = linear(noise=0.0)
    windows = linear(seed=1, noise=0.0).forecast_windows(3, 30, 50)
    made = arx(2).fit(data).forecast(*given(windows, 2))
    np.testing.assert_allclose(made[0], windows.future_observation, atol=1e-3)


@pytest.mark.parametrize("order", [2, 4])
def test_coefficients_equal_those_of_plain_least_squares(order):
    data = linear(episodes=5, steps=60)
    rows, wanted = [], []
    for first, record, steps in data.spans:
        seen, done = data.observation[first:], data.action[record:]
        for t in range(order - 1, steps):
            past = [seen[t - lag] for lag in range(order)] + [done[t - lag] for lag in range(order)]
            rows.append(np.concatenate([[1.0], *past]))
            wanted.append(seen[t + 1])
    weights = np.linalg.lstsq(np.array(rows), np.array(wanted))[0]
    windows = data.forecast_windows(order - 1, 1, 80)
    lags = slice(None, None, -1)
    columns = [
        np.ones((80, 1)),
        windows.context_observation[:, lags].reshape(80, -1),
        np.concatenate([windows.context_action, windows.future_action], 1)[:, lags].reshape(80, -1),
    ]
    model = arx(order).fit(data)
    made = model._dynamics.expected(
        windows.context_observation.astype(float),
        np.concatenate([windows.context_action, windows.future_action], 1).astype(float),
        1,
    )
    np.testing.assert_allclose(made[:, 0], np.concatenate(columns, 1) @ weights, atol=1e-4)


def test_chunks_do_not_change_the_fit(monkeypatch):
    data = linear(episodes=9)
    whole = arx((1, 2)).fit(data)
    monkeypatch.setattr("rlkit.world.forecasters.autoregression.CHUNK", 37)
    parts = arx((1, 2)).fit(data)
    assert whole.chosen == parts.chosen == 2
    np.testing.assert_allclose(parts._dynamics.level, whole._dynamics.level, atol=1e-9)
    np.testing.assert_allclose(
        parts._dynamics.noise.T @ parts._dynamics.noise,
        whole._dynamics.noise.T @ whole._dynamics.noise,
    )


@pytest.mark.slow
def test_samples_have_the_moments_of_the_true_dynamics():
    data = linear(episodes=200)
    windows = linear(episodes=1, seed=3).forecast_windows(3, 10, 2)
    made = arx(2).fit(data).forecast(*given(windows, 20_000))
    rng = np.random.default_rng(5)
    for b in range(2):
        before, now = (
            np.repeat(windows.context_observation[b, -k][None], 20_000, 0) for k in (2, 1)
        )
        for h in range(10):
            mean = now @ A1 + before @ A2 + windows.future_action[b, h] @ B + OFFSET
            before, now = now, mean + rng.normal(size=now.shape) @ NOISE
            np.testing.assert_allclose(made[:, b, h].mean(0), now.mean(0), atol=0.06)
            np.testing.assert_allclose(np.cov(made[:, b, h].T), np.cov(now.T), rtol=0.1, atol=0.02)


def test_the_held_out_part_chooses_the_order():
    assert arx((1, 2, 6)).fit(linear()).chosen == 2
    assert arx((1, 2, 6)).fit(linear(episodes=1, steps=3000)).chosen == 2
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=(20, 101, 1)), 1).reshape(-1, 1)
    assert ar((1, 4)).fit(Episodes(walk, np.zeros((2000, 0)), [100] * 20)).chosen == 1


def test_ar_neither_sees_actions_nor_other_dimensions():
    data = linear()
    windows = linear(seed=1).forecast_windows(4, 6, 20)
    model = ar(3).fit(data)
    other = windows.context_observation.copy()
    other[..., 1] += 9
    actions = {name: -getattr(windows, name) for name in ("context_action", "future_action")}
    one, two = (
        model.forecast(*given(replace(windows, context_observation=x, **actions), 10))
        for x in (windows.context_observation, other)
    )
    np.testing.assert_allclose(one, model.forecast(*given(windows, 10)))
    np.testing.assert_allclose(one[..., 0], two[..., 0])


@pytest.mark.slow
def test_drivers_reduce_errors():
    data = driven_tanks(np.random.default_rng(0), episodes=10, steps=300)
    windows = driven_tanks(np.random.default_rng(1), episodes=5, steps=300).forecast_windows(
        7, 15, 200
    )
    found = {
        name: score(
            model.fit(data).forecast(*given(windows, 40)),
            windows.future_observation,
            np.random.default_rng(0),
            steps=(1, 15),
            scale=data.observation.std(0),
        )
        for name, model in {"none": persistence(15), "ar": ar(), "arx": arx()}.items()
    }
    assert (found["ar"].skill(found["none"]) > 0.2).all()
    assert (found["arx"].skill(found["ar"])[1] > 0.5).all()


def test_smooth_movements_keep_their_digits():
    """Neighbouring observations differ by a ten-thousandth: products of columns would lose it."""
    time = np.arange(4001) * 1e-3
    wave = np.stack([np.sin(time), np.cos(1.7 * time)], 1) + 100
    data = Episodes(wave, np.zeros((4000, 0)), [4000])
    model = arx(4).fit(data)
    first = data.forecast_windows(3, 50, 1)
    future = {"context_observation": wave[None, 500:504], "context_action": np.zeros((1, 3, 0))}
    made = model.forecast(*given(replace(first, **future), 2))
    still = np.abs(wave[504:554] - wave[503]).max()
    assert np.abs(made[0, 0] - wave[504:554]).max() < 0.01 * still


def test_identical_columns_share_their_weight():
    data = linear()
    twice = Episodes(np.tile(data.observation, 2), np.tile(data.action, 2), data.spans[:, 2])
    made = arx(2).fit(twice)._dynamics
    single = arx(2).fit(data)._dynamics
    np.testing.assert_allclose(made.level[:2] + made.level[2:], np.tile(single.level, 2), atol=1e-4)


def test_short_episodes_are_passed_over_until_none_is_left():
    rng = np.random.default_rng(0)
    lengths = [3, 60, 2, 60, 1]
    observation = rng.normal(size=(sum(lengths) + 5, 1))
    data = Episodes(observation, rng.normal(size=(sum(lengths), 1)), lengths)
    assert arx(8).fit(data).context == 7
    with pytest.raises(ValueError, match=r"order 61 needs episodes of 61 steps or more, .* 60"):
        arx(61).fit(data)
    with pytest.raises(ValueError, match=r"order 30 has 61 coefficients .* 31 records"):
        arx(30).fit(data.split_time(0.5)[0])


@pytest.mark.parametrize("order", [0, (), (0, 2)])
def test_orders_are_positive(order):
    with pytest.raises(ValueError, match="order must be >= 1"):
        Autoregression(order)
