from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlkit.goals import ComputedRule, DistanceRule, ExactRule, GoalRule, goal_distance


def negative_distance(achieved: Any, desired: Any, info: Any) -> Any:
    return -np.linalg.norm(achieved - desired, axis=-1)


def never(achieved: Any, desired: Any, info: Any) -> bool:
    return False


RULES: list[GoalRule] = [
    DistanceRule(0.5),
    DistanceRule(0.5, sparse=False, terminates=True),
    ExactRule(),
    ExactRule(terminates=False),
    ComputedRule(negative_distance),
    ComputedRule(negative_distance, never, reward_range=(-10.0, 0.0)),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 9), width=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_a_batch_equals_a_loop(rule: GoalRule, seed: int, rows: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    achieved, desired = rng.integers(0, 2, (2, rows, width)).astype(float)
    for function in (rule.reward, rule.success, rule.terminated):
        batch = function(achieved, desired)
        loop = [function(achieved[i : i + 1], desired[i : i + 1])[0] for i in range(rows)]
        assert batch.shape == (rows,)
        np.testing.assert_array_equal(batch, loop)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_pickled_rule_gives_the_same(rule: GoalRule) -> None:
    achieved, desired = np.random.default_rng(0).integers(0, 2, (2, 7, 3)).astype(float)
    copied: GoalRule = pickle.loads(pickle.dumps(rule))
    np.testing.assert_array_equal(copied.reward(achieved, desired), rule.reward(achieved, desired))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_standing_on_the_goal_is_success_and_earns_most(rule: GoalRule) -> None:
    goals = np.random.default_rng(1).integers(0, 2, (20, 3)).astype(float)
    others = 1.0 - goals
    assert rule.success(goals, goals).all()
    assert not rule.success(others, goals).any()
    assert (rule.reward(goals, goals) > rule.reward(others, goals)).all()
    low, high = rule.reward_range
    assert ((low <= rule.reward(others, goals)) & (rule.reward(goals, goals) <= high)).all()


def test_the_sparse_reward_is_minus_one_until_success() -> None:
    achieved, desired = np.array([[0.0, 0.0], [0.0, 0.5]]), np.array([[0.3, 0.0], [0.0, 0.0]])
    rule = DistanceRule(0.5)
    np.testing.assert_array_equal(rule.reward(achieved, desired), [0.0, -1.0])
    np.testing.assert_array_equal(rule.success(achieved, desired), [True, False])


def test_the_dense_reward_is_minus_the_distance() -> None:
    reward = DistanceRule(0.5, sparse=False).reward(np.zeros((1, 2)), np.array([[3.0, 4.0]]))
    np.testing.assert_allclose(reward, [-5.0])


@pytest.mark.parametrize("terminates", [False, True])
def test_termination_follows_the_flag(terminates: bool) -> None:
    goals = np.zeros((3, 2))
    for rule in (DistanceRule(0.1, terminates=terminates), ExactRule(terminates=terminates)):
        assert (rule.terminated(goals, goals) == terminates).all()


def test_distances_are_those_of_the_norm() -> None:
    one, two = np.random.default_rng(2).normal(size=(2, 50, 4))
    np.testing.assert_allclose(goal_distance(one, two), np.linalg.norm(one - two, axis=-1))


def test_exact_goals_may_have_several_axes() -> None:
    board = np.zeros((2, 3, 3), np.int64)
    changed = board.copy()
    changed[1, 2, 2] = 1
    np.testing.assert_array_equal(ExactRule().success(board, changed), [True, False])


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan")])
def test_a_threshold_must_be_positive(threshold: float) -> None:
    with pytest.raises(ValueError, match=f"threshold must be positive, got {threshold}"):
        DistanceRule(threshold)


def test_an_unbatched_reward_is_refused_with_the_fix() -> None:
    rule = ComputedRule(lambda achieved, desired, info: -float(np.linalg.norm(achieved - desired)))
    with pytest.raises(ValueError, match=r"compute_reward returned shape \(\) for 4 .*axis=-1"):
        rule.reward(np.zeros((4, 2)), np.zeros((4, 2)))


def test_an_unbatched_true_termination_is_refused() -> None:
    rule = ComputedRule(negative_distance, lambda achieved, desired, info: True)
    with pytest.raises(ValueError, match="compute_terminated returned shape"):
        rule.terminated(np.zeros((4, 2)), np.zeros((4, 2)))


def test_success_can_be_given() -> None:
    rule = ComputedRule(negative_distance, compute_success=lambda a, d: np.abs(a - d)[:, 0] < 1)
    np.testing.assert_array_equal(
        rule.success(np.array([[0.5], [2.0]]), np.zeros((2, 1))), [True, False]
    )
