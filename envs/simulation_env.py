"""The single environment of a `Simulation`."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import ArrayLike, NDArray

from rlkit.envs.simulation import (
    NO_RENDER_MODE,
    RENDER_SIZE,
    Observation,
    Saved,
    Simulation,
    State,
    after_reset,
    checked_actions,
    checked_rows,
    env_metadata,
    goals,
    observe,
)
from rlkit.envs.simulation_vector_env import SimulationVectorEnv
from rlkit.goals import GoalEnv


class SimulationEnv(GoalEnv[Any]):
    """A simulation as a single `gym.Env`.

    Args:
        simulation: The physics.
        render_mode: "rgb_array" or None.
        max_episode_steps: Time limit of the task itself, which depends on the task's arguments.
            With None, only the `TimeLimit` that `gym.make` adds truncates episodes.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 (as in gym.Env)

    def __init__(
        self,
        simulation: Simulation,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        self.simulation = simulation
        self.rule = simulation.rule
        self.observation_space = simulation.observation_space
        self.action_space = simulation.action_space
        self.metadata = env_metadata(simulation, render_mode)
        self.render_mode = render_mode
        self.max_episode_steps = max_episode_steps
        self._elapsed = 0
        self._state: State | None = None

    @classmethod
    def vector(
        cls,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> SimulationVectorEnv:
        """A vector environment of `num_envs` copies of this environment.

        Args:
            num_envs: Number of environments, N.
            max_episode_steps: Steps after which an episode is truncated. It can shorten a time
                limit of the task itself, but not extend it.
            autoreset_mode: As in `SimulationVectorEnv`.
            render_mode: "rgb_array" or None.
            arguments: Arguments of this class.
        """
        env = cls(**arguments)
        limits = [n for n in (env.max_episode_steps, max_episode_steps) if n is not None]
        return SimulationVectorEnv(
            env.simulation, num_envs, min(limits, default=None), autoreset_mode, render_mode
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode with a random start state and goal; `options` are not used."""
        super().reset(seed=seed)
        uniforms = self.np_random.random(self.simulation.draws)
        self._state = self.simulation.initial(uniforms[None])
        self._elapsed = 0
        batch = observe(self.simulation, self._state)
        return _first_row(batch), {"is_success": bool(self.rule.success(*goals(batch))[0])}

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Applies one action; reward and termination refer to the goal achieved after it.

        Raises:
            ValueError: If the action does not have the space's shape, or is not finite.
        """
        actions = checked_actions(action, self.action_space, ())[None]
        self._state = self.simulation.step(after_reset(self._state, "step"), actions)
        self._elapsed += 1
        batch = observe(self.simulation, self._state)
        achieved = goals(batch)
        return (
            _first_row(batch),
            float(self.rule.reward(*achieved)[0]),
            bool(self.rule.terminated(*achieved)[0]),
            self.max_episode_steps is not None and self._elapsed >= self.max_episode_steps,
            {"is_success": bool(self.rule.success(*achieved)[0])},
        )

    def render(self) -> NDArray[np.uint8] | None:
        """RGB image `(480, 480, 3)`, or None with a warning if there is no render mode."""
        if self.render_mode is None:
            gym.logger.warn(NO_RENDER_MODE)
            return None
        return self.simulation.render(after_reset(self._state, "render"), RENDER_SIZE)

    def get_state(self) -> Saved:
        """A copy of all that is needed to continue bit for bit, random generator included."""
        return {
            "simulation": copy.deepcopy(after_reset(self._state, "get_state")),
            "elapsed": np.array(self._elapsed),
            "generator": copy.deepcopy(self.np_random.bit_generator.state),
        }

    def set_state(self, state: Saved) -> None:
        """Continues from a state that `get_state` returned, in this or another process."""
        self._state = checked_rows(state["simulation"], 1)
        self._elapsed = int(state["elapsed"])
        self.np_random.bit_generator.state = copy.deepcopy(state["generator"])


def _first_row(batch: Observation) -> Observation:
    return {name: value[0] for name, value in batch.items()}
