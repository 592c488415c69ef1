from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import World

from rlkit.replay.batch import sum_steps


def naive_sum(batch, stop, row, start, steps, gamma):
    total, discount, end = 0.0, 1.0, start
    terminated = False
    for i in range(start, start + steps):
        if not batch.mask[row, i]:
            break
        total += discount * batch.reward[row, i]
        discount *= gamma
        end = i + 1
        if batch.terminated[row, i]:
            discount, terminated = 0.0, True
        if batch.terminated[row, i] or batch.truncated[row, i] or stop[row, i]:
            break
    return total, discount, end, terminated


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    records=st.integers(1, 4),
    steps=st.integers(1, 5),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    stop_chance=st.sampled_from([0.0, 0.3, 1.0]),
    kind=st.sampled_from(["plain", "box"]),
)
def test_sums_equal_a_loop(seed, records, steps, gamma, stop_chance, kind):
    world = World(kind, seed=seed, end=0.3)
    world.play(25)
    rng = np.random.default_rng(seed)
    env, position = world.replay.storage.sample_steps(24, rng)
    batch = world.replay.storage.window(env, position, records + steps - 1)
    stop = rng.random(batch.mask.shape) < stop_chance
    summed = sum_steps(batch, gamma, steps, stop)
    assert summed.mask.shape == summed.reward.shape == summed.discount.shape == (24, records)
    assert summed.is_first.shape == (24, records + steps)
    for row, t in zip(*np.nonzero(summed.mask), strict=True):
        total, discount, end, terminated = naive_sum(batch, stop, row, t, steps, gamma)
        assert summed.reward[row, t] == pytest.approx(total, rel=1e-6, abs=1e-6)
        assert summed.discount[row, t] == pytest.approx(discount, rel=1e-6)
        assert summed.bootstrap[row, t] == end
        assert summed.terminated[row, t] == terminated
    assert not summed.terminated[~summed.mask].any()
    assert not summed.reward[~summed.mask].any() or steps == 1
    assert (summed.bootstrap <= records + steps - 1).all()


def test_no_stop_is_a_stop_nowhere():
    world = World("plain", seed=4)
    world.play(40)
    env, position = world.replay.storage.sample_steps(64, np.random.default_rng(0))
    batch = world.replay.storage.window(env, position, 5)
    one = sum_steps(batch, 0.9, 3)
    two = sum_steps(batch, 0.9, 3, np.zeros(batch.mask.shape, bool))
    for name in ("reward", "discount", "bootstrap", "terminated"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_truncation_bootstraps_and_termination_does_not():
    world = World("plain", num_envs=1, capacity=100, end=0.5, seed=2)
    world.play(100)
    env, position = world.replay.storage.sample_steps(300, np.random.default_rng(0))
    batch = world.replay.storage.window(env, position, 1)
    summed = sum_steps(batch, 0.9, 1)
    assert batch.truncated.sum() > 20
    assert batch.terminated.sum() > 20
    np.testing.assert_array_equal(summed.discount[batch.truncated], np.float32(0.9))
    np.testing.assert_array_equal(summed.discount[batch.terminated], 0)
