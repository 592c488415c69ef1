"""Actions that are held for several steps of an environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from rlkit.goals.env import is_goal_space

STEPS_TAKEN = "environment_steps"
"""Key of infos: steps that the environment took in one step of its wrapper."""


class ActionRepeat(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Holds every action for several steps of the environment, or until its episode ends.

    With goals the reward is that of the last step, since the goal rule gives it for the last
    achieved goal alone, and hindsight computes it again from that goal. Without goals it is the sum
    over the steps, so that returns stay those of the environment. It is not discounted: that is for
    the agent, whose discount the environment does not know.

    An agent finds `action_repeat`, counts steps of the environment, and discounts each of its own
    decisions by `gamma ** action_repeat`.

    Source: Mnih et al. 2015, "Human-level control through deep reinforcement learning", methods
    ("frame skipping"; there frames are also pooled).

    Args:
        env: The environment, with its time limit.
        repeat: Steps for which an action is held, >= 1.

    Attributes:
        action_repeat: Those of this wrapper and of the wrapped ones together.

    Raises:
        ValueError: If `repeat` is no whole number of at least 1.
    """

    def __init__(self, env: gym.Env[Any, Any], repeat: int) -> None:
        RecordConstructorArgs.__init__(self, repeat=repeat)
        super().__init__(env)
        if not isinstance(repeat, int | np.integer) or isinstance(repeat, bool) or repeat < 1:
            raise ValueError(f"action_repeat = {repeat!r} must be a whole number of at least 1")
        inner = (
            env.get_wrapper_attr("action_repeat") if env.has_wrapper_attr("action_repeat") else 1
        )
        self.action_repeat = int(repeat) * int(inner)
        self._repeat = int(repeat)
        self._has_goals = is_goal_space(env.observation_space)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Holds an action; `info["environment_steps"]` is the number of steps taken."""
        total: Any = 0.0
        taken = 0
        for _ in range(self._repeat):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total = reward if self._has_goals else total + reward
            taken += info.get(STEPS_TAKEN, 1)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info | {STEPS_TAKEN: taken}


def make_repeating(
    make: Callable[..., gym.Env[Any, Any]], repeat: int, env_id: str, **arguments: Any
) -> gym.Env[Any, Any]:
    """An environment that holds actions for `repeat` steps; as `make` builds it where that is 1."""
    env = make(env_id, **arguments)
    return env if repeat == 1 else ActionRepeat(env, repeat)
