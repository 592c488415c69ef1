from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from rlkit.goals import ComputedRule, DistanceRule, GoalWrapper, goal_rule, is_goal_space

GOALS = spaces.Box(-1.0, 1.0, (2,), np.float32)


def pendulum(**changes: Any) -> GoalWrapper:
    arguments: dict[str, Any] = {
        "achieved": lambda observation: observation[:2],
        "rule": DistanceRule(0.3, terminates=True),
        "goal_space": GOALS,
    }
    return GoalWrapper(gym.make("Pendulum-v1"), **arguments | changes)


def test_observations_lie_in_the_goal_space() -> None:
    env = pendulum()
    assert is_goal_space(env.observation_space)
    observation, info = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    next_observation = env.step(env.action_space.sample())[0]
    assert env.observation_space.contains(next_observation)
    np.testing.assert_array_equal(next_observation["desired_goal"], observation["desired_goal"])
    assert isinstance(info["is_success"], bool)


def test_step_applies_the_rule_after_the_action() -> None:
    env = pendulum()
    env.reset(seed=3)
    env.action_space.seed(0)
    for _ in range(100):
        observation, reward, terminated, _, info = env.step(env.action_space.sample())
        pair = observation["achieved_goal"], observation["desired_goal"]
        np.testing.assert_array_equal(pair[0], observation["observation"][:2])
        assert reward == env.compute_reward(*pair)
        assert terminated == env.compute_terminated(*pair) == info["is_success"]


def test_compute_methods_take_one_goal_or_a_batch() -> None:
    env = pendulum()
    achieved, desired = np.zeros((5, 2), np.float32), np.eye(5, 2, dtype=np.float32)
    one = env.compute_reward(achieved[0], desired[0])
    assert isinstance(one, float)
    assert one == -1.0
    np.testing.assert_array_equal(
        env.compute_reward(achieved, desired, {}), [-1.0, -1.0, 0.0, 0.0, 0.0]
    )
    np.testing.assert_array_equal(
        env.compute_terminated(achieved, desired, {}), [False, False, True, True, True]
    )
    np.testing.assert_array_equal(env.compute_truncated(achieved, desired, {}), [False] * 5)


def test_seeds_fix_the_goals() -> None:
    env = pendulum()
    goals = [env.reset(seed=seed)[0]["desired_goal"] for seed in (5, 6, 5)]
    np.testing.assert_array_equal(goals[0], goals[2])
    assert not np.array_equal(goals[0], goals[1])
    assert not np.array_equal(goals[0], env.reset()[0]["desired_goal"])


def test_two_environments_may_share_a_goal_space() -> None:
    one, two = pendulum(), pendulum()
    first = one.reset(seed=5)[0]["desired_goal"]
    two.reset(seed=9)
    one.reset(seed=5)
    np.testing.assert_array_equal(one.reset(seed=5)[0]["desired_goal"], first)


def test_goals_can_be_drawn_by_a_function() -> None:
    env = pendulum(sample_goal=lambda rng: np.array([rng.random(), 2.0]))
    goal = env.reset(seed=0)[0]["desired_goal"]
    assert goal[1] == 2.0
    assert goal.dtype == np.float32


def test_returned_goals_are_copies() -> None:
    env = pendulum()
    observation, _ = env.reset(seed=0)
    kept = observation["desired_goal"].copy()
    observation["desired_goal"][:] = 9.0
    next_observation = env.step(env.action_space.sample())[0]
    np.testing.assert_array_equal(next_observation["desired_goal"], kept)


def test_the_wrapped_termination_stays() -> None:
    env = GoalWrapper(
        gym.make("CartPole-v1"),
        achieved=lambda observation: observation[:1],
        rule=DistanceRule(1e-9),
        goal_space=spaces.Box(2.0, 3.0, (1,), np.float32),
    )
    env.reset(seed=0)
    terminated, steps = False, 0
    while not terminated and steps < 20:
        _, _, terminated, _, info = env.step(1)
        steps += 1
    assert terminated
    assert not info["is_success"]


def test_a_wrong_shape_is_named() -> None:
    env = pendulum(achieved=lambda observation: observation)
    with pytest.raises(ValueError, match=r"gave shape \(3,\), but goal_space has \(2,\)"):
        env.reset(seed=0)


def test_the_rule_of_an_environment_is_found_through_wrappers() -> None:
    env = pendulum()
    assert goal_rule(gym.wrappers.ClipAction(env)) is env.rule


def test_a_rule_is_made_of_compute_reward() -> None:
    class Plain(gym.Env[Any, Any]):
        observation_space = spaces.Dict(observation=GOALS, achieved_goal=GOALS, desired_goal=GOALS)

        def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
            return -np.linalg.norm(achieved - desired, axis=-1)

    rule = goal_rule(Plain())
    assert isinstance(rule, ComputedRule)
    np.testing.assert_array_equal(rule.reward(np.zeros((2, 2)), np.eye(2)), [-1.0, -1.0])
    np.testing.assert_array_equal(rule.terminated(np.zeros((2, 2)), np.eye(2)), [False, False])


def test_the_error_without_goals_names_the_wrapper() -> None:
    with pytest.raises(ValueError, match="GoalWrapper"):
        goal_rule(gym.make("CartPole-v1"))


def test_goal_keys_without_a_reward_are_refused() -> None:
    class Mute(gym.Env[Any, Any]):
        observation_space = spaces.Dict(observation=GOALS, achieved_goal=GOALS, desired_goal=GOALS)

    with pytest.raises(ValueError, match="neither `rule` nor"):
        goal_rule(Mute())
