"""What an agent senses of an environment: entries hidden, values noisy, late or missing.

The wrappers take any environment whose observation is an array, or a goal dict, of which they
change the key `observation` alone. `achieved_goal` stays the truth, because hindsight judges by it.
An agent that senses it sees past the wrapper: switch it off with `observe_achieved=False`.

Wrappers that draw random numbers have a generator of their own, seeded by `reset(seed=...)`: the
environment inside starts and moves as it would without them. Their `get_state` and `set_state`
continue an episode bit for bit.
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
    """Replaces what is sensed, as its subclasses say in `_first` and `_following`.

    Args:
        env: The environment to wrap.
        sensed: Space of what replaces the observation, or the goal dict's key `observation`.
    """

    def __init__(self, env: gym.Env[Any, Any], sensed: spaces.Space[Any]) -> None:
        super().__init__(env)
        outer = env.observation_space
        self._has_goals = is_goal_space(outer)
        if isinstance(outer, spaces.Dict):
            sensed = spaces.Dict(outer.spaces | {"observation": sensed})
        self.observation_space = sensed
        self._memory: Value = np.empty(0)
        self._generator = np.random.default_rng()
        # Two wrappers of one environment must not draw the same numbers.
        self._depth = _wrappers_of(env)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; a seed starts the wrapper's own random numbers too."""
        observation, info = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self._generator = np.random.default_rng((seed, self._depth))
        return self._replaced(observation, self._on_reset(self._read(observation))), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment; only the observation differs from what it returned."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        sensed = self._on_step(self._read(observation), action, float(reward))
        return self._replaced(observation, sensed), reward, terminated, truncated, info

    def get_state(self) -> dict[str, Any]:
        """What the wrapper remembers, and its generator, as plain data."""
        return {
            "memory": self._memory.copy(),
            "generator": copy.deepcopy(self._generator.bit_generator.state),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from what `get_state` gave, here or in another process."""
        self._memory = np.array(state["memory"])
        self._generator.bit_generator.state = copy.deepcopy(state["generator"])

    def _on_reset(self, value: Value) -> Value:
        """What is sensed of a reset's observation: of any other's, unless overridden."""
        return self._on_step(value, None, 0.0)

    def _on_step(self, value: Value, action: Any, reward: float) -> Value:
        """What is sensed of the observation after a step; must not alias `value` or memory."""
        raise NotImplementedError

    def _read(self, observation: Any) -> Value:
        return np.asarray(observation["observation"] if self._has_goals else observation)

    def _replaced(self, observation: Any, sensed: Value) -> Any:
        return observation | {"observation": sensed} if self._has_goals else sensed


class HideIndices(ObservationTransform):
    """Removes entries of a one-dimensional observation, such as velocities.

    Args:
        env: The environment to wrap.
        indices: Which entries to remove; negative ones count from the end.

    Raises:
        ValueError: If the observation is no vector, or the indices do not fit it.
    """

    def __init__(self, env: gym.Env[Any, Any], indices: Sequence[int]) -> None:
        RecordConstructorArgs.__init__(self, indices=indices)
        self._kept, sensed = without_indices(array_space(env.observation_space), indices)
        super().__init__(env, sensed)

    def _on_step(self, value: Value, action: Any, reward: float) -> Value:
        kept: Value = value[self._kept]
        return kept


class ObservationNoise(ObservationTransform):
    """Adds Gaussian noise to every observation, independently at every step.

    Args:
        env: The environment to wrap.
        scale: Standard deviation in the observation's units, one for all entries or one each.

    Raises:
        ValueError: If the observation holds no real numbers, or a scale is negative or infinite.
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
    """Blanks observations: each one, the first included, is all zeros with a probability.

    Source: Hausknecht and Stone 2015, "Deep Recurrent Q-Learning for Partially Observable MDPs".

    Args:
        env: The environment to wrap.
        probability: Of a blank, in [0, 1].

    Raises:
        ValueError: If the probability is out of range or the observation is no array.
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
    """Loses observations: each one but the first is the last one shown, with a probability.

    Args:
        env: The environment to wrap.
        probability: Of a loss, in [0, 1].

    Raises:
        ValueError: If the probability is out of range or the observation is no array.
    """

    def __init__(self, env: gym.Env[Any, Any], probability: float) -> None:
        RecordConstructorArgs.__init__(self, probability=probability)
        self._probability = _checked_probability(probability)
        super().__init__(env, array_space(env.observation_space))

    def _on_reset(self, value: Value) -> Value:
        self._memory = value.copy()
        return value.copy()

    def _on_step(self, value: Value, action: Any, reward: float) -> Value:
        if self._generator.random() >= self._probability:
            self._memory = value.copy()
        return self._memory.copy()


class Delay(ObservationTransform):
    """Shows the observation of some steps ago; until there is one, the first.

    Args:
        env: The environment to wrap.
        steps: How many steps ago, >= 0.

    Attributes:
        observation_delay: The same; it tells checks that what is late is so by intention.

    Raises:
        ValueError: If the steps are negative or no integer, or the observation is no array.
    """

    def __init__(self, env: gym.Env[Any, Any], steps: int) -> None:
        RecordConstructorArgs.__init__(self, steps=steps)
        if not isinstance(steps, int | np.integer) or steps < 0:
            raise ValueError(f"steps must be an integer of at least 0, got {steps!r}")
        self.observation_delay = int(steps)
        super().__init__(env, array_space(env.observation_space))

    def _on_reset(self, value: Value) -> Value:
        self._memory = np.stack([value] * (self.observation_delay + 1))
        return value.copy()

    def _on_step(self, value: Value, action: Any, reward: float) -> Value:
        self._memory = np.concatenate([self._memory[1:], value[None]])
        oldest: Value = self._memory[0].copy()
        return oldest


class PreviousStep(ObservationTransform):
    """Appends the previous action, the previous reward, or both to a vector observation.

    A discrete action is appended one-hot, a continuous one clipped to its space. At the start of
    an episode there is neither, and zeros stand in.

    Args:
        env: The environment to wrap.
        action: Whether to append the action.
        reward: Whether to append the reward; not for goals, since hindsight would change the goal
            and leave the old goal's reward inside the observation.

    Raises:
        ValueError: If nothing or a goal's reward is asked for, the observation is no vector of
            real numbers, or the action cannot be made a vector.
    """

    def __init__(self, env: gym.Env[Any, Any], action: bool = True, reward: bool = False) -> None:
        RecordConstructorArgs.__init__(self, action=action, reward=reward)
        if not (action or reward):
            raise ValueError("PreviousStep has nothing to append: set action=True or reward=True")
        if reward and is_goal_space(env.observation_space):
            raise ValueError(
                "PreviousStep(reward=True) is not for environments with goals: hindsight changes "
                "the goal, and the old goal's reward would stay in the observation. Give the "
                "agent the previous reward as an input of its own, which hindsight rewrites"
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
        sensed = array_space(self.observation_space)
        return int(np.prod(sensed.shape or ())) - len(value)


def array_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The space of what is sensed: the whole observation, or a goal dict's key `observation`.

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
    """The entries of a vector space that are not hidden, and the space of these.

    Raises:
        ValueError: If the space is no vector, or the indices repeat, do not exist, or are all.
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
        raise ValueError(f"{what} needs an observation of real numbers, got {space}")
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
