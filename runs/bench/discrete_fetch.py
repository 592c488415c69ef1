"""FetchReach with six discrete moves, for agents with discrete actions.

    rlkit train --env discrete_fetch:DiscreteFetchReach-v0 --agent dqn

from this folder; importing the module registers the id.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.envs.make import make

MOVES = np.concatenate([np.eye(3, 4), -np.eye(3, 4)]).astype(np.float32)


class DiscreteMoves(gym.ActionWrapper[Any, Any, Any]):
    """Moves the gripper by its full speed along one axis, forwards or backwards."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.action_space = spaces.Discrete(len(MOVES))

    def action(self, action: Any) -> NDArray[np.float32]:
        """The displacement `(4,)` of a discrete action."""
        return np.asarray(MOVES[int(action)])

    def get_state(self) -> dict[str, Any]:
        """The wrapper has no state; defining this lets runs resume within an episode."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def build(**kwargs: Any) -> gym.Env[Any, Any]:
    """FetchReach in the wrapper."""
    return DiscreteMoves(make("FetchReach-v4", **kwargs))


gym.register("DiscreteFetchReach-v0", entry_point="discrete_fetch:build")
