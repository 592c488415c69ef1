"""Single environments in this process, whose observations must have the shapes of their space."""

from __future__ import annotations

from typing import Any

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
