"""Hindsight in windows: one goal for all of a window, or one for each of its steps."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from batches import EVERY, MIXED, any_world, check_equal, relabelled, sequences
from hypothesis import given, settings
from hypothesis import strategies as st
from leaks import traces_of_old_goal
from naive import GOALS, World
from scipy.stats import chisquare

from rlkit.replay.batch import sum_steps
from rlkit.replay.relabelling import join_steps, mixture, split_steps, with_goals


def goal_worlds(**options):
    return any_world(GOALS, **{"new_goal": st.sampled_from([0.0, 0.3])} | options)


# One goal per window


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(
    goal_worlds(), st.integers(1, 60), st.integers(1, 7), st.integers(0, 5), st.sampled_from(EVERY)
)
def test_no_trace_of_the_old_goal_is_left(world, steps, window, burn_in, strategy):
    world.play(steps)
    original = sequences(world, window, burn_in)
    batch = relabelled(world, original, {strategy: 2.0, "original": 1.0})
    assert traces_of_old_goal(batch, original, world.rule) == []
    changed = ("desired_goal", "reward", "terminated", "mask", "relabelled", "previous_reward")
    check_equal(original, batch, skip=changed)
    for row, (e, number, start) in enumerate(world.origins(batch)):
        if not batch.relabelled[row].any():
            continue
        first, length = world.first_kept(e, number), world.envs[e][number].steps
        happened = [first <= start - burn_in + i < length for i in range(len(batch.mask[row]))]
        assert batch.relabelled[row].tolist() == happened
        kept = [t for which, t in world.kept(e) if which == number]
        times = {
            "future": range(start + 1, kept[-1] + 1),
            "final": kept[-1:],
            "episode": range(kept[0] + 1, kept[-1] + 1),
        }.get(strategy)
        if times is not None:
            goal, episode = batch.desired_goal[row, burn_in], world.envs[e][number]
            reached = [episode.observations[t]["achieved_goal"] for t in times]
            assert any(np.array_equal(goal, achieved) for achieved in reached)


def planted():
    """Windows whose every field depends on the goal: with original goals, and relabelled."""
    world = World("box", num_envs=2, capacity=200, seed=5, terminates=True, end=0.05, new_goal=0.0)
    world.play(150)
    original = sequences(world, window=6, burn_in=4, count=64)
    return world, original, relabelled(world, original, {"future": 0.8, "original": 0.2})


def test_the_check_finds_nothing_in_a_right_batch():
    world, original, batch = planted()
    assert traces_of_old_goal(batch, original, world.rule) == []
    assert traces_of_old_goal(original, original, world.rule) == []


@pytest.mark.parametrize("name", ["previous_reward", "terminated", "mask", "reward"])
def test_a_field_of_the_original_goal_is_found(name):
    world, original, batch = planted()
    wrong = batch.replace(**{name: getattr(original, name)})
    assert traces_of_old_goal(wrong, original, world.rule) == [name]


def test_the_old_goal_in_the_burn_in_is_caught():
    world, original, batch = planted()
    goal = batch.desired_goal.copy()
    goal[:, : batch.burn_in] = original.desired_goal[:, : batch.burn_in]
    wrong = batch.replace(desired_goal=goal)
    assert traces_of_old_goal(wrong, original, world.rule) == ["desired_goal"]


def test_a_goal_per_step_is_caught_where_a_window_needs_one():
    world, original, batch = planted()
    goal = batch.desired_goal.copy()
    rows = np.flatnonzero(batch.relabelled.any(axis=1))
    goal[rows, -1] += 1.0
    wrong = with_goals(original, rows, goal[rows], world.rule)
    assert "desired_goal" in traces_of_old_goal(wrong, original, world.rule)


@pytest.mark.slow
def test_one_reward_input_of_the_original_goal_is_found():
    world, original, batch = planted()
    rows, columns = np.nonzero(batch.previous_reward != original.previous_reward)
    for row, column in list(zip(rows, columns, strict=True))[:20]:
        previous = batch.previous_reward.copy()
        previous[row, column] = original.previous_reward[row, column]
        wrong = batch.replace(previous_reward=previous)
        assert traces_of_old_goal(wrong, original, world.rule) == ["previous_reward"]


def test_a_success_in_the_burn_in_leaves_nothing_to_learn_from():
    batch = planted()[2]
    early = batch.terminated[:, : batch.burn_in].any(axis=1)
    assert 0 < early.sum() < len(batch)
    assert not batch.mask[early].any()
    summed = sum_steps(batch, 0.9, 1)
    assert not summed.reward[early].any()
    assert not summed.terminated[early].any()


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(goal_worlds(), st.integers(1, 60), st.integers(1, 6), st.integers(0, 4))
def test_the_original_goal_gives_the_window_back(world, steps, window, burn_in):
    world.play(steps)
    batch = sequences(world, window, burn_in)
    rows = np.arange(0, len(batch), 2)
    again = with_goals(batch, rows, batch.desired_goal[rows], world.rule)
    check_equal(batch, again, skip=("relabelled", "previous_reward"))
    # The reward before the window was earned under the goal before, which may have been another.
    same = batch.previous_reward[:, 1:], again.previous_reward[:, 1:]
    assert same[0].tobytes() == same[1].tobytes()
    if world.new_goal == 0:
        check_equal(batch, again, skip=("relabelled",))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(goal_worlds(), st.integers(1, 60))
def test_windows_with_original_goals_stay_as_they_are(world, steps):
    world.play(steps)
    batch = sequences(world)
    check_equal(batch, relabelled(world, batch, "original"))
    mixed = relabelled(world, batch, MIXED)
    kept = np.flatnonzero(~mixed.relabelled.any(axis=1))
    for name in ("desired_goal", "reward", "terminated", "mask", "previous_reward"):
        np.testing.assert_array_equal(getattr(mixed, name)[kept], getattr(batch, name)[kept])


# One goal per step


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(goal_worlds(), st.integers(1, 60), st.integers(1, 6), st.integers(0, 4), st.integers(1, 3))
def test_original_goals_of_every_step_give_the_windows_back(world, play, window, burn_in, steps):
    world.play(play)
    batch = sequences(world, window, burn_in, steps=steps)
    world.replay.steps = steps

    def summed(part):
        return sum_steps(part, 0.9, steps, world.replay._successes(part))

    alone, places = split_steps(batch, steps)
    again = with_goals(alone, np.arange(len(alone)), alone.desired_goal, world.rule)
    check_equal(alone, again, skip=("relabelled",))
    whole = join_steps(sum_steps(batch, 0.9, steps), summed(again), places)
    check_equal(summed(batch), whole, skip=("relabelled",))
    np.testing.assert_array_equal(whole.relabelled, whole.mask)


def test_goals_of_steps_are_those_of_each_step_s_future():
    world = World("box", num_envs=1, capacity=50, end=0.0, new_goal=0.0)
    world.replay = world.new_replay(
        window=3, burn_in=2, goals="step", hindsight={"future": 1.0}, previous_action=True
    )
    world.play(8)
    storage = world.replay.storage
    times = storage.observation["observation"][:, 2]
    storage.observation["achieved_goal"][:] = times[:, None]  # goals that equal their time
    batch = world.replay.sample(20_000)
    assert batch.relabelled[:, 2:].all()
    assert not batch.relabelled[:, :2].any()
    assert (batch.desired_goal[:, 2] != batch.desired_goal[:, 3]).any()
    now = batch.observation["observation"][:, 2:5, 2]
    chosen = batch.desired_goal[:, 2:, 0]
    for t in range(8):
        counts = Counter(chosen[now == t].tolist())
        assert set(counts) == set(range(t + 1, 9))
        if t < 7:
            assert chisquare(list(counts.values())).pvalue > 1e-3
    # Neighbours choose on their own: the first record's goal says nothing on the second's.
    both = Counter(zip(*chosen[now[:, 0] == 4][:, :2].T.tolist(), strict=True))
    expected = sum(both.values()) / 12
    assert chisquare([both[a, b] for a in range(5, 9) for b in range(6, 9)], expected).pvalue > 1e-3


@pytest.mark.parametrize("goals", ["step", "window"])
@pytest.mark.parametrize("weights", ["future", {"final": 1.0, "episode": 2.0, "original": 1.0}])
def test_shares_are_those_of_the_weights(goals, weights):
    world = World("box", capacity=200, window=4, burn_in=2, goals=goals, hindsight=weights)
    world.play(100)
    batch = world.replay.sample(20_000)
    share = batch.relabelled[batch.mask].mean()
    assert share == pytest.approx(1 - mixture(weights)["original"], abs=0.012)
    mixed = (batch.relabelled & batch.mask).any(axis=1) & (~batch.relabelled & batch.mask).any(
        axis=1
    )
    assert mixed.any() == (goals == "step")
