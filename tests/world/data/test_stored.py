import numpy as np
import pytest
from gymnasium import spaces

from rlkit.replay.storage import EpisodeStorage
from rlkit.world import stored_episodes

SPACE = spaces.Box(-np.inf, np.inf, (2,), np.float32)
GOALS = spaces.Dict(dict.fromkeys(("observation", "achieved_goal", "desired_goal"), SPACE))
ACTIONS = spaces.Box(-1.0, 1.0, (1,), np.float32)


def generated(storage, steps, seed=0, discrete=False):
    """Fills a storage at random; every step as `(env, x, action, reward, terminated, x')`."""
    rng = np.random.default_rng(seed)
    n = storage.num_envs
    x, log = rng.normal(size=(n, 2)).astype(np.float32), []
    for _ in range(steps):
        action = rng.integers(0, 3, n) if discrete else rng.uniform(-1, 1, (n, 1))
        after = rng.normal(size=(n, 2)).astype(np.float32)
        reward = rng.normal(size=n).astype(np.float32)
        terminated, truncated = rng.random((2, n)) < 0.1
        storage.add(x, action, reward, terminated, truncated & ~terminated, after)
        log += [
            (e, x[e], np.float32(action[e]), reward[e], terminated[e], after[e]) for e in range(n)
        ]
        fresh = rng.normal(size=(n, 2)).astype(np.float32)
        x = np.where((terminated | truncated)[:, None], fresh, after)
    return log


def steps_of(episodes):
    """Every step as `(x, action, reward, terminated, x')`, in order."""
    for first, record, length in episodes.spans:
        for t in range(length):
            yield (
                episodes.observation[first + t],
                episodes.action[record + t],
                episodes.outcomes["reward"][record + t],
                episodes.outcomes["terminated"][record + t],
                episodes.observation[first + t + 1],
            )


def assert_equal_steps(found, log):
    assert len(found) == len(log)
    for one, (_, *other) in zip(found, log, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(np.ravel(a), np.ravel(b))


@pytest.mark.parametrize("num_envs", [1, 3])
def test_every_step_comes_back_once_and_in_order(num_envs):
    storage = EpisodeStorage(SPACE, ACTIONS, 1000, num_envs)
    log = generated(storage, 60)
    in_order = sorted(log, key=lambda step: step[0])
    assert_equal_steps(list(steps_of(stored_episodes(storage, SPACE))), in_order)


def test_what_a_ring_has_overwritten_is_not_read():
    storage = EpisodeStorage(SPACE, ACTIONS, 40)
    log = generated(storage, 200)
    found = list(steps_of(stored_episodes(storage, SPACE)))
    assert len(found) == len(storage) > 20
    assert_equal_steps(found, log[-len(found) :])


def test_only_what_is_new():
    storage = EpisodeStorage(SPACE, ACTIONS, 500, 2)
    generated(storage, 50)
    before = storage.cursor.copy()
    assert stored_episodes(storage, SPACE, since=before) is None
    log = generated(storage, 7, seed=1)
    # The stored observation of a running episode is replaced by the first one of the log.
    new = stored_episodes(storage, SPACE, since=before)
    assert_equal_steps(list(steps_of(new)), sorted(log, key=lambda step: step[0]))


def test_an_empty_storage_has_no_episodes():
    assert stored_episodes(EpisodeStorage(SPACE, ACTIONS, 10), SPACE) is None


def test_cut_episodes_end_where_they_were_cut():
    storage = EpisodeStorage(SPACE, ACTIONS, 100)
    zeros = np.zeros(1, np.bool_)
    for i in range(5):
        x = np.full((1, 2), i, np.float32)
        storage.add(x, np.zeros((1, 1)), np.zeros(1), zeros, zeros, x + 1)
        if i == 2:
            storage.cut()
    assert stored_episodes(storage, SPACE).spans[:, 2].tolist() == [3, 2]


def test_choices_become_one_hot():
    storage = EpisodeStorage(SPACE, spaces.Discrete(3), 100)
    log = generated(storage, 20, discrete=True)
    action = stored_episodes(storage, SPACE, choices=3).action
    np.testing.assert_array_equal(action.argmax(1), [step[2] for step in log])
    np.testing.assert_array_equal(action.sum(1), 1)


def test_columns_are_those_of_the_observation_layout():
    storage = EpisodeStorage(GOALS, ACTIONS, 100)
    part = {"observation": 1.0, "achieved_goal": 2.0, "desired_goal": 3.0}
    seen = {key: np.full((1, 2), value, np.float32) for key, value in part.items()}
    no = np.zeros(1, np.bool_)
    storage.add(seen, np.zeros((1, 1)), np.zeros(1), no, no, seen)
    found = stored_episodes(storage, GOALS).observation
    np.testing.assert_array_equal(found, [[2, 2, 1, 1]] * 2)
