"""Conversion between an environment's spaces and a learner's vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecTransposeImage, unwrap_vec_normalize

from rlkit.goals import (
    GoalRule,
    ImageGoalRule,
    LatentDistanceRule,
    ObservationLayout,
    is_goal_space,
    simplify,
    vector_size,
)
from rlkit.latents import Autoencoder, FittedLatent
from rlkit.offpolicy.settings import Sizes
from rlkit.plugins import AGENTS
from rlkit.replay import Batch, LatentEncoder
from rlkit.vec.checked_vec_env import CheckedVecEnv
from rlkit.vec.vec_env import vec_goal_rule

Array = NDArray[Any]


class SpaceAdapter:
    """Converts observations, goals and actions of one environment.

    Args:
        observation_space: Space of one environment's observation.
        action_space: Its action space: Box, Discrete, MultiDiscrete or MultiBinary.
        observe_achieved: Whether vectors hold the achieved goal beside the observation.
        is_recurrent: Whether batches hold what recurrent encoders read.
        reads_reward: Whether acting needs the reward that an observation came with.
        goal_width: How much of a goal networks read, where that is less than all. Such goals are
            latents of what is achieved, and the observation is the same latent already.

    Attributes:
        layout: Columns of the observation vector.
        sizes: Widths of the vectors.
        stored_action: Space of actions as learner and replay buffer hold them: Boxes are vectors
            scaled to [-1, 1], integers count from 0, and those of several components are vectors.

    Raises:
        ValueError: If a space is not supported.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        observe_achieved: bool = True,
        is_recurrent: bool = False,
        reads_reward: bool = False,
        goal_width: int | None = None,
    ) -> None:
        hides_achieved = is_goal_space(observation_space) and (
            not observe_achieved or goal_width is not None
        )
        self.layout = ObservationLayout.of(
            observation_space, without=("achieved_goal",) if hides_achieved else ()
        )
        self.goal_width = goal_width
        self.is_recurrent, self.reads_reward = is_recurrent, reads_reward
        self.action = action_space
        self.stored_action, choices = _stored_action(action_space)
        self.sizes = Sizes(
            observation=self.layout.size,
            goal=0 if self.layout.goal is None else goal_width or self.layout.goal_size,
            action=sum(choices) or vector_size(action_space),
            choices=choices,
        )

    @property
    def has_goals(self) -> bool:
        """Whether observations have goals."""
        return self.layout.goal is not None

    def vectors(self, observation: Any, lead: int = 1) -> tuple[Array, Array]:
        """Raw observations as vectors `(..., F)` and goals `(..., G)`."""
        x = self.layout.vector(observation, lead)
        if not self.has_goals:
            return x, np.zeros((*x.shape[:-1], 0), np.float32)
        return x, self._goal(observation["desired_goal"], lead)

    def _goal(self, value: Any, lead: int) -> Array:
        return self.layout.goal_vector(value, lead)[..., : self.goal_width]

    def acting_inputs(self, observation: Any, rule: GoalRule | None) -> dict[str, Array | None]:
        """What acting needs beside the vectors: `visible (n,)`, and by the rule `reward (n,)`.

        Raises:
            ValueError: If the encoder reads rewards, and there is no rule to compute them.
        """
        found = {"visible": self.layout.visible(observation)}
        if self.reads_reward:
            if rule is None:
                raise ValueError(
                    "previous_reward = True: this encoder reads rewards, which follow from the "
                    "environment's goal rule, and the agent has no environment; load it with one, "
                    "load(path, env), or give it one with set_env(env)"
                )
            achieved, desired = observation["achieved_goal"], observation["desired_goal"]
            found["reward"] = np.asarray(rule.reward(achieved, desired), np.float32)
        return found

    def normaliser_rows(self, observation: Any) -> tuple[Array, Array]:
        """What running moments take in: observations `(n, F)`; goals desired and achieved."""
        x, goal = self.vectors(observation)
        if not self.has_goals:
            return x, goal
        return x, np.concatenate([goal, self._goal(observation["achieved_goal"], 1)])

    def batch(self, batch: Batch) -> dict[str, Array]:
        """A replay batch as vectors, for `GradientLearner.update`.

        Returns:
            `observation (B, L, F)` with L = T + 1 or more, `goal (B, T, G)`, `action (B, T, ...)`,
            `reward`, `discount`, `mask (B, T)`, what the losses weight records by; `bootstrap (B,
            T)` where the value does not bootstrap from the next observation; `visible (B, L)` where
            goals are hidden; `steps_to_goal (B, T)` where requested; `importance (B,)` where steps
            are drawn by priority. For a recurrent agent also `is_first (B, L)`, and
            `previous_action`, `previous_reward (B, L)` and `hidden_state.0 (B, ...)` as its
            settings require.
        """
        observation: Any = batch.observation
        if not isinstance(self.layout.space, spaces.Dict):
            observation = observation["observation"]
        goal = (
            self._goal(batch.desired_goal, 2)
            if self.has_goals
            else np.zeros((*batch.mask.shape, 0), np.float32)
        )
        arrays: dict[str, Any] = {
            "observation": self.layout.vector(observation, 2),
            "goal": goal,
            "action": batch.action,
            "reward": batch.reward,
            "discount": batch.discount,
            "mask": batch.loss_weight(),
        }
        more = {"steps_to_goal": batch.steps_to_goal, "importance": batch.importance}
        arrays |= {name: array for name, array in more.items() if array is not None}
        if self.layout.hides_goal:
            arrays["visible"] = self.layout.visible(batch.observation, 2)
        if batch.observation_count > batch.mask.shape[1] + 1:  # n-step sums look further ahead
            arrays["bootstrap"] = batch.bootstrap
        if not self.is_recurrent:
            return arrays
        optional = {
            "is_first": batch.is_first,
            "previous_action": batch.previous_action,
            "previous_reward": batch.previous_reward,
            **{f"hidden_state.{i}": part for i, part in enumerate(batch.hidden_state or ())},
        }
        return arrays | {name: array for name, array in optional.items() if array is not None}

    def to_env(self, stored: Array) -> Array:
        """Stored actions `(n, ...)` in the environment's own range and shape."""
        space = self.action
        if isinstance(space, spaces.Discrete):
            return np.asarray(stored + space.start)
        shaped = stored.reshape(-1, *(space.shape or ()))
        if isinstance(space, spaces.MultiDiscrete):
            return np.asarray(shaped + space.start, space.dtype)
        if not isinstance(space, spaces.Box):
            return np.asarray(shaped, space.dtype)
        scaled = space.low + 0.5 * (shaped + 1.0) * (space.high - space.low)
        if np.issubdtype(space.dtype, np.integer):
            scaled = np.rint(scaled)  # or the highest number is hardly ever chosen
        return np.asarray(np.clip(scaled, space.low, space.high), space.dtype)

    def random_actions(self, count: int, rng: np.random.Generator) -> Array:
        """Uniform actions as stored, `(count, *action)`."""
        if isinstance(self.action, spaces.Discrete):
            return rng.integers(0, int(self.action.n), size=count)
        if self.sizes.choices:
            return np.stack([rng.integers(0, n, size=count) for n in self.sizes.choices], axis=-1)
        return rng.uniform(-1, 1, size=(count, self.sizes.action)).astype(np.float32)

    def mix_in_random(self, action: Array, share: float, rng: np.random.Generator) -> Array:
        """Stored actions `(n, ...)`, each replaced by a uniform one with probability `share`."""
        if share == 0:
            return action
        replaced = rng.random(len(action)) < share
        drawn = self.random_actions(len(action), rng)
        return np.where(replaced.reshape(-1, *[1] * (drawn.ndim - 1)), drawn, action)


def _stored_action(space: spaces.Space[Any]) -> tuple[spaces.Space[Any], tuple[int, ...]]:
    """Space of actions as they are stored, and the choices of each component of several."""
    match space:
        case spaces.Box():
            return spaces.Box(-1.0, 1.0, (math.prod(space.shape),), np.float32), ()
        case spaces.MultiDiscrete():
            choices = tuple(int(n) for n in space.nvec.reshape(-1))
        case spaces.MultiBinary():
            choices = (2,) * math.prod(space.shape)
        case _:
            return space, ()
    return spaces.MultiDiscrete(np.array(choices)), choices


class ObservationEncoder:
    """What an agent makes of raw observations: nothing, without a latent model.

    `rlkit.offpolicy.observation_encoder.LatentObservationEncoder` replaces images by latents.

    Args:
        space: Space of one environment's raw observation.
        rule: The environment's goal rule; None without goals, or without an environment.

    Attributes:
        space: Space of the observations that the agent works with.
        rule: Goal rule for goals in that form.
        goal_width: How much of a goal networks read; None for all.
        latent: The fitted latent model; None without one.
        latent_rule: The rule on latents that replaces the environment's rewards; None without one.
        latent_encoder: What the replay buffer reads stored images through; None where it stores
            what the agent works with.
        joint: The latent model that the learner trains and encodes images with; they are passed
            through here. None without one.
        age: Environment steps since the latent model was fitted.
    """

    goal_width: int | None = None
    latent: FittedLatent | None = None
    latent_rule: LatentDistanceRule | None = None
    joint: Autoencoder | None = None
    is_ready = True
    is_stale = False
    age = 0

    def __init__(self, space: spaces.Space[Any], rule: GoalRule | None) -> None:
        self.raw_space = self.space = space
        self.set_rule(rule)

    def set_rule(self, rule: GoalRule | None) -> None:
        """Takes over an environment's goal rule; `space` and `rule` follow from it."""
        self.rule = rule
        self._image_rule: ImageGoalRule | None = rule if isinstance(rule, ImageGoalRule) else None

    @property
    def latent_encoder(self) -> LatentEncoder | None:
        """See the class."""
        return None

    @property
    def stored_space(self) -> spaces.Space[Any]:
        """Space of observations as the replay buffer stores them."""
        return self.space if self.latent_encoder is None else self.raw_space

    def to_stored(self, observation: Any) -> Any:
        """A batch of raw observations `(n, ...)` as the replay buffer stores them."""
        return observation

    def to_stored_one(self, observation: Any) -> Any:
        """One raw observation as the replay buffer stores it."""
        return observation

    def from_stored(self, stored: Any) -> Any:
        """A batch of stored observations as the agent works with them."""
        return stored

    def encode_observation(self, observation: Any) -> Any:
        """A batch of raw observations `(n, ...)` as the agent works with them."""
        return observation

    def reward(self, rewards: Array, observation: Any, next_observation: Any) -> Array:
        """Rewards `(n,)` of a step: the environment's, unless the latent model gives them.

        Args:
            rewards: The environment's.
            observation: As stored, before the step.
            next_observation: As the agent works with it, after the step.
        """
        return rewards

    def readable_goal(self, goal: Array) -> Array:
        """The part of a stored goal that can be plotted: positions, not latents or images."""
        if self._image_rule is None:
            return goal
        return np.asarray(self._image_rule.goal_vector(goal[None])[0])

    def state_dict(self) -> dict[str, Any]:
        """The latent model's parameters, version and age; empty without one."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            ValueError: If it belongs to another latent model.
        """


def wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
    """Wraps an environment as SB3 does, but leaves the channels of images last.

    Latent models and goal rules read them so, and `predict` gets them so in evaluations. A single
    environment's spaces are converted where they have to be, see `rlkit.goals.SimpleSpaces`.

    Raises:
        ValueError: If a space is not supported, the bounds of actions are not finite, or SB3's
            VecNormalize would scale goals.
    """
    if isinstance(env, gym.Env):
        env = simplify(env)
        if monitor_wrapper and not is_wrapped(env, Monitor):
            env = Monitor(env)
        single = env
        env = CheckedVecEnv([lambda: single])
    require_finite_bounds(env.action_space)
    wrapped = OffPolicyAlgorithm._wrap_env(env, monitor_wrapper=monitor_wrapper)
    if isinstance(wrapped, VecTransposeImage) and wrapped is not env:
        wrapped = wrapped.venv
    if unwrap_vec_normalize(wrapped) is not None and is_goal_space(wrapped.observation_space):
        raise ValueError(
            "VecNormalize does not go with goals: achieved and desired ones would be scaled "
            "differently over time. This agent scales its inputs itself (normalise=True)."
        )
    return wrapped


class ActionSpaceError(ValueError, AssertionError):
    """Actions that an agent does not support; Stable-Baselines3 raises an AssertionError there."""


def require_finite_bounds(space: spaces.Space[Any]) -> None:
    """Raises an `ActionSpaceError` if a Box of actions has a bound that is infinite."""
    if not isinstance(space, spaces.Box):
        return
    infinite = np.argwhere(~(np.isfinite(space.low) & np.isfinite(space.high)))
    if len(infinite):
        at = tuple(int(i) for i in infinite[0])
        raise ActionSpaceError(
            f"the action's bounds at index {at} are [{space.low[at]}, {space.high[at]}], and "
            f"agents scale actions to finite ones: declare finite bounds in action_space, or wrap "
            f"the environment in gymnasium.wrappers.TransformAction(env, lambda a: a, finite_box)"
        )


def require_action_space(
    agent: str, space: spaces.Space[Any], supported: tuple[type[spaces.Space[Any]], ...]
) -> None:
    """Refuses an action space that an agent does not support.

    Raises:
        ActionSpaceError: If so; the message names the installed agents that do.
    """
    if isinstance(space, supported):
        return
    fitting = [
        name
        for name in AGENTS.names()
        if isinstance(space, getattr(AGENTS.load(name), "action_spaces", ()))
    ]
    can = ", ".join(kind.__name__ for kind in supported)
    advice = f"choose {' or '.join(fitting)}" if fitting else "no installed agent supports it"
    if isinstance(space, spaces.Tuple | spaces.Dict):
        advice = "wrap each environment in rlkit.goals.SimpleSpaces"
    given = f"Box of shape {space.shape}" if isinstance(space, spaces.Box) else space
    raise ActionSpaceError(
        f"{agent} supports actions of {can}, and the environment's are {given}: {advice}"
    )


def rule_of(env: VecEnv | None) -> GoalRule | None:
    """The goal rule of an agent's environments; None without environments, or without goals."""
    return None if env is None or not is_goal_space(env.observation_space) else vec_goal_rule(env)


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
