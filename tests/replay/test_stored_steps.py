"""What is stored, as the arrays that users of SB3's buffers read."""

import numpy as np
import pytest
from gymnasium import spaces

from rlkit.replay import ReplayBuffer

VECTOR = spaces.Box(-np.inf, np.inf, (2,), np.float32)
GOALS = spaces.Dict(dict.fromkeys(("observation", "achieved_goal", "desired_goal"), VECTOR))


def fill(buffer, steps, envs, length, is_dict=False):
    """Numbers the observations of each environment; episodes of `length` steps are cut off."""

    def observe(number):
        rows = np.stack([number + 1000 * np.arange(envs)] * 2, axis=1).astype(np.float32)
        if not is_dict:
            return rows
        goal = np.full_like(rows, number // (length + 1))
        return {"observation": rows, "achieved_goal": rows + 0.5, "desired_goal": goal}

    expected, number = [], 0
    for step in range(steps):
        last = step % length == length - 1
        rewards = np.arange(envs) + step
        ends = np.full(envs, last and step % 2 == 0), np.full(envs, last and step % 2 == 1)
        action = np.full((envs, 1), step, np.float32)
        buffer.add(observe(number), action, rewards, *ends, observe(number + 1))
        expected.append((number, step, rewards, *ends))
        number += 2 if last else 1
    return expected


@pytest.mark.parametrize(("capacity", "kept"), [(200, 20), (24, None)])
def test_arrays_hold_every_step_once_the_oldest_first(capacity, kept):
    buffer = ReplayBuffer(VECTOR, spaces.Box(-1, 1, (1,)), capacity, num_envs=2, seed=0)
    expected = fill(buffer, 20, 2, 5)
    count = buffer.pos
    assert count == len(buffer) // 2 == buffer.size()
    assert kept in (count, None)
    assert 5 < count <= 20
    numbers, steps, rewards, terminated, truncated = map(
        np.array, zip(*expected[-count:], strict=True)
    )
    assert buffer.observations.shape == (count, 2, 2)
    np.testing.assert_array_equal(buffer.observations[:, 0, 0], numbers)
    np.testing.assert_array_equal(buffer.observations[:, 1, 0], numbers + 1000)
    np.testing.assert_array_equal(buffer.next_observations[:, 0, 1], numbers + 1)
    np.testing.assert_array_equal(buffer.actions[:, 1, 0], steps)
    np.testing.assert_array_equal(buffer.rewards, rewards)
    np.testing.assert_array_equal(buffer.dones, terminated | truncated)
    np.testing.assert_array_equal(buffer.timeouts, truncated)
    assert buffer.full is False


def test_dicts_hold_their_goals():
    buffer = ReplayBuffer(
        GOALS, spaces.Box(-1, 1, (1,)), 100, num_envs=2, seed=0, hindsight="original"
    )
    fill(buffer, 10, 2, 5, is_dict=True)
    found = buffer.observations
    assert found.keys() == GOALS.spaces.keys()
    np.testing.assert_array_equal(found["achieved_goal"], found["observation"] + 0.5)
    np.testing.assert_array_equal(found["desired_goal"][:, 0, 0], np.repeat([0, 1], 5))


def test_writing_is_refused():
    buffer = ReplayBuffer(VECTOR, spaces.Discrete(3), 100, seed=0)
    assert buffer.observations.shape == (0, 1, 2)
    buffer.add(
        np.zeros((1, 2)), np.zeros(1, int), np.ones(1), *np.zeros((2, 1), bool), np.ones((1, 2))
    )
    assert buffer.actions.shape == (1, 1, 1)
    with pytest.raises(ValueError, match="read-only"):
        buffer.observations[0] = 1


@pytest.mark.parametrize("is_dict", [False, True])
def test_steps_of_another_buffer_are_added_as_sb3s_add_takes_them(is_dict):
    space = GOALS if is_dict else VECTOR
    one, other = (
        ReplayBuffer(space, spaces.Box(-1, 1, (1,)), 200, num_envs=2, hindsight="original")
        for _ in range(2)
    )
    fill(one, 23, 2, 5, is_dict)
    infos = [[{"TimeLimit.truncated": cut} for cut in step[:, None]] for step in one.timeouts]
    parts = one.next_observations, one.actions, one.rewards, one.dones
    other.extend(one.observations, *parts, infos)
    assert other.pos == 23
    np.testing.assert_equal(other.observations, one.observations)
    np.testing.assert_equal(other.next_observations, one.next_observations)
    for name in ("actions", "rewards", "dones", "timeouts"):
        np.testing.assert_array_equal(getattr(other, name), getattr(one, name))
    assert not other.storage.begins.any()  # the last episode runs on, until something else comes
    other.extend(one.observations, *parts, infos)
    assert other.timeouts[22].all()
    np.testing.assert_array_equal(other.rewards[23:], one.rewards)
