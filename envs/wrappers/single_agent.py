"""One agent of a PettingZoo environment as a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.random import Generator

Policy = Callable[[Any, spaces.Space[Any], Generator], Any]
"""Chooses an action from an observation, the action space, and a random number generator."""


def random_action(observation: Any, space: spaces.Space[Any], generator: Generator) -> Any:
    """A uniformly random action, of the legal ones if the observation has an `action_mask`."""
    if isinstance(observation, dict) and "action_mask" in observation:
        return generator.choice(np.flatnonzero(observation["action_mask"]))
    space.seed(int(generator.integers(2**31)))
    return space.sample()


class SingleAgent(gym.Env[Any, Any]):
    """One agent of a PettingZoo environment acts; the others follow a given policy.

    A step lasts from one turn of the agent to the next, and its reward is the sum of what the agent
    received in between. Sources of the others: random actions, a script, or a trained agent's
    `predict`, which may be the agent's own (self-play with shared parameters).

    Args:
        env: An environment of PettingZoo's AEC interface. Wrap a parallel one in
            `pettingzoo.utils.parallel_to_aec` first.
        agent: Name of the agent that acts; the first one by default.
        others: The policy of all other agents.

    Raises:
        ValueError: If the environment has no agent of that name.
    """

    def __init__(self, env: Any, agent: str | None = None, others: Policy = random_action) -> None:
        names = list(env.possible_agents)
        self._agent = names[0] if agent is None else agent
        if self._agent not in names:
            raise ValueError(f"there is no agent {agent!r}; {env} has {', '.join(names)}")
        self._env, self._others = env, others
        self.observation_space = env.observation_space(self._agent)
        self.action_space = env.action_space(self._agent)
        self.metadata = {**env.metadata}
        self.render_mode = getattr(env, "render_mode", None)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode and plays until the agent's first turn."""
        super().reset(seed=seed)
        # Environments draw from the seed of their reset; without one, episodes would repeat.
        drawn = int(self.np_random.integers(2**31)) if seed is None else seed
        self._env.reset(seed=drawn, options=options)
        observation, _, _, _, info = self._until_turn()
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Acts and plays until the agent's next turn, or until the end of its episode."""
        self._env.step(action)
        return self._until_turn()

    def render(self) -> Any:
        """The wrapped environment's picture."""
        return self._env.render()

    def close(self) -> None:
        """Closes the wrapped environment."""
        self._env.close()

    def _until_turn(self) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        # An agent whose episode has ended gets one last turn, in which the interface wants None.
        while (name := self._env.agent_selection) != self._agent:
            observation, _, terminated, truncated, _ = self._env.last()
            action = (
                None
                if terminated or truncated
                else self._others(observation, self._env.action_space(name), self.np_random)
            )
            self._env.step(action)
        observation, reward, terminated, truncated, info = self._env.last()
        return observation, float(reward), bool(terminated), bool(truncated), dict(info)
