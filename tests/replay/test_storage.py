from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from batches import any_world, step_windows
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import KINDS, World
from scipy.stats import chisquare

from rlkit.goals import GOAL_KEYS
from rlkit.replay import EpisodeStorage

worlds = any_world(
    end=st.sampled_from([0.0, 0.05, 0.3, 1.0]), new_goal=st.sampled_from([0.0, 0.2, 1.0])
)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(worlds, st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 6))
def test_windows_equal_the_naive_ones(world, plays, length):
    for steps in plays:
        world.play(steps)
        batch = step_windows(world, 48, length)
        stored = set(world.stored())
        for row, origin in enumerate(world.origins(batch)):
            assert origin in stored
            assert origin[0] == batch.env[row]
            world.check_window(batch, row, origin)
        assert len(world.replay) == len(stored)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(worlds, st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_cutting_ends_running_episodes_and_changes_nothing_else(world, plays):
    for steps in plays:
        world.play(steps)
        world.cut()
        assert len(world.replay) == len(world.stored())
        if len(world.replay) == 0:
            continue
        batch = step_windows(world, 32, 3)
        stored = set(world.stored())
        for row, origin in enumerate(world.origins(batch)):
            assert origin in stored
            world.check_window(batch, row, origin)


def play_episodes(storage: EpisodeStorage, lengths: list[int], time: int = 0) -> int:
    """Episodes of the given lengths whose observations count up; an open one has length -n."""
    for length in lengths:
        for step in range(abs(length)):
            ended = np.array([step == length - 1])
            now, after = np.array([[time]]), np.array([[time + 1]])
            storage.add(now, np.zeros((1, 1)), np.ones(1), ended & ~ended, ended, after)
            time += 1 + int(ended[0])
    return time


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(
    st.integers(2, 12),
    st.lists(st.integers(1, 7), min_size=1, max_size=6),
    st.integers(0, 6),
    st.lists(st.integers(1, 5), max_size=3),
)
def test_a_retracted_step_leaves_no_trace(capacity, before, running, after):
    """An episode whose last step is retracted equals one that was cut before it."""
    space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    one, other = (EpisodeStorage(space, space, capacity + 8) for _ in range(2))
    time = play_episodes(one, [*before, running + 1])
    one.retract(0)
    play_episodes(one, after, time)
    play_episodes(other, [*before, -running])
    other.cut()
    play_episodes(other, after, time)

    steps = one.has_action  # the oldest may have made room for the step that was taken back
    assert other.has_action[steps].all()
    assert len(other) - len(one) <= 2
    np.testing.assert_array_equal(one.cursor, other.cursor)
    for name in ("truncated", "length", "step_index"):
        np.testing.assert_array_equal(getattr(one, name)[steps], getattr(other, name)[steps])
    if len(one) == 0:
        return
    env, position = one.sample_steps(30, np.random.default_rng(0))
    a, b = one.window(env, position, 4), other.window(env, position, 4)
    np.testing.assert_array_equal(a.mask, b.mask)
    for part in (slice(None, -1), slice(1, None)):
        rows = (batch.observation["observation"][:, part][a.mask] for batch in (a, b))
        np.testing.assert_array_equal(*rows)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(st.integers(2, 9), st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(1, 3))
def test_what_a_step_taken_back_had_overwritten_is_no_part_of_an_episode(capacity, before, last):
    space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    keyed = spaces.Dict(dict.fromkeys(GOAL_KEYS, space))
    storage, time = EpisodeStorage(keyed, space, capacity), 0
    for length in [*before, last]:
        goal = np.array([[time]])
        for step in range(length):
            places = goal + step, goal + step + 1
            now, then = (dict(zip(GOAL_KEYS, (at, at, goal), strict=True)) for at in places)
            ended = np.array([step == length - 1])
            storage.add(now, np.zeros((1, 1)), np.zeros(1), ended & ~ended, ended, then)
        time += length + 1
    storage.retract(0)
    rows, steps = storage.observation["observation"][:, 0], np.flatnonzero(storage.has_action)
    env = np.zeros(len(steps), np.int64)
    position = storage.position_of(env, steps)
    for first, end in zip(*storage.episode_bounds(env, position), strict=True):
        values = rows[storage.flat(np.array(0), np.arange(first, end + 1))]
        np.testing.assert_array_equal(np.diff(values), 1)
    assert storage._oldest_goal() <= storage.goal_id[steps].min(initial=storage.goals.next_id)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(worlds, st.integers(1, 80))
def test_episode_bounds_are_the_stored_part_of_the_episode(world, steps):
    world.play(steps)
    storage = world.replay.storage
    env, position = storage.sample_steps(48, np.random.default_rng(0))
    batch = storage.window(env, position, 1)
    first, last = storage.episode_bounds(env, position)
    for row, (e, episode, t) in enumerate(world.origins(batch)):
        kept = [u for which, u in world.kept(e) if which == episode]
        assert (position[row] - first[row], last[row] - position[row]) == (
            t - kept[0],
            kept[-1] - t,
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [0.02, 0.4])
def test_every_stored_step_is_drawn_equally_often(kind, end):
    world = World(kind, num_envs=3, capacity=60, end=end)
    for steps in (3, 200):
        world.play(steps)
        stored = world.stored()
        batch = step_windows(world, 200 * len(stored), 1)
        counts = Counter(world.origins(batch))
        assert set(counts) == set(stored)
        assert chisquare([counts[step] for step in stored]).pvalue > 1e-3


@pytest.mark.parametrize("num_envs", [1, 3])
def test_capacity_is_a_lower_bound_on_what_is_kept(num_envs):
    world = World("plain", num_envs=num_envs, capacity=24, end=0.0)
    world.play(24 // num_envs)
    assert len(world.replay) == 24
    world.play(500)
    assert 24 <= len(world.replay) <= 24 + 2 * num_envs


def test_an_observation_is_stored_once():
    world = World("plain", num_envs=1, capacity=50, end=0.0)
    world.play(40)
    tags = world.replay.storage.observation["observation"]
    times = tags[tags.any(axis=1)][:, 2]
    assert sorted(times) == list(range(1, 41))  # time 0 is the one that is all zeros


@pytest.mark.slow
def test_a_goal_is_stored_once_and_forgotten_with_its_last_step():
    world = World("box", num_envs=2, capacity=40, end=0.0, new_goal=0.0)
    world.play(30)
    goals = world.replay.storage.goals
    assert goals.next_id == 2
    world.new_goal = 1.0
    world.play(3000)
    assert len(goals.rows) == 64
    world.capacity = 4000
    world.replay = world.new_replay()
    world.envs = [[] for _ in world.envs]
    world.play(1000)
    assert len(world.replay.storage.goals.rows) == 2048


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [50, 64, 90, 128, 200])
@pytest.mark.parametrize("new_goal", [0.5, 1.0])
def test_goals_stay_right_while_their_table_grows_and_forgets(capacity, new_goal):
    world = World("box", 1, capacity, end=0.05, new_goal=new_goal)
    for _ in range(40):
        world.play(15)
        oldest = world.kept(0)[:8]
        batch = step_windows(world, 200, 1)
        for row, (env, episode, t) in enumerate(world.origins(batch)):
            if (episode, t) in oldest or row < 20:
                world.check_window(batch, row, (env, episode, t))


def test_a_goal_is_stored_once_even_where_it_comes_with_another_type():
    space = spaces.Box(0, 1, (1,), np.float32)
    storage = EpisodeStorage(spaces.Dict(dict.fromkeys(GOAL_KEYS, space)), spaces.Discrete(2), 20)
    goal = dict.fromkeys(GOAL_KEYS, np.array([[0.1]]))  # no number of the space equals it
    for _ in range(10):
        storage.add(goal, np.zeros(1), np.zeros(1), np.zeros(1, bool), np.zeros(1, bool), goal)
    assert storage.goals.next_id == 1


@pytest.mark.parametrize(
    "space",
    [
        spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)]),
        spaces.Dict(outer=spaces.Dict(inner=spaces.Discrete(2))),
        spaces.Text(5),
        spaces.Sequence(spaces.Discrete(2)),
    ],
)
def test_spaces_that_are_not_arrays_are_refused(space):
    with pytest.raises(ValueError, match="cannot store"):
        EpisodeStorage(space, spaces.Discrete(2), 10)


@pytest.mark.parametrize("capacity", [0, -3])
def test_an_impossible_capacity_is_refused(capacity):
    with pytest.raises(ValueError, match=f"got {capacity}"):
        EpisodeStorage(spaces.Discrete(2), spaces.Discrete(2), capacity)
