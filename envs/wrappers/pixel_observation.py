"""Pictures in place of vectors, for any environment that can draw itself.

`PixelObservation` shows `render()`'s picture and leaves goals alone; `PixelGoals` makes pictures of
goals too. `rlkit.envs.wrappers.pixel_simulation` renders the suite's own two-dimensional
environments much faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray
from PIL import Image

from rlkit.envs.wrappers.partial_observation import ObservationTransform, Value
from rlkit.goals import GoalEnv, GoalRule
from rlkit.goals.rule import Array, BoolArray, FloatArray


class PixelObservation(ObservationTransform):
    """Replaces the observation, or a goal dict's key `observation`, by a picture.

    The picture is what `render()` returns, squeezed to a square: an environment that draws the
    goal shows it. Rewards and goals are the wrapped environment's.

    Args:
        env: The environment, made with `render_mode="rgb_array"`.
        size: Width and height, pixels, >= 1.
        grayscale: Whether to give one channel instead of three.
        frames: How many of the latest pictures to stack along the channels, oldest first; at an
            episode's start the first one repeats.

    Raises:
        ValueError: If the environment does not draw arrays, or a number is out of range.
    """

    def __init__(
        self, env: gym.Env[Any, Any], size: int = 48, grayscale: bool = False, frames: int = 1
    ) -> None:
        RecordConstructorArgs.__init__(self, size=size, grayscale=grayscale, frames=frames)
        for name, value in (("size", size), ("frames", frames)):
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if env.render_mode != "rgb_array":
            raise ValueError(
                f'pictures need an environment made with render_mode="rgb_array", got '
                f"{env.render_mode!r} of {env}"
            )
        self._size, self._grayscale, self._frames = int(size), grayscale, int(frames)
        self._channels = 1 if grayscale else 3
        seen = _picture_space(self._size, self._channels * self._frames)
        super().__init__(env, seen)
        if not self._has_goals:
            self.observation_space = seen

    def _on_reset(self, value: Value) -> Value:
        self._memory = np.concatenate([self._small(self.env.render())] * self._frames, axis=2)
        return self._memory.copy()

    def _on_step(self, value: Value, action: Any, reward: float) -> Value:
        latest = self._small(self.env.render())
        self._memory = np.concatenate([self._memory[..., self._channels :], latest], axis=2)
        return self._memory.copy()

    def _small(self, picture: Any) -> NDArray[np.uint8]:
        """A picture `(size, size, channels)` of an array `(H, W, 3)`."""
        array = np.asarray(picture)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise ValueError(
                f"a picture is a uint8 array (H, W, 3), {self.env} gave {array.dtype} of shape "
                f"{array.shape}"
            )
        image = Image.fromarray(array)
        if self._grayscale:
            image = image.convert("L")
        if image.size != (self._size, self._size):
            image = image.resize((self._size, self._size), Image.Resampling.BOX)
        return np.array(image, np.uint8).reshape(self._size, self._size, self._channels)


class PixelGoals(PixelObservation, GoalEnv[Any]):
    """Pictures of the present, of what is achieved and of what is desired.

    `achieved_goal` is the latest picture. Without a `rule` for pictures, reward, success and ends
    are the wrapped environment's, and asking for the reward of other goals is an error: hindsight
    needs a rule, and an agent that is rewarded in a latent space brings its own.

    Args:
        env: The environment, made with `render_mode="rgb_array"`; with or without goals.
        goal_picture: Draws the desired goal from the environment just reset, `(H, W, 3)` uint8,
            and leaves it as it was; None for the environment's own method of that name.
        rule: Judges two pictures, `(N, size, size, channels)`; replaces the wrapped reward. A
            termination of the wrapped environment stays.
        size: As in `PixelObservation`.
        grayscale: As in `PixelObservation`.
        frames: As in `PixelObservation`; of `observation` alone.

    Raises:
        ValueError: As in `PixelObservation`, and if nothing draws the goals.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        goal_picture: Callable[[gym.Env[Any, Any]], Any] | None = None,
        rule: GoalRule | None = None,
        size: int = 48,
        grayscale: bool = False,
        frames: int = 1,
    ) -> None:
        RecordConstructorArgs.__init__(
            self,
            goal_picture=goal_picture,
            rule=rule,
            size=size,
            grayscale=grayscale,
            frames=frames,
        )
        super().__init__(env, size, grayscale, frames)
        if goal_picture is None and not env.has_wrapper_attr("goal_picture"):
            raise ValueError(
                f"{env} has no method goal_picture(): pass goal_picture=, a function of the "
                f"environment that returns the picture of its desired goal"
            )
        self._draw_goal = goal_picture or _own_goal_picture
        self._judges = rule is not None
        self.rule = UndefinedPictureRule() if rule is None else rule
        picture = _picture_space(self._size, self._channels)
        self.observation_space = spaces.Dict(
            observation=_picture_space(self._size, self._channels * self._frames),
            achieved_goal=picture,
            desired_goal=picture,
        )
        self._goal = np.zeros(picture.shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode and draws its goal."""
        observation, info = super().reset(seed=seed, options=options)
        if self._judges:
            info["is_success"] = bool(self.rule.success(*_pair(observation))[0])
        return observation, info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """Steps the environment; the rule for pictures, if there is one, judges the outcome."""
        observation, reward, terminated, truncated, info = super().step(action)
        if self._judges:
            pair = _pair(observation)
            reward = float(self.rule.reward(*pair)[0])
            terminated = terminated or bool(self.rule.terminated(*pair)[0])
            info["is_success"] = bool(self.rule.success(*pair)[0])
        return observation, reward, terminated, truncated, info

    def get_state(self) -> dict[str, Any]:
        """What the wrapper remembers, the goal's picture included, as plain data."""
        return super().get_state() | {"goal": self._goal.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from what `get_state` gave, here or in another process."""
        super().set_state(state)
        self._goal = np.array(state["goal"])

    def _on_reset(self, value: Value) -> Value:
        seen = super()._on_reset(value)
        self._goal = self._small(self._draw_goal(self.env))
        return seen

    def _replaced(self, observation: Any, sensed: Value) -> dict[str, Value]:
        return {
            "observation": sensed,
            "achieved_goal": sensed[..., -self._channels :].copy(),
            "desired_goal": self._goal.copy(),
        }


class UndefinedPictureRule:
    """The rule of goals that nothing can judge yet: it refuses, and says what to do."""

    reward_range = (-np.inf, np.inf)

    def reward(self, achieved: Array, desired: Array) -> FloatArray:
        """Raises ValueError."""
        raise ValueError(_UNJUDGED)

    def success(self, achieved: Array, desired: Array) -> BoolArray:
        """Raises ValueError."""
        raise ValueError(_UNJUDGED)

    def terminated(self, achieved: Array, desired: Array) -> BoolArray:
        """Raises ValueError."""
        raise ValueError(_UNJUDGED)


_UNJUDGED = (
    "the environment's own reward does not tell how near two pictures are: give PixelGoals a "
    "rule= that judges pictures, or the agent a reward in latent space"
)


def _own_goal_picture(env: gym.Env[Any, Any]) -> Any:
    return env.get_wrapper_attr("goal_picture")()


def _picture_space(size: int, channels: int) -> spaces.Box:
    return spaces.Box(0, 255, (size, size, channels), np.uint8)


def _pair(observation: dict[str, Value]) -> tuple[Value, Value]:
    return observation["achieved_goal"][None], observation["desired_goal"][None]
