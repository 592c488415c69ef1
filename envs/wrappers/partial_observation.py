"""Wrappers for partial observability: hidden entries, noise, blanks, losses and delays.

They wrap any environment whose observation is an array or a goal dict. Of a goal dict they change
only the key `observation`. `achieved_goal` keeps the true values, because hindsight computes
rewards from it. An agent that also observes `achieved_goal` bypasses the wrapper: prevent that
with `observe_achieved=False`.

Wrappers that need random numbers have a generator of their own, seeded by `reset(seed=...)`, so
that the wrapped environment evolves as without them. With `get_state` and `set_state` an episode
continues bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import ArrayLike, NDArray

from rlkit.goals import is_goal_space

Value = NDArray[Any]


class ObservationTransform(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Replaces the observation; subclasses implement `_on_step`, and `_on_reset` if it differs.

    Args:
        env: The environment to wrap.
        space: Space of the new observation, or of a goal dict's new `observation`.
    """

    def __init__(self, env: gym.Env[Any, Any], space: spaces.Space[Any]) -> None:
        super().__init__(env)
        outer = env.observation_space
        self._has_goals = is_goal_space(outer)
        if isinstance(outer, spaces.Dict):
            space = spaces.Dict(outer.spaces | {"observation": space})
        self.observation_space = space
        self._past: Value = np.empty(0)
        self._generator = np.random.default_rng()
        # Two wrappers of one environment must not draw the same numbers.
        self._depth = _wrappers_of(env)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; `seed` seeds the wrapper's own generator too."""
        observation, info = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self._generator = np.random.default_rng((seed, self._depth))
        return self._replaced(observation, self._on_reset(self._read(observation))), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment and replaces the observation that it returns."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        changed = self._on_step(self._read(observation), action, float(reward))
        return self._replaced(observation, changed), reward, terminated, truncated, info

    def get_state(self) -> dict[str, Any]:
        """Past observations that the wrapper needs, and its random generator, as plain data."""
        return {
            "memory": self._past.copy(),
            "generator": copy.deepcopy(self._generator.bit_generator.state),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from a state that `get_state` returned, in this or another process."""
        self._past = np.array(state["memory"])
        self._generator.bit_generator.state = copy.deepcopy(state["generator"])

    def _on_reset(self, value: Value) -> Value:
        """The new observation after a reset; by default the same as after a step."""
        return self._on_step(value, None, 0.0)

    def _on_step(self, value: Value, action: Any, reward: float) -> Value:
        """The new observation after a step; a new array, no view of `value` or `self._past`."""
        raise NotImplementedError

    def _read(self, observation: Any) -> Value:
        return np.asarray(observation["observation"] if self._has_goals else observation)

    def _replaced(self, observation: Any, changed: Value) -> Any:
        return observation | {"observation": changed} if self._has_goals else changed


class HideIndices(ObservationTransform):
    """Removes entries of a one-dimensional observation, such as velocities.

    Args:
        env: The environment to wrap.
        indices: Entries to remove; negative indices count from the end.

    Raises:
        ValueError: If the observation is not a vector, or the indices do not fit it.
    """

    def __init__(self, env: gym.Env[Any, Any], indices: Sequence[int]) -> None:
        RecordConstructorArgs.__init__(self, indices=indices)
        self._kept, visible = without_indices(array_space(env.observation_space), indices)
        super().__init__(env, visible)

    def _on_step(self, value: Value, action: Any, reward: float) -> Value:
        kept: Value = value[self._kept]
        return kept


class ObservationNoise(ObservationTransform):
    """Adds Gaussian noise to every observation, independently at every step.

    Args:
        env: The environment to wrap.
        scale: Standard deviation in the observation's units, one number or one per entry.

    Raises:
        ValueError: If the observation is not an array of floats, or a scale is negative or
            infinite.
    """

    def __init__(self, env: gym.Env[Any, Any], scale: ArrayLike) -> None:
        RecordConstructorArgs.__init__(self, scale=scale)
        space = _real(array_space(env.observation_space), "noise")
        scales = np.asarray(scale, np.float64)
        if not (np.isfinite(scales) & (scales >= 0)).all():
            raise ValueError(f"scale must be finite and not negative, got {scale!r}")
        try:
            self._scale = np.broadcast_to(scales, space.shape)
        except ValueError:
            raise ValueError(
                f"scale has shape {scales.shape}, which does not fit observations {space.shape}"
            ) from None
        noisy = self._scale > 0
        low, high = np.where(noisy, -np.inf, space.low), np.where(noisy, np.inf, space.high)
        super().__init__(env, _box(low, high, space.dtype))

    def _on_step(self, value: Value, action: Any, reward: float) -> Value:
        noise = self._scale * self._generator.standard_normal(value.shape)
        return (value + noise).astype(value.dtype)


class Flicker(ObservationTransform):
    """Blanks observations: each one, also the first, is all zeros with a given probability.

    Source: Hausknecht and Stone 2015, "Deep Recurrent Q-Learning for Partially Observable MDPs".

    Args:
        env: The environment to wrap.
        probability: Probability of a blank, in [0, 1].

    Raises:
        ValueError: If the probability is out of range or the observation is not an array.
    """

    def __init__(self, env: gym.Env[Any, Any], probability: float) -> None:
        RecordConstructorArgs.__init__(self, probability=probability)
        self._probability = _checked_probability(probability)
        space = array_space(env.observation_space)
        if isinstance(space, spaces.Box):
            space = _box(np.minimum(space.low, 0), np.maximum(space.high, 0), space.dtype)
        super().__init__(env, space)

    def _on_step(self, value: Value, action: Any, reward: float) -> Value:
        blank = self._generator.random() < self._probability
        return np.zeros_like(value) if blank else value.copy()


class DropFrames(ObservationTransform):
    """Drops observations: with a given probability, the last one observed is repeated.

    Args:
        env: The environment to wrap.
        probability: Probability of dropping each observation but the first, in [0, 1].

    Raises:
        ValueError: If the probability is out of range or the observation is not an array.
    """

    def __init__(self, env: gym.Env[Any, Any], probability: float) -> None:
        RecordConstructorArgs.__init__(self, probability=probability)
        super().__init__(env, array_space(env.observation_space))
        self._probability = _checked_probability(probability)

    def _on_reset(self, value: Value) -> Value:
        self._past = value.copy()
        return value.copy()

    def _on_step(self, value: Value, action: Any, reward: float) -> Value:
        if self._generator.random() >= self._probability:
            self._past = value.copy()
        return self._past.copy()


class Delay(ObservationTransform):
    """Delays observations by a number of steps; the first one is repeated until then.

    Args:
        env: The environment to wrap.
        steps: Delay in steps, >= 0.

    Attributes:
        observation_delay: The delay in steps; `rlkit check-env` reads it.

    Raises:
        ValueError: If the delay is negative or not an integer, or the observation is not an array.
    """

    def __init__(self, env: gym.Env[Any, Any], steps: int) -> None:
        RecordConstructorArgs.__init__(self, steps=steps)
        if not isinstance(steps, int | np.integer) or steps < 0:
            raise ValueError(f"steps must be an integer of at least 0, got {steps!r}")
        self.observation_delay = int(steps)
        super().__init__(env, array_space(env.observation_space))

    def _on_reset(self, value: Value) -> Value:
        self._past = np.stack([value] * (self.observation_delay + 1))
        return value.copy()

    def _on_step(self, value: Value, action: Any, reward: float) -> Value:
        self._past = np.concatenate([self._past[1:], value[None]])
        oldest: Value = self._past[0].copy()
        return oldest


class PreviousStep(ObservationTransform):
    """Appends the previous action, the previous reward, or both to a vector observation.

    A discrete action is appended as a one-hot vector, a continuous one is clipped to its space. At
    the start of an episode both are zeros.

    Args:
        env: The environment to wrap.
        action: Whether to append the action.
        reward: Whether to append the reward; not for environments with goals, because hindsight
            changes the goal, and the observation would still hold the original goal's reward.

    Raises:
        ValueError: If neither is to be appended, or the reward of a goal is, the observation is
            not a vector of floats, or the action cannot be made a vector.
    """

    def __init__(self, env: gym.Env[Any, Any], action: bool = True, reward: bool = False) -> None:
        RecordConstructorArgs.__init__(self, action=action, reward=reward)
        if not (action or reward):
            raise ValueError("PreviousStep has nothing to append: set action=True or reward=True")
        if reward and is_goal_space(env.observation_space):
            raise ValueError(
                "PreviousStep(reward=True) is not for environments with goals: hindsight changes "
                "the goal, and the original goal's reward would stay in the observation. Give the "
                "agent the previous reward as a separate input, which hindsight relabels"
            )
        space = _real(_vector(array_space(env.observation_space)), "the previous step")
        self._with_action, self._with_reward = action, reward
        low, high = [space.low], [space.high]
        if action:
            self._actions = _flat_actions(env.action_space)
            low.append(np.minimum(self._actions.low, 0))
            high.append(np.maximum(self._actions.high, 0))
        if reward:
            low.append(np.array([-np.inf]))
            high.append(np.array([np.inf]))
        super().__init__(env, _box(np.concatenate(low), np.concatenate(high), space.dtype))

    def _on_reset(self, value: Value) -> Value:
        missing = self._width(value)
        return np.concatenate([value, np.zeros(missing, value.dtype)])

    def _on_step(self, value: Value, action: Any, reward: float) -> Value:
        parts = [value]
        if self._with_action:
            flat = spaces.utils.flatten(self.env.action_space, action)
            parts.append(np.clip(np.asarray(flat), self._actions.low, self._actions.high))
        if self._with_reward:
            parts.append(np.array([reward]))
        return np.concatenate(parts).astype(value.dtype)

    def _width(self, value: Value) -> int:
        return int(np.prod(array_space(self.observation_space).shape or ())) - len(value)


def array_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The space of the observation array: the whole space, or a goal dict's `observation`.

    Raises:
        ValueError: If it is not a space of arrays.
    """
    inner = space["observation"] if is_goal_space(space) else space  # type: ignore[index]
    if not isinstance(inner, spaces.Box | spaces.MultiBinary | spaces.MultiDiscrete):
        raise ValueError(
            f"the observation must be an array, alone or in a goal dict, got {inner}: wrap the "
            f"environment in gymnasium.wrappers.FlattenObservation first"
        )
    return inner


def without_indices(
    space: spaces.Space[Any], hidden: Sequence[int]
) -> tuple[NDArray[np.intp], spaces.Box]:
    """Indices of the entries that are not hidden `(K,)`, and the space of these entries.

    Raises:
        ValueError: If the space is not a vector, or the hidden indices repeat, do not exist, or
            cover all entries.
    """
    box = _vector(space)
    size = box.shape[0]
    indices = np.asarray(hidden)
    if indices.ndim != 1 or indices.dtype.kind not in "iu" or len(indices) == 0:
        raise ValueError(f"the hidden indices must be a list of integers, got {hidden!r}")
    if ((indices < -size) | (indices >= size)).any():
        raise ValueError(f"the observation has the indices 0 to {size - 1}, got {hidden!r}")
    if len(set((indices % size).tolist())) != len(indices):
        raise ValueError(f"the hidden indices repeat: {hidden!r}")
    kept = np.delete(np.arange(size), indices)
    if not len(kept):
        raise ValueError(f"hiding {hidden!r} leaves nothing of an observation of {size} entries")
    return kept, _box(box.low[kept], box.high[kept], box.dtype)


def _vector(space: spaces.Space[Any]) -> spaces.Box:
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"the observation must be a Box with one axis, got {space}")
    return space


def _real(space: spaces.Space[Any], what: str) -> spaces.Box:
    if not isinstance(space, spaces.Box) or np.dtype(space.dtype).kind != "f":
        raise ValueError(f"{what} needs an observation of floats, got {space}")
    return space


def _box(low: Value, high: Value, dtype: Any) -> spaces.Box:
    return spaces.Box(low.astype(dtype), high.astype(dtype), dtype=np.dtype(dtype).type)


def _flat_actions(space: spaces.Space[Any]) -> spaces.Box:
    flat = spaces.utils.flatten_space(space)
    if not isinstance(flat, spaces.Box):
        raise ValueError(f"the action must have a fixed size to be appended, got {space}")
    return flat


def _checked_probability(probability: float) -> float:
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must lie in [0, 1], got {probability!r}")
    return float(probability)


def _wrappers_of(env: gym.Env[Any, Any]) -> int:
    depth = 0
    while isinstance(env, gym.Wrapper):
        depth, env = depth + 1, env.env
    return depth
