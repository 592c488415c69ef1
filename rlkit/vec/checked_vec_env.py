"""Checks between agents and environments: finite actions, observations of their space's shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv

from rlkit.goals import require_shapes


class CheckedVecEnv(DummyVecEnv):
    """Stable-Baselines3's `DummyVecEnv`, which would broadcast `(1,)` to `(2,)` without a word.

    Raises:
        ValueError: At a reset or step whose observation lacks a key or has another shape.
    """

    def _save_obs(self, env_idx: int, obs: Any) -> None:
        require_shapes(self.observation_space, obs)
        super()._save_obs(env_idx, obs)


def require_finite_actions(actions: Any) -> None:
    """Raises an error if an action is NaN or infinite, so that no environment ever gets it.

    Args:
        actions: `(N, *action)`.

    Raises:
        FloatingPointError: If one is.
    """
    array = np.asarray(actions)
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    raise FloatingPointError(
        f"the agent's action for environment {place[0]} is {array[place]}: its weights have "
        f"diverged, or an observation is too large for them. Lower learning_rate, scale "
        f"observations and rewards, or load an earlier checkpoint"
    )
