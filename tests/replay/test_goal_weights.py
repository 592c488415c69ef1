"""Weights of relabelled steps, and the choice by them, against plain loops."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
from batches import MIXED, any_world, check_equal
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import World
from scipy.stats import chi2_contingency, chisquare

from rlkit.goals import DistanceRule
from rlkit.replay import ReplayBuffer
from rlkit.replay.goal_weights import CANDIDATES, GoalWeights, choose

GOAL = spaces.Box(-9, 9, (2,), np.float64)
KEYED = spaces.Dict(observation=GOAL, achieved_goal=GOAL, desired_goal=GOAL)
WEIGHTS = {"already_achieved_weight": 0.1, "out_of_range_weight": 0.2}


def naive_weight(asked: Any, threshold: float, before: Any, goal: Any, weights: Any) -> float:
    """The weight of one relabelled step."""
    found = [1.0]
    if np.linalg.norm(np.subtract(before, goal)) < threshold:
        found.append(weights["already_achieved_weight"])
    nearest = [
        min(max(g, min(a)), max(a)) for g, a in zip(goal, zip(*asked, strict=True), strict=True)
    ]
    if np.linalg.norm(np.subtract(goal, nearest)) >= threshold:
        found.append(weights["out_of_range_weight"])
    return min(found)


points = st.lists(st.tuples(*[st.integers(-5, 5)] * 2), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(points, points, points, st.sampled_from([0.5, 1.5, 3.0]))
def test_weights_equal_a_loop(asked: Any, before: Any, goals: Any, threshold: float) -> None:
    count = min(len(before), len(goals))
    weights = GoalWeights(0.1, 0.2, GOAL)
    for goal in asked:
        weights.observe(np.array([goal], np.float64))
    given_rows = np.array(before[:count], np.float64), np.array(goals[:count], np.float64)
    found = weights.weigh(DistanceRule(threshold), *given_rows)
    expected = [
        naive_weight(asked, threshold, *pair, WEIGHTS)
        for pair in zip(before[:count], goals[:count], strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_sets_are_chosen_as_one_after_the_other_by_weight() -> None:
    weight, rng = np.array([1.0, 0.5, 0.1, 1.0, 0.02]), np.random.default_rng(0)
    expected: Counter[Any] = Counter()
    for order in itertools.permutations(range(5), 3):
        chance, left = 1.0, weight.sum()
        for i in order:
            chance *= weight[i] / left
            left -= weight[i]
        expected[tuple(sorted(order))] += chance
    drawn = [choose(weight, 3, rng) for _ in range(20_000)]
    assert all((np.diff(one) > 0).all() for one in drawn)
    counts = Counter(tuple(one.tolist()) for one in drawn)
    sets = [one for one in sorted(expected) if expected[one] * 20_000 > 5]
    table = [counts[one] for one in sets]
    chances = np.array([expected[one] for one in sets])
    assert chisquare(table, chances / chances.sum() * sum(table)).pvalue > 1e-3


def test_tiny_weights_leave_the_order_of_candidates_to_chance() -> None:
    weight = np.full(12, 1e-5)
    counts = Counter(
        np.concatenate([choose(weight, 4, np.random.default_rng(i)) for i in range(3000)]).tolist()
    )
    assert chisquare([counts[i] for i in range(12)]).pvalue > 1e-3


class PlainDraw:
    """What `sample` draws, one candidate after the other."""

    def __init__(self, world: World, hindsight: dict[str, float], seed: int = 0) -> None:
        self.world, self.hindsight = world, hindsight
        self.rng = np.random.default_rng(seed)
        self.steps = world.stored()
        self.asked = [
            step.observations[t]["desired_goal"]
            for env in world.envs
            for step in env
            for t in range(step.steps)
        ]

    def observed(self, env: int, episode: int, t: int, key: str) -> Any:
        return self.world.envs[env][episode].observations[t][key]

    def step(self) -> tuple[int, int, int]:
        return self.steps[self.rng.integers(len(self.steps))]

    def candidate(self) -> tuple[Any, float]:
        env, episode, t = self.step()
        names = list(self.hindsight)
        shares = np.array([self.hindsight[name] for name in names])
        match names[self.rng.choice(len(names), p=shares / shares.sum())]:
            case "original":
                goal = self.observed(env, episode, t, "desired_goal")
                return self.category(env, episode, t, goal, False), 1.0
            case "desired":
                goal = self.observed(*self.step(), "desired_goal")
            case "future":
                last = self.world.envs[env][episode].steps
                goal = self.observed(
                    env, episode, self.rng.integers(t + 1, last + 1), "achieved_goal"
                )
        before = self.observed(env, episode, t, "achieved_goal")
        weight = naive_weight(self.asked, 1.5, before, goal, WEIGHTS)
        return self.category(env, episode, t, goal, True), weight

    def category(self, env: int, episode: int, t: int, goal: Any, relabelled: bool) -> Any:
        before = self.observed(env, episode, t, "achieved_goal")
        return relabelled, t % 2, float(np.abs(before - goal).max()), float(np.abs(goal).max())

    def sample(self, count: int) -> list[Any]:
        rows = [self.candidate() for _ in range(CANDIDATES * count)]
        chosen = []
        for _ in range(count):
            weight = np.array([w for _, w in rows])
            chosen.append(rows.pop(self.rng.choice(len(rows), p=weight / weight.sum()))[0])
        return chosen


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 3])
def test_feed_forward_batches_are_drawn_as_by_a_loop(steps: int) -> None:
    hindsight = {"future": 0.6, "desired": 0.2, "original": 0.2}
    world = World("box", 2, 60, end=0.15, seed=3, hindsight=hindsight, steps=steps, **WEIGHTS)
    world.play(25)
    # Goals asked are few and near the origin, so that some achieved ones lie far outside.
    for env in world.envs:
        for episode in env:
            for observation in episode.observations:
                observation["achieved_goal"] = observation["achieved_goal"] * 2
    world.replay.storage.columns["achieved_goal"].array[:] *= 2
    plain = PlainDraw(world, hindsight)
    expected = Counter(row for _ in range(600) for row in plain.sample(8))
    found: Counter[Any] = Counter()
    for _ in range(600):
        batch = world.replay.sample(8)
        assert batch.weight is None
        for row, place in enumerate(world.origins(batch)):
            goal = batch.desired_goal[row, 0]  # type: ignore[index]
            found[plain.category(*place, goal, bool(batch.relabelled[row, 0]))] += 1
    kept = [key for key in sorted(expected | found) if expected[key] + found[key] > 20]
    assert len(kept) > 15
    table = [[count[key] for key in kept] for count in (expected, found)]
    assert chi2_contingency(table).pvalue > 1e-3


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(any_world(["box"]), st.sampled_from(["step", "window"]), st.sampled_from([1, 2]))
def test_windows_hold_the_weight_of_every_step(world: World, goals: str, steps: int) -> None:
    more = {"hindsight": MIXED, "window": 4, "burn_in": 2, "goals": goals, "steps": steps}
    world.replay = world.new_replay(**more, **WEIGHTS)
    plain = world.new_replay(**more)
    world.play(40, plain)
    asked = [
        episode.observations[t]["desired_goal"]
        for env in world.envs
        for episode in env
        for t in range(episode.steps)
    ]
    batch, expected = world.replay.sample(30), plain.sample(30)
    check_equal(batch, expected, skip=("weight",))
    achieved = batch.observation["achieved_goal"]
    for row, t in np.argwhere(batch.mask):
        goal = batch.desired_goal[row, t]  # type: ignore[index]
        weight = naive_weight(asked, 1.5, achieved[row, t], goal, WEIGHTS)
        assert batch.weight is not None
        assert batch.weight[row, t] == np.float32(weight if batch.relabelled[row, t] else 1.0)
    assert (batch.loss_weight()[~batch.mask] == 0).all()


@pytest.mark.parametrize("window", [1, 4])
def test_a_restored_replay_buffer_goes_on_exactly(window: int) -> None:
    world = World("box", window=window, **WEIGHTS)
    world.play(30)
    world.replay.sample(5)
    state = pickle.loads(pickle.dumps(world.replay.state_dict()))
    other = world.new_replay(seed=7)
    other.load_state_dict(state)
    world.play(10, other)
    for _ in range(3):
        check_equal(world.replay.sample(20), other.sample(20))


def test_a_state_without_a_range_gives_that_of_the_goals_that_are_left() -> None:
    world = World("box", capacity=200, new_goal=0.0)
    plain = world.replay
    world.replay = world.new_replay(out_of_range_weight=0.5)
    world.play(40, plain)
    other = world.new_replay(out_of_range_weight=0.5)
    other.load_state_dict(pickle.loads(pickle.dumps(plain.state_dict())))
    for name in ("low", "high"):
        mine, theirs = (getattr(r.goal_weights, name) for r in (world.replay, other))
        np.testing.assert_array_equal(mine, theirs)


def test_weights_of_1_draw_what_was_drawn_before() -> None:
    world = World("box", hindsight=MIXED)
    same = world.new_replay(already_achieved_weight=1.0, out_of_range_weight=1)
    world.play(40, same)
    check_equal(world.replay.sample(64), same.sample(64))
    assert world.replay.state_dict().keys() == {"storage", "sampler", "rng"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"already_achieved_weight": 0.0}, r"must lie in \(0, 1\], got 0.0"),
        ({"out_of_range_weight": 1.5}, r"must lie in \(0, 1\], got 1.5"),
    ],
)
def test_impossible_weights_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReplayBuffer(KEYED, GOAL, 10, rule=DistanceRule(1.0), **options)


def test_weights_need_goals_but_wait_for_their_rule() -> None:
    with pytest.raises(ValueError, match="weights relabelled goals, and observations have none"):
        ReplayBuffer(GOAL, GOAL, 10, already_achieved_weight=0.5)
    waiting = ReplayBuffer(KEYED, GOAL, 10, out_of_range_weight=0.5, steps_to_goal=True)
    assert waiting.goal_weights is not None
    assert waiting.steps_to_goal


@pytest.mark.parametrize("kind", ["discrete", "bits", "pixels"])
def test_a_range_needs_a_box(kind: str) -> None:
    with pytest.raises(ValueError, match="needs goals that are vectors of a Box"):
        World(kind, out_of_range_weight=0.5)
    World(kind, already_achieved_weight=0.5).play(5)
