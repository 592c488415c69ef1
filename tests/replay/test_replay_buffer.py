from __future__ import annotations

import copy

import numpy as np
import pytest
from batches import MIXED, any_world, check_equal
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import GOALS, KINDS, World

from rlkit.goals import GOAL_KEYS, DistanceRule
from rlkit.replay import NonFiniteError, ReplayBuffer, check_finite

worlds = any_world(
    window=st.sampled_from([None, 1, 2, 3]),
    goals=st.sampled_from(["step", "window"]),
    previous_action=st.booleans(),
    hidden_state=st.sampled_from([(), ((2,), (3, 1))]),
    steps=st.integers(1, 3),
    gamma=st.just(0.9),
    hindsight=st.sampled_from(["future", "original", MIXED]),
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(worlds, st.integers(1, 60), st.integers(0, 4))
def test_samples_equal_naive_sums_over_the_sampled_goals(world, steps, burn_in):
    if world.options["window"] is not None:
        world.replay = world.new_replay(burn_in=burn_in)
    world.play(steps)
    replay = world.replay
    batch = replay.sample(24)
    if replay.rule is None:
        assert batch.desired_goal is None or not batch.relabelled.any()
    for row, (e, number, start) in enumerate(world.origins(batch)):
        episode = world.envs[e][number]
        records, start = batch.mask.shape[1], start - batch.burn_in
        over = False
        for i in range(records):
            t = start + i
            happened = world.first_kept(e, number) <= t < episode.steps
            assert batch.mask[row, i] == (happened and i >= batch.burn_in and not over)
            if happened and batch.relabelled[row, i] and replay.goals == "window":
                over |= outcome(world, episode, t, batch.desired_goal[row, i], True)[1]
            if not batch.mask[row, i]:
                assert batch.reward[row, i] == batch.terminated[row, i] == 0
                continue
            total, weight, t, terminated = 0.0, 1.0, start + i, False
            goal = None if batch.desired_goal is None else batch.desired_goal[row, i]
            for t in range(start + i, min(start + i + replay.steps, episode.steps)):
                reward, terminated, success = outcome(
                    world, episode, t, goal, batch.relabelled[row, i]
                )
                total += weight * reward
                weight *= 0.9
                if terminated or episode.truncated[t] or success:
                    break
            assert batch.reward[row, i] == pytest.approx(total, abs=1e-5)
            assert batch.discount[row, i] == pytest.approx(0.0 if terminated else weight, abs=1e-6)
            assert batch.terminated[row, i] == terminated
            assert batch.bootstrap[row, i] == t + 1 - start
            np.testing.assert_array_equal(
                batch.observation["observation"][row, batch.bootstrap[row, i]],
                episode.observations[t + 1]["observation"],
            )


def outcome(world, episode, t, goal, relabelled):
    """Reward, termination and success of one step, were its goal the given one."""
    if goal is None:
        return episode.rewards[t], episode.terminated[t], False
    achieved = np.asarray(episode.observations[t + 1]["achieved_goal"])[None]
    own_goal = np.asarray(episode.observations[t]["desired_goal"])[None]
    if not relabelled:
        return episode.rewards[t], episode.terminated[t], world.rule.success(achieved, own_goal)[0]
    fell = episode.terminated[t] and not world.rule.terminated(achieved, own_goal)[0]
    pair = achieved, goal[None]
    return (
        world.rule.reward(*pair)[0],
        fell or world.rule.terminated(*pair)[0],
        world.rule.success(*pair)[0],
    )


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(worlds, st.integers(1, 60), st.integers(0, 60), st.integers(0, 30))
def test_a_restored_replay_goes_on_as_the_saved_one(world, before, after, other):
    world.play(before)
    world.replay.sample(5)
    fresh = world.new_replay(seed=99)
    # What it held is of no consequence.
    donor = World(world.kind, world.num_envs, world.capacity, seed=7, terminates=True)
    donor.play(other, fresh)
    fresh.load_state_dict(copy.deepcopy(world.replay.state_dict()))
    assert len(fresh) == len(world.replay)
    check_equal(fresh.sample(16), world.replay.sample(16))
    for _ in range(2):
        world.play(after, fresh)
        check_equal(fresh.sample(16), world.replay.sample(16))
        assert len(fresh) == len(world.replay)
    world.cut()
    fresh.storage.cut()
    check_equal(fresh.sample(16), world.replay.sample(16))


@pytest.mark.parametrize("kind", ["plain", "box"])
def test_equal_seeds_draw_equal_samples_and_other_seeds_do_not(kind):
    world = World(kind, capacity=100, window=2)
    same, other = world.new_replay(), world.new_replay(seed=2)
    world.play(60, same, other)
    for _ in range(3):
        sample = world.replay.sample(32)
        check_equal(sample, same.sample(32))
        assert (sample.position != other.sample(32).position).any()


@pytest.mark.parametrize("kind", KINDS)
def test_an_unfinished_episode_is_sampled_from_its_first_step_on(kind):
    world = World(kind, num_envs=2, end=0.0)
    with pytest.raises(ValueError, match="empty"):
        world.replay.sample(4)
    world.play(1)
    batch = world.replay.sample(40)
    assert set(world.origins(batch)) == {(0, 0, 0), (1, 0, 0)}
    assert batch.mask.all()


def test_loading_another_environment_s_replay_is_refused():
    states = {kind: World(kind).replay.state_dict() for kind in KINDS}
    for kind in KINDS:
        for other in KINDS:
            if kind != other:
                with pytest.raises(ValueError, match="the saved replay"):
                    World(kind).replay.load_state_dict(states[other])
    world = World("box", capacity=50)
    world.play(50)
    with pytest.raises(ValueError, match="capacity"):
        World("box", capacity=10).replay.load_state_dict(world.replay.state_dict())
    with pytest.raises(ValueError, match="capacity"):
        World("box", num_envs=3, capacity=10).replay.load_state_dict(world.replay.state_dict())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("key", ["observation", "achieved_goal", "desired_goal"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_what_is_not_finite_is_refused_before_anything_is_stored(value, key, place):
    world = World("box", end=0.0)
    world.step()
    step = world.step()  # of an empty buffer, for which its first observation is new
    saved = copy.deepcopy(world.replay.state_dict())
    step[0 if place == "before" else 5][key][1, 0] = value
    with pytest.raises(
        NonFiniteError, match=rf"observation\['{key}'\] is {value} at index \(1, 0\)"
    ):
        world.replay.add(*step)
    assert len(world.replay) == 0
    np.testing.assert_equal(world.replay.state_dict(), saved)


def test_a_reward_that_is_not_finite_is_refused():
    world = World("plain")
    step = list(world.step())
    step[2] = np.array([0.0, np.nan])
    with pytest.raises(NonFiniteError, match=r"reward is nan at index \(1,\)"):
        world.replay.add(*step)
    assert len(world.replay) == 0


def test_integers_are_always_finite():
    check_finite("x", {"a": np.array([1, 2]), "b": np.array([True])})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "got 0 and 1"),
        ({"steps": 0}, "got 1 and 0"),
        ({"gamma": 1.5}, "gamma must lie in"),
        ({"hindsight": "past"}, "unknown hindsight strategy"),
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        World("box", **options)


@pytest.mark.parametrize("missing", ["achieved_goal", "desired_goal"])
def test_hindsight_needs_goal_keys(missing):
    keyed = {
        "observation": spaces.Discrete(3),
        **dict.fromkeys(("achieved_goal", "desired_goal"), GOALS["box"]),
    }
    del keyed[missing]
    with pytest.raises(ValueError, match="hindsight needs goal keys"):
        ReplayBuffer(spaces.Dict(keyed), spaces.Discrete(2), 10, rule=DistanceRule(1.0))


def test_a_batch_has_parts():
    space = spaces.Dict({key: spaces.Box(-9, 9, (2,)) for key in GOAL_KEYS})
    replay = ReplayBuffer(space, spaces.Discrete(3), 50, rule=DistanceRule(0.5), steps=2, seed=0)
    for step in range(20):
        current, after = (
            {key: np.full((1, 2), value, np.float32) for key in GOAL_KEYS}
            for value in (step % 7, step % 7 + 1)
        )
        ended = np.array([step % 7 == 6])
        replay.add(current, np.array([step % 3]), np.zeros(1), ended, np.zeros(1, bool), after)
    whole = replay.sample(12)
    parts = [whole.part(slice(i, i + 4)) for i in range(0, 12, 4)]
    assert [len(part) for part in parts] == [4, 4, 4]
    for name in ("action", "reward", "discount", "bootstrap", "desired_goal", "relabelled"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    for key, value in whole.observation.items():
        joined = np.concatenate([part.observation[key] for part in parts])
        np.testing.assert_array_equal(joined, value)
