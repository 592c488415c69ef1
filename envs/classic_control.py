"""Gymnasium's classic control with an exact state: what the registered partial variants wrap."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.classic_control.continuous_mountain_car import Continuous_MountainCarEnv
from gymnasium.envs.classic_control.pendulum import PendulumEnv


class ExactState:
    """Gives a classic-control environment `get_state` and `set_state`.

    What is left out matters to pictures and to steps after an episode's end only.
    """

    state: Any
    np_random: Any

    def get_state(self) -> dict[str, Any]:
        """Everything needed to continue bit for bit, generator included; nothing is shared."""
        return {
            "state": np.array(self.state),
            "generator": copy.deepcopy(self.np_random.bit_generator.state),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from what `get_state` gave, here or in another process."""
        self.state = np.array(state["state"])
        self.np_random.bit_generator.state = copy.deepcopy(state["generator"])


class Pendulum(ExactState, PendulumEnv):
    """`Pendulum-v1` with an exact state."""

    last_u: Any = None  # drawn as an arrow; a restored episode has none before its first step


class CartPole(ExactState, CartPoleEnv):
    """`CartPole-v1` with an exact state."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from what `get_state` gave, here or in another process."""
        super().set_state(state)
        self.steps_beyond_terminated = None


class MountainCarContinuous(ExactState, Continuous_MountainCarEnv):
    """`MountainCarContinuous-v0` with an exact state."""
