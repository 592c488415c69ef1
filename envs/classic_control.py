"""Gymnasium's classic control tasks with an exact state, for the partially observable variants."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.classic_control.continuous_mountain_car import Continuous_MountainCarEnv
from gymnasium.envs.classic_control.pendulum import PendulumEnv

from rlkit.envs.rendering.drawing import AGENT, FLOOR, OBJECT, WALL
from rlkit.envs.rendering.raster import Raster, centred_view


class ExactState:
    """Gives a classic-control environment `get_state` and `set_state`.

    Attributes that matter only to rendering and to steps after the end of an episode are left out.
    """

    state: Any
    np_random: Any

    def get_state(self) -> dict[str, Any]:
        """A copy of all that is needed to continue bit for bit, random generator included."""
        return {
            "state": np.array(self.state),
            "generator": copy.deepcopy(self.np_random.bit_generator.state),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from a state that `get_state` returned, in this or another process."""
        self.state = np.array(state["state"])
        self.np_random.bit_generator.state = copy.deepcopy(state["generator"])


class Pendulum(ExactState, PendulumEnv):
    """`Pendulum-v1` with an exact state, and images that need no further package.

    Args:
        render_mode: "rgb_array" or None.
        g: Acceleration of gravity, metres per second squared.
        render_size: Width and height of an image, pixels.
    """

    def __init__(
        self, render_mode: str | None = None, g: float = 10.0, render_size: int = 240
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f'render_mode must be "rgb_array" or None, got {render_mode!r}')
        super().__init__(render_mode, g)
        self._raster = Raster(centred_view(2.5), render_size)  # metres; the rod is 1 m long

    def render(self) -> Any:
        """RGB image `(render_size, render_size, 3)`; None without a render mode."""
        if self.render_mode is None:
            return None
        angle = float(np.asarray(self.state).flat[0])
        middle, tip = np.zeros((1, 2)), np.array([[-np.sin(angle), np.cos(angle)]])
        pictures = self._raster.filled(FLOOR)
        self._raster.bar(pictures, middle, tip, 0.2, AGENT)
        self._raster.disc(pictures, middle, 0.08, WALL)
        self._raster.disc(pictures, tip, 0.17, OBJECT)
        return pictures[0]


class CartPole(ExactState, CartPoleEnv):
    """`CartPole-v1` with an exact state."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from a state that `get_state` returned, in this or another process."""
        super().set_state(state)
        self.steps_beyond_terminated = None


class MountainCarContinuous(ExactState, Continuous_MountainCarEnv):
    """`MountainCarContinuous-v0` with an exact state."""
