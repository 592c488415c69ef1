"""Whole stored episodes, against a naive record."""

import numpy as np
import pytest
from batches import any_world
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import World

from rlkit.replay import read_episodes

plays = st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=3)


def recorded(world):
    """What is still stored of every episode with a step: `(env, episode, first time)`."""
    return [
        (env, number, world.first_kept(env, number))
        for env in range(world.num_envs)
        for number in dict.fromkeys(number for number, _ in world.kept(env))
        if world.first_kept(env, number) < world.envs[env][number].steps
    ]


def check_episode(found, episode, first):
    assert found.length == [episode.steps - first]
    np.testing.assert_array_equal(found.action, episode.actions[first:])
    np.testing.assert_array_equal(found.reward, np.float32(episode.rewards[first:]))
    np.testing.assert_array_equal(found.terminated, episode.terminated[first:])
    np.testing.assert_array_equal(found.truncated, episode.truncated[first:])
    for key, rows in found.observation.items():
        wanted = [observation[key] for observation in episode.observations[first:]]
        np.testing.assert_array_equal(rows, wanted)
    if found.desired_goal is not None:
        goals = [observation["desired_goal"] for observation in episode.observations[first:-1]]
        np.testing.assert_array_equal(found.desired_goal, goals)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(any_world(new_goal=st.sampled_from([0.0, 0.3])), plays, st.booleans())
def test_episodes_are_those_that_were_added(world, plays, is_loaded):
    for steps, cut in plays:
        world.play(steps)
        if cut:
            world.cut()
    state = world.replay.storage.state_dict()
    if is_loaded:
        other = world.new_replay()
        other.load_state_dict(world.replay.state_dict())
        state = other.storage.state_dict()
    found, wanted = list(read_episodes(state)), recorded(world)
    assert [int(episode.env[0]) for episode in found] == [env for env, *_ in wanted]
    for episode, (env, number, first) in zip(found, wanted, strict=True):
        check_episode(episode, world.envs[env][number], first)


@pytest.mark.parametrize("share", ["auto", False])
def test_images_are_the_same_wherever_they_are_stored(tmp_path, share):
    world = World("pixels", share=share)
    on_disk = world.new_replay(directory=tmp_path)
    world.play(40, on_disk)
    one, two = (read_episodes(replay.storage.state_dict()) for replay in (world.replay, on_disk))
    assert one.observation.keys() == {"observation", "achieved_goal"}
    for key, rows in one.observation.items():
        assert rows.dtype == np.uint8
        np.testing.assert_array_equal(rows, two.observation[key])


def test_a_position_leaves_out_what_came_before():
    world = World("box", num_envs=2, capacity=200, end=0.2)
    world.play(20)
    before = world.replay.storage.cursor.copy()
    assert len(read_episodes(world.replay.storage.state_dict(), before)) == 0
    world.play(15)
    found = read_episodes(world.replay.storage.state_dict(), before)
    assert len(found.reward) == 30
    rewards = [episode.rewards for episodes in world.envs for episode in episodes]
    assert set(found.reward.tolist()) <= {float(np.float32(r)) for part in rewards for r in part}


def test_an_empty_storage_has_no_episodes():
    found = read_episodes(World("box").replay.storage.state_dict())
    assert len(found) == len(list(found)) == 0
