"""Image observations for any environment with the render mode "rgb_array".

`PixelObservation` replaces the observation by the image of `render()`; `PixelGoals` makes images of
the goals too. `rlkit.envs.wrappers.pixel_simulation` renders the suite's own two-dimensional
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
    """Replaces the observation, or a goal dict's key `observation`, by an image.

    The image is that of `render()`, resized to a square. It shows the goal if the environment
    renders its goal. Rewards and goals are those of the wrapped environment.

    Args:
        env: The environment, made with `render_mode="rgb_array"`.
        size: Width and height, pixels, >= 1.
        grayscale: Whether images have one channel instead of three.
        frames: Number of latest images to stack along the channels, oldest first; at the start of
            an episode the first one is repeated.

    Raises:
        ValueError: If the environment has another render mode, or a number is out of range.
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
                f'images need an environment made with render_mode="rgb_array", got '
                f"{env.render_mode!r} of {env}"
            )
        self._size, self._grayscale, self._frames = int(size), grayscale, int(frames)
        self._channels = 1 if grayscale else 3
        space = _image_space(self._size, self._channels * self._frames)
        super().__init__(env, space)
        if not self._has_goals:
            self.observation_space = space

    def _on_reset(self, value: Value) -> Value:
        self._past = np.concatenate([self._resized(self.env.render())] * self._frames, axis=2)
        return self._past.copy()

    def _on_step(self, value: Value, action: Any, reward: float) -> Value:
        latest = self._resized(self.env.render())
        self._past = np.concatenate([self._past[..., self._channels :], latest], axis=2)
        return self._past.copy()

    def _resized(self, rendered: Any) -> NDArray[np.uint8]:
        """An image `(size, size, channels)` of an array `(H, W, 3)`."""
        array = np.asarray(rendered)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise ValueError(
                f"an image must be a uint8 array (H, W, 3), {self.env} gave {array.dtype} of shape "
                f"{array.shape}"
            )
        image = Image.fromarray(array)
        if self._grayscale:
            image = image.convert("L")
        if image.size != (self._size, self._size):
            image = image.resize((self._size, self._size), Image.Resampling.BOX)
        return np.array(image, np.uint8).reshape(self._size, self._size, self._channels)


class PixelGoals(PixelObservation, GoalEnv[Any]):
    """Image observations and image goals.

    `achieved_goal` is the latest image. Without a `rule` for images, reward, success and
    termination are those of the wrapped environment, and the reward of any other goal is an error.
    Hindsight needs a rule; an agent whose rewards come from a latent space has a rule of its own.

    Args:
        env: The environment, made with `render_mode="rgb_array"`; with or without goals.
        goal_picture: Returns the image of the desired goal, `(H, W, 3)` uint8, of an environment
            that was just reset, without changing it; None for the environment's own method of that
            name.
        rule: Goal rule for images `(N, size, size, channels)`; replaces the wrapped reward. A
            termination of the wrapped environment stays.
        size: As in `PixelObservation`.
        grayscale: As in `PixelObservation`.
        frames: As in `PixelObservation`; for `observation` only.

    Raises:
        ValueError: As in `PixelObservation`, and if there is no `goal_picture`.
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
                f"environment that returns the image of its desired goal"
            )
        self._goal_picture = goal_picture or _own_goal_picture
        self._has_rule = rule is not None
        self.rule = UndefinedPictureRule() if rule is None else rule
        image = _image_space(self._size, self._channels)
        self.observation_space = spaces.Dict(
            observation=_image_space(self._size, self._channels * self._frames),
            achieved_goal=image,
            desired_goal=image,
        )
        self._goal = np.zeros(image.shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode and renders its goal."""
        observation, info = super().reset(seed=seed, options=options)
        if self._has_rule:
            info["is_success"] = bool(self.rule.success(*_pair(observation))[0])
        return observation, info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """Steps the environment; with a rule, computes reward, success and termination by it."""
        observation, reward, terminated, truncated, info = super().step(action)
        if self._has_rule:
            pair = _pair(observation)
            reward = float(self.rule.reward(*pair)[0])
            terminated = terminated or bool(self.rule.terminated(*pair)[0])
            info["is_success"] = bool(self.rule.success(*pair)[0])
        return observation, reward, terminated, truncated, info

    def get_state(self) -> dict[str, Any]:
        """Past images and the goal's image, as plain data."""
        return super().get_state() | {"goal": self._goal.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from a state that `get_state` returned, in this or another process."""
        super().set_state(state)
        self._goal = np.array(state["goal"])

    def _on_reset(self, value: Value) -> Value:
        changed = super()._on_reset(value)
        self._goal = self._resized(self._goal_picture(self.env))
        return changed

    def _replaced(self, observation: Any, changed: Value) -> dict[str, Value]:
        return {
            "observation": changed,
            "achieved_goal": changed[..., -self._channels :].copy(),
            "desired_goal": self._goal.copy(),
        }


class UndefinedPictureRule:
    """The rule of image goals for which no rule was given: every method raises a ValueError."""

    reward_range = (-np.inf, np.inf)

    def reward(self, achieved: Array, desired: Array) -> FloatArray:
        """Raises ValueError."""
        raise ValueError(_UNDEFINED)

    def success(self, achieved: Array, desired: Array) -> BoolArray:
        """Raises ValueError."""
        raise ValueError(_UNDEFINED)

    def terminated(self, achieved: Array, desired: Array) -> BoolArray:
        """Raises ValueError."""
        raise ValueError(_UNDEFINED)


_UNDEFINED = (
    "the environment's own reward is not defined for two images: give PixelGoals a rule= for "
    "images, or the agent a reward in latent space"
)


def _own_goal_picture(env: gym.Env[Any, Any]) -> Any:
    return env.get_wrapper_attr("goal_picture")()


def _image_space(size: int, channels: int) -> spaces.Box:
    return spaces.Box(0, 255, (size, size, channels), np.uint8)


def _pair(observation: dict[str, Value]) -> tuple[Value, Value]:
    return observation["achieved_goal"][None], observation["desired_goal"][None]
