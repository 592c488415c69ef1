from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
from batches import EVERY, any_world, check_equal, relabelled, step_windows
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import GOALS, World
from scipy.stats import chi2_contingency, chisquare
from stable_baselines3 import HerReplayBuffer

from rlkit.goals import DistanceRule
from rlkit.replay import ReplayBuffer
from rlkit.replay.relabelling import draw_goals, mixture, relabel, with_goals

PLACE = spaces.Box(-1, 1, (2,), np.float32)
goal_worlds = any_world(GOALS, new_goal=st.sampled_from([0.0, 0.3]))


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(goal_worlds, st.integers(1, 60), st.sampled_from(EVERY), st.integers(1, 4))
def test_goals_rewards_and_ends_equal_a_loop(world, steps, strategy, length):
    world.play(steps)
    before = step_windows(world, length=length)
    after = relabelled(world, before, {strategy: 1.0})
    assert (after.relabelled == before.mask).all()
    check_equal(before, after, skip=("desired_goal", "reward", "terminated", "relabelled", "mask"))
    for row, (e, number, start) in enumerate(world.origins(before)):
        episode = world.envs[e][number]
        kept = [t for which, t in world.kept(e) if which == number]
        allowed = {
            "future": range(start + 1, kept[-1] + 1),
            "final": kept[-1:],
            "episode": range(kept[0] + 1, kept[-1] + 1),
        }.get(strategy)
        goal = after.desired_goal[row, 0]
        assert (after.desired_goal[row] == goal).all()
        if allowed is not None:
            reached = [episode.observations[t]["achieved_goal"] for t in allowed]
            assert any(np.array_equal(goal, achieved) for achieved in reached)
        for i in np.flatnonzero(before.mask[row]):
            t = start + i
            achieved = np.asarray(episode.observations[t + 1]["achieved_goal"])[None]
            old = np.asarray(episode.observations[t]["desired_goal"])[None]
            fell = episode.terminated[t] and not world.rule.terminated(achieved, old)[0]
            by_goal = world.rule.terminated(achieved, goal[None])[0]
            assert after.reward[row, i] == world.rule.reward(achieved, goal[None])[0]
            assert after.terminated[row, i] == (fell or by_goal)
            assert after.mask[row, i] == (not after.terminated[row, :i].any())
    assert not after.terminated[~before.mask].any()


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(goal_worlds, st.integers(1, 60))
def test_the_original_goal_changes_nothing(world, steps):
    world.play(steps)
    before = step_windows(world)
    rows = np.arange(0, len(before), 2)
    after = with_goals(before, rows, before.desired_goal[rows], world.rule)
    check_equal(before, after, skip=("relabelled",))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(goal_worlds, st.integers(1, 60), st.sampled_from(EVERY))
def test_original_windows_stay_as_they_are(world, steps, strategy):
    world.play(steps)
    before = step_windows(world)
    check_equal(before, relabelled(world, before, "original"))
    mixed = relabelled(world, before, {strategy: 1.0, "original": 1.0})
    kept = ~mixed.relabelled.any(axis=1)
    for name in ("desired_goal", "reward", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(mixed, name)[kept], getattr(before, name)[kept])


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(goal_worlds, st.integers(1, 60), st.sampled_from(EVERY))
def test_storage_and_input_are_only_read(world, steps, strategy):
    world.play(steps)
    storage = world.replay.storage
    before = step_windows(world)
    columns = {name: column.copy() for name, column in storage._rings().items()}
    goals = storage.goals.rows.copy()
    copy = dataclasses.replace(
        before, **{n: getattr(before, n).copy() for n in ("desired_goal", "reward", "terminated")}
    )
    relabelled(world, before, strategy)
    check_equal(before, copy)
    np.testing.assert_array_equal(storage.goals.rows, goals)
    for name, column in storage._rings().items():
        np.testing.assert_array_equal(column, columns[name])


def test_a_fall_stays_and_the_old_goal_s_end_goes():
    space = spaces.Box(-9, 9, (1,), np.float64)
    keyed = spaces.Dict(observation=space, achieved_goal=space, desired_goal=space)
    replay = ReplayBuffer(keyed, space, 10, rule=DistanceRule(0.5, terminates=True))

    def observation(achieved, desired):
        values = {"observation": 0.0, "achieved_goal": achieved, "desired_goal": desired}
        return {key: np.array([[value]]) for key, value in values.items()}

    def arrays(batch):
        return batch.terminated[:, 0].tolist(), batch.reward[:, 0].tolist()

    for goal in (5.0, 1.0):  # a fall, then a success
        outcome = np.zeros((1, 1)), np.zeros(1), np.ones(1, bool), np.zeros(1, bool)
        replay.add(observation(0.0, goal), *outcome, observation(1.0, goal))
    batch = replay.storage.window(np.array([0, 0]), np.array([0, 2]), 1)
    far, reached = np.full((2, 1, 1), 9.0), np.full((2, 1, 1), 1.0)
    rows = np.arange(2)
    assert arrays(with_goals(batch, rows, far, replay.rule)) == ([True, False], [-1, -1])
    assert arrays(with_goals(batch, rows, reached, replay.rule)) == ([True, True], [0, 0])


def test_random_goals_come_from_everything_stored():
    world = World("box", num_envs=3, capacity=60, end=0.2)
    world.play(300)
    # Goals that identify where they were achieved.
    storage = world.replay.storage
    achieved = storage.observation["achieved_goal"]
    achieved[:] = storage.observation["observation"][:, :2] * [1000.0, 1.0]
    achieved[:, 1] += 1000 * storage.observation["observation"][:, 2]
    batch = step_windows(world, count=40_000, length=1)
    goals = relabelled(world, batch, {"random": 1.0}).desired_goal[:, 0]
    counts = Counter(tuple(goal) for goal in goals.tolist())
    places = [(1000.0 * e, n + 1000.0 * (t + 1)) for e, n, t in world.stored()]
    assert set(counts) == set(places)
    assert chisquare([counts[place] for place in places]).pvalue > 1e-3


@pytest.mark.parametrize("length", [1, 4])
def test_desired_goals_come_from_all_steps_that_are_stored(length):
    world = World("box", num_envs=3, capacity=60, end=0.2, new_goal=0.3)
    world._goal = lambda: world.rng.normal(size=2)  # all different
    world.play(300)
    batch = step_windows(world, count=40_000, length=length)
    goals = relabelled(world, batch, {"desired": 1.0}).desired_goal
    assert (goals == goals[:, :1]).all()
    counts = Counter(tuple(goal) for goal in goals[:, 0].tolist())
    asked = Counter(
        tuple(world.envs[env][episode].observations[t]["desired_goal"])
        for env, episode, t in world.stored()
    )
    assert set(counts) == set(asked)
    expected = np.array([asked[goal] for goal in counts]) / asked.total() * 40_000
    assert chisquare(list(counts.values()), expected).pvalue > 1e-3


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(goal_worlds.filter(lambda world: world.kind == "box"), st.integers(1, 60))
def test_generated_goals_are_the_proposed_ones(world, steps):
    world.play(steps)
    before = step_windows(world)
    drawn = []

    def propose(desired, rng):
        assert desired.dtype == before.desired_goal.dtype
        drawn.append(rng.normal(size=desired.shape))
        return drawn[-1]

    shares = mixture({"generated": 1.0, "original": 1.0})
    rng = np.random.default_rng(0)
    storage = world.replay.storage
    drawn_goals = draw_goals(before.env, before.position, storage, shares, rng, propose)
    after = relabel(before, drawn_goals, world.rule)
    changed = after.relabelled[:, 0]
    goals = np.concatenate(drawn) if drawn else np.zeros((0, 2))
    assert np.array_equal(after.desired_goal[changed, 0], goals.astype(before.desired_goal.dtype))
    check_equal(before, after, skip=("desired_goal", "reward", "terminated", "relabelled", "mask"))
    for name in ("desired_goal", "reward", "terminated", "mask"):
        same = [getattr(batch, name)[~changed] for batch in (before, after)]
        assert np.array_equal(*same), name
    achieved = after.observation["achieved_goal"][changed, 1]
    assert np.array_equal(
        after.reward[changed, 0], world.rule.reward(achieved, after.desired_goal[changed, 0])
    )


def test_generated_goals_need_a_generator():
    space = spaces.Dict(dict.fromkeys(("observation", "achieved_goal", "desired_goal"), PLACE))
    with pytest.raises(ValueError, match="needs a goal generator"):
        ReplayBuffer(
            space, PLACE, 10, rule=DistanceRule(0.1), hindsight={"generated": 0.5, "future": 1}
        )


@pytest.mark.parametrize("weights", ["future", {"final": 1.0, "episode": 2.0, "original": 1.0}])
def test_shares_are_those_of_the_weights(weights):
    world = World("box", capacity=200)
    world.play(100)
    batch = step_windows(world, count=50_000, length=1)
    share = relabelled(world, batch, weights).relabelled.mean()
    assert share == pytest.approx(1 - mixture(weights)["original"], abs=0.006)


# Against Stable-Baselines3's buffer, on the same episodes


class RewardOnly:
    """As much of a vector environment as SB3's buffer asks for."""

    def __init__(self, rule):
        self.rule = rule

    def env_method(self, name, achieved, desired, info, indices):
        return [self.rule.reward(achieved, desired)]


def both_buffers(strategy):
    space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    keyed = spaces.Dict(observation=space, achieved_goal=space, desired_goal=space)
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    rule = DistanceRule(0.5)
    ours = ReplayBuffer(keyed, action_space, 500, num_envs=2, rule=rule, hindsight=strategy, seed=0)
    theirs = HerReplayBuffer(
        500, keyed, action_space, RewardOnly(rule), "cpu", 2, goal_selection_strategy=strategy
    )
    clock = 0
    for length in (1, 2, 3, 5, 8, 13):
        for t in range(length):
            now, then = (
                {
                    "observation": np.array([[clock + u], [clock + u + 1000.0]]),
                    "achieved_goal": np.array([[clock + u], [clock + u + 1000.0]]),
                    "desired_goal": np.full((2, 1), -1.0),
                }
                for u in (t, t + 1)
            )
            done = np.full(2, t == length - 1)
            reward, action = np.full(2, -1.0), np.zeros((2, 1), np.float32)
            ours.add(now, action, reward, done & False, done, then)
            theirs.add(now, then, action, reward, done, [{"TimeLimit.truncated": True}] * 2)
        clock += length + 1
    return ours, theirs


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["future", "final", "episode"])
def test_choices_are_distributed_as_in_stable_baselines3(strategy):
    ours, theirs = both_buffers(strategy)
    np.random.seed(0)  # noqa: NPY002  their generator
    batch, sample = ours.sample(40_000), theirs.sample(40_000)
    one = np.column_stack(
        [batch.observation["observation"][:, 0], batch.desired_goal[:, 0], batch.reward]
    )
    two = np.column_stack(
        [sample.observations["observation"], sample.observations["desired_goal"], sample.rewards]
    )
    counts = [Counter(map(tuple, rows.tolist())) for rows in (one, two)]
    assert set(counts[0]) == set(counts[1])
    table = [[count[row] for row in sorted(counts[0])] for count in counts]
    assert chi2_contingency(table).pvalue > 1e-3
