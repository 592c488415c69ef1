"""The contract of a goal-conditioned environment, and the way to give any environment goals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlkit.goals.rule import Array, ComputedRule, GoalRule

GOAL_KEYS = ("observation", "achieved_goal", "desired_goal")
ActType = TypeVar("ActType")


class GoalEnv(gym.Env[dict[str, Any], ActType], Generic[ActType]):
    """A `gym.Env` whose observation is `{observation, achieved_goal, desired_goal}`.

    It defines success by a `GoalRule`; the `compute_*` methods of Gymnasium-Robotics
    delegate to it and take one goal or a batch of goals, as HER implementations need.

    Attributes:
        rule: The reward, success and termination of goals.
    """

    rule: GoalRule

    def compute_reward(self, achieved_goal: Array, desired_goal: Array, info: Any = None) -> Any:
        """Reward of one goal (a float) or of a batch `(N, *goal)` (an array `(N,)`)."""
        return self._apply(self.rule.reward, achieved_goal, desired_goal)

    def compute_terminated(
        self, achieved_goal: Array, desired_goal: Array, info: Any = None
    ) -> Any:
        """Whether reaching `achieved_goal` ends the episode; one goal or a batch."""
        return self._apply(self.rule.terminated, achieved_goal, desired_goal)

    def compute_truncated(self, achieved_goal: Array, desired_goal: Array, info: Any = None) -> Any:
        """Always False: goals never truncate, time limits do; one goal or a batch."""
        return self._apply(lambda a, _: np.zeros(len(a), bool), achieved_goal, desired_goal)

    def _apply(
        self, function: Callable[[Array, Array], Array], achieved: Array, desired: Array
    ) -> Any:
        achieved, desired = np.asarray(achieved), np.asarray(desired)
        assert isinstance(self.observation_space, spaces.Dict)
        goal_shape = self.observation_space["desired_goal"].shape
        if achieved.shape == goal_shape:
            return function(achieved[None], desired[None])[0].item()
        return function(achieved, desired)


class GoalWrapper(gym.Wrapper[dict[str, Any], Any, Any, Any], GoalEnv[Any]):
    """Gives any Gymnasium environment goal keys.

    Args:
        env: The environment to wrap; its observation becomes the key `observation`.
        achieved: Maps one observation of `env` to the achieved goal.
        rule: Reward, success and termination of goals. Replaces the wrapped reward; a termination
            of the wrapped environment stays.
        goal_space: Space that desired goals are drawn from at every reset.
        sample_goal: Draws the desired goal from a `np.random.Generator` instead of `goal_space`.

    Raises:
        ValueError: If an achieved goal does not have the goal space's shape.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        achieved: Callable[[Any], Array],
        rule: GoalRule,
        goal_space: spaces.Space[Any],
        sample_goal: Callable[[np.random.Generator], Array] | None = None,
    ) -> None:
        super().__init__(env)
        self.rule = rule
        self.achieved = achieved
        self.goal_space = copy.deepcopy(
            goal_space
        )  # it is seeded here, and spaces are often shared
        self.sample_goal = sample_goal
        self.observation_space = spaces.Dict(
            observation=env.observation_space,
            achieved_goal=_reachable_space(goal_space),
            desired_goal=goal_space,
        )
        self._goal: Array | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Resets the wrapped environment and draws a new goal."""
        observation, info = self.env.reset(seed=seed, options=options)
        generator = self.env.unwrapped.np_random
        if self.sample_goal is not None:
            goal = self.sample_goal(generator)
        else:
            # A space holds a generator of its own; tie it to the environment's, which is seeded.
            self.goal_space.seed(int(generator.integers(2**31)))
            goal = self.goal_space.sample()
        self._goal = np.asarray(goal, dtype=self.goal_space.dtype)
        goals = self._observe(observation)
        info["is_success"] = bool(
            self.rule.success(goals["achieved_goal"][None], goals["desired_goal"][None])[0]
        )
        return goals, info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """Steps the wrapped environment and applies the rule to the goal after the action."""
        observation, _, terminated, truncated, info = self.env.step(action)
        goals = self._observe(observation)
        pair = goals["achieved_goal"][None], goals["desired_goal"][None]
        info["is_success"] = bool(self.rule.success(*pair)[0])
        terminated = terminated or bool(self.rule.terminated(*pair)[0])
        return goals, float(self.rule.reward(*pair)[0]), terminated, truncated, info

    def _observe(self, observation: Any) -> dict[str, Any]:
        achieved = np.asarray(self.achieved(observation), dtype=self.goal_space.dtype)
        if achieved.shape != self.goal_space.shape:
            raise ValueError(
                f"achieved(observation) gave shape {achieved.shape}, but goal_space has "
                f"{self.goal_space.shape}; both must describe the same goal"
            )
        assert self._goal is not None
        return {
            "observation": observation,
            "achieved_goal": achieved,
            "desired_goal": self._goal.copy(),
        }


def _reachable_space(goal_space: spaces.Space[Any]) -> spaces.Space[Any]:
    # Achieved goals may lie outside of the space of desired ones.
    if isinstance(goal_space, spaces.Box):
        return spaces.Box(-np.inf, np.inf, goal_space.shape, goal_space.dtype.type)
    return goal_space


def is_goal_space(space: spaces.Space[Any]) -> bool:
    """Whether an observation space has the three goal keys."""
    return isinstance(space, spaces.Dict) and all(key in space.spaces for key in GOAL_KEYS)


def is_image_space(space: spaces.Space[Any] | None, stacks: bool = False) -> bool:
    """Whether a space is one of images: uint8 of shape (height, width, channels).

    Args:
        space: The space.
        stacks: Whether stacks of images, which have more axes, count too.
    """
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    return len(space.shape) == 3 or (stacks and len(space.shape) > 3)


def goal_rule(env: gym.Env[Any, Any]) -> GoalRule:
    """The environment's rule: its own `rule`, or one made of its `compute_reward`.

    Raises:
        ValueError: If the environment has no goal keys, or neither a rule nor `compute_reward`.
    """
    if not is_goal_space(env.observation_space):
        raise ValueError(
            f"{env} has no goals: its observation space is {env.observation_space}, "
            f"not a Dict with {', '.join(GOAL_KEYS)}. Wrap it in rlkit.goals.GoalWrapper."
        )
    if env.has_wrapper_attr("rule"):
        rule: GoalRule = env.get_wrapper_attr("rule")
        return rule
    if not env.has_wrapper_attr("compute_reward"):
        raise ValueError(
            f"{env} has goal keys but neither `rule` nor "
            f"`compute_reward(achieved, desired, info)`; hindsight needs one of them"
        )
    terminated = (
        env.get_wrapper_attr("compute_terminated")
        if env.has_wrapper_attr("compute_terminated")
        else None
    )
    return ComputedRule(env.get_wrapper_attr("compute_reward"), terminated)
