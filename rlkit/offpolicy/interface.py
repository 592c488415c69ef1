"""Between an environment's spaces and a learner's vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecTransposeImage, unwrap_vec_normalize

from rlkit.goals import GoalRule, is_goal_space, vector_size, vectorise
from rlkit.offpolicy.settings import LearnerConfig, Sizes
from rlkit.replay import Batch
from rlkit.vec.vec_env import vec_goal_rule

Array = NDArray[Any]
VISIBLE = "goal_visible"


class Interface:
    """Translates observations, goals and actions of one environment.

    Args:
        observation_space: Space of one environment's observation.
        action_space: Its Box or Discrete action space.
        config: The learner's settings; with memory, batches hold what it reads.
        goal_width: How much of a goal networks read, where that is less than all. Such goals are
            codes of what is achieved, and the observation is the same code already.

    Attributes:
        goal: Space of goals, None without goals.
        hides_goal: Whether an observation says by its key `goal_visible` if the goal may be seen.
        rest: Space of everything else in an observation.
        sizes: Widths of the vectors.
        stored_action: Space of actions as learner and replay hold them: Boxes scaled to [-1, 1],
            integers from 0.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        config: LearnerConfig,
        goal_width: int | None = None,
    ) -> None:
        self.goal_width = goal_width
        self.action = action_space
        self.has_memory = config.has_memory
        self.reads_reward = config.has_memory and config.previous_reward
        self.hides_goal = False
        self.goal: spaces.Space[Any] | None = None
        self.rest = observation_space
        if is_goal_space(observation_space):
            assert isinstance(observation_space, spaces.Dict)
            parts = dict(observation_space.spaces)
            self.goal = parts.pop("desired_goal")
            if not config.observe_achieved or goal_width is not None:
                parts.pop("achieved_goal")
            self.rest = spaces.Dict(parts)
            self.hides_goal = VISIBLE in parts
        self.stored_action: spaces.Space[Any] = action_space
        if isinstance(action_space, spaces.Box):
            self.stored_action = spaces.Box(-1.0, 1.0, action_space.shape, np.float32)
        self.sizes = Sizes(
            observation=vector_size(self.rest),
            goal=0 if self.goal is None else goal_width or vector_size(self.goal),
            action=vector_size(action_space),
        )

    def vectors(self, observation: Any, lead: int = 1) -> tuple[Array, Array]:
        """Raw observations as vectors `(..., F)` and goals `(..., G)`."""
        x = vectorise(self.rest, observation, lead)
        if self.goal is None:
            return x, np.zeros((*x.shape[:-1], 0), np.float32)
        return x, self._goal(observation["desired_goal"], lead)

    def _goal(self, value: Any, lead: int) -> Array:
        assert self.goal is not None
        return vectorise(self.goal, value, lead)[..., : self.goal_width]

    def visible(self, observation: Any, lead: int = 1) -> Array | None:
        """1 where the goal may be seen, else 0, `(...)`; None where it always may."""
        if not self.hides_goal:
            return None
        flag = np.asarray(observation[VISIBLE], np.float32)
        return flag.reshape(flag.shape[:lead])

    def context(self, observation: Any, rule: GoalRule | None) -> dict[str, Array | None]:
        """What acting needs beside the vectors: `visible (n,)`, and by the rule `reward (n,)`.

        Raises:
            ValueError: If the memory reads rewards, and there is no rule to work them out.
        """
        found = {"visible": self.visible(observation)}
        if self.reads_reward:
            if rule is None:
                raise ValueError(
                    "previous_reward = True: this memory reads rewards, which follow from the "
                    "environment's goal rule, and the agent has no environment; load it with one, "
                    "load(path, env), or give it one with set_env(env)"
                )
            achieved, desired = observation["achieved_goal"], observation["desired_goal"]
            found["reward"] = np.asarray(rule.reward(achieved, desired), np.float32)
        return found

    def seen(self, observation: Any) -> tuple[Array, Array]:
        """What normalisers learn from: observations `(n, F)`; goals asked for and achieved."""
        x, goal = self.vectors(observation)
        if self.goal is None:
            return x, goal
        return x, np.concatenate([goal, self._goal(observation["achieved_goal"], 1)])

    def batch(self, batch: Batch) -> dict[str, Array]:
        """A replay batch as `Learner.update` takes it."""
        observation: Any = batch.observation
        if not isinstance(self.rest, spaces.Dict):
            observation = observation["observation"]
        goal = (
            np.zeros((*batch.mask.shape, 0), np.float32)
            if self.goal is None
            else self._goal(batch.desired_goal, 2)
        )
        assert batch.bootstrap is not None
        assert batch.discount is not None
        arrays: dict[str, Any] = {
            "observation": vectorise(self.rest, observation, 2),
            "goal": goal,
            "action": batch.action,
            "reward": batch.reward,
            "discount": batch.discount,
            "mask": batch.mask.astype(np.float32),
        }
        if self.hides_goal:
            arrays["visible"] = self.visible(batch.observation, 2)
        if self.has_memory:
            arrays |= _remembered(batch)
        if batch.observation_count > batch.mask.shape[1] + 1:  # n-step sums look further ahead
            arrays["bootstrap"] = batch.bootstrap
        return arrays

    def to_env(self, stored: Array) -> Array:
        """Stored actions in the environment's own range."""
        if isinstance(self.action, spaces.Discrete):
            return np.asarray(stored + self.action.start)
        assert isinstance(self.action, spaces.Box)
        low, high = self.action.low, self.action.high
        scaled = low + 0.5 * (stored.reshape(-1, *self.action.shape) + 1.0) * (high - low)
        return np.asarray(np.clip(scaled, low, high), self.action.dtype)

    def random_actions(self, count: int, rng: np.random.Generator) -> Array:
        """Uniform actions as stored, `(count, *action)`."""
        if isinstance(self.action, spaces.Discrete):
            return rng.integers(0, int(self.action.n), size=count)
        assert isinstance(self.action, spaces.Box)
        return rng.uniform(-1, 1, size=(count, *self.action.shape)).astype(np.float32)

    def mix_in_random(self, action: Array, share: float, rng: np.random.Generator) -> Array:
        """Stored actions `(n, ...)`, each replaced by a uniform one with probability `share`."""
        if share == 0:
            return action
        replaced = rng.random(len(action)) < share
        drawn = self.random_actions(len(action), rng)
        return np.where(replaced.reshape(-1, *[1] * (drawn.ndim - 1)), drawn, action)


def _remembered(batch: Batch) -> dict[str, Array]:
    """What a memory reads beside the observation, by the names of `Learner.update`."""
    arrays: dict[str, Array] = {"is_first": batch.is_first}
    if batch.previous_action is not None:
        arrays["previous_action"] = batch.previous_action
    if batch.previous_reward is not None:
        arrays["previous_reward"] = batch.previous_reward
    return arrays | {f"hidden_state.{i}": part for i, part in enumerate(batch.hidden_state or ())}


def wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
    """What SB3 makes of an environment, but pictures keep their channels last, as they came.

    Latent models and rules of goals read them so; and `predict` gets them so, in evaluation say.

    Raises:
        ValueError: If SB3's VecNormalize would scale goals.
    """
    wrapped = OffPolicyAlgorithm._wrap_env(env, monitor_wrapper=monitor_wrapper)
    if isinstance(wrapped, VecTransposeImage) and wrapped is not env:
        wrapped = wrapped.venv
    if unwrap_vec_normalize(wrapped) is not None and is_goal_space(wrapped.observation_space):
        raise ValueError(
            "VecNormalize does not go with goals: achieved and desired ones would be scaled "
            "differently over time. This agent scales its inputs itself (normalise=True)."
        )
    return wrapped


def rule_of(env: VecEnv | None) -> GoalRule | None:
    """The goal rule of an agent's environments; None without environments, or without goals."""
    return None if env is None or not is_goal_space(env.observation_space) else vec_goal_rule(env)


def return_bounds(rule: GoalRule | None, gamma: float) -> tuple[float, float] | None:
    """Lowest and highest return that a rule's rewards allow, None where that is unbounded.

    An episode may end at once, so one reward alone is possible, too.
    """
    if rule is None:
        return None
    low, high = rule.reward_range
    horizon = 1 / max(1 - gamma, 1e-6)
    bounds = (min(low * horizon, low), max(high * horizon, high))
    return bounds if np.isfinite(bounds).all() else None


def copy_observation(observation: Any) -> Any:
    """A copy of an array, or of a dict of arrays."""
    if isinstance(observation, Mapping):
        return {key: value.copy() for key, value in observation.items()}
    return observation.copy()


def put_row(observation: Any, row: int, value: Any) -> None:
    """Writes one environment's observation into a batch of them."""
    if isinstance(observation, Mapping):
        for key, column in observation.items():
            column[row] = value[key]
    else:
        observation[row] = value
