"""Partial observability inside a `Simulation`, at the speed of its vector face.

`Masked` hides entries of the observation; `HiddenGoal` shows the goal for the first steps only.
For environments from elsewhere there are the wrappers of `rlkit.envs.wrappers.partial_observation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from rlkit.envs.rendering.drawing import GOAL
from rlkit.envs.simulation import Simulation, State
from rlkit.envs.simulation_env import SimulationEnv, SimulationVectorEnv
from rlkit.envs.wrappers.partial_observation import without_indices

GOAL_VISIBLE = "goal_visible"
"""Observation key: 1 where an agent may see `desired_goal`, 0 where it is hidden.

`desired_goal` is always the true one, because rewards, hindsight and evaluation need it. An
environment without the key shows its goal always.
"""
_WRAPPER = "rlkit.envs.wrappers.partial_observation.HideIndices"


class Masked:
    """A simulation of which some entries of `observation` are hidden; all else is as it was.

    Args:
        simulation: The physics.
        hidden: Indices of the entries to leave out.

    Raises:
        ValueError: If the indices do not fit the observation.
    """

    def __init__(self, simulation: Simulation, hidden: Sequence[int]) -> None:
        self.simulation = simulation
        parts = simulation.observation_space.spaces
        self._kept, sensed = without_indices(parts["observation"], hidden)
        self.observation_space = spaces.Dict(parts | {"observation": sensed})
        self.action_space = simulation.action_space
        self.rule = simulation.rule
        self.draws = simulation.draws
        self.frames_per_second = simulation.frames_per_second

    def initial(self, uniforms: NDArray[np.float64]) -> State:
        """The start states of the whole simulation."""
        return self.simulation.initial(uniforms)

    def step(self, state: State, action: NDArray[Any]) -> State:
        """The step of the whole simulation."""
        return self.simulation.step(state, action)

    def observe(self, state: State) -> dict[str, NDArray[Any]]:
        """The observation dict without the hidden entries."""
        observation = self.simulation.observe(state)
        return observation | {"observation": observation["observation"][:, self._kept]}

    def render(self, state: State, size: int) -> NDArray[np.uint8]:
        """The picture of the whole simulation."""
        return self.simulation.render(state, size)


class HiddenGoal:
    """A simulation whose goal is visible in the first steps of an episode only.

    The observation gains the key `goal_visible` `(N, 1)`; see `GOAL_VISIBLE`.

    Args:
        simulation: The physics, whose state has no array "age".
        visible_steps: In how many observations the goal is visible, the reset's included; >= 1.

    Raises:
        ValueError: If the goal would never be visible.
    """

    def __init__(self, simulation: Simulation, visible_steps: int) -> None:
        if visible_steps < 1:
            raise ValueError(
                f"visible_steps must be at least 1 (the reset's observation), or None for a goal "
                f"that is always visible, got {visible_steps}"
            )
        self.simulation = simulation
        self.visible_steps = visible_steps
        flag = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.observation_space = spaces.Dict(
            simulation.observation_space.spaces | {GOAL_VISIBLE: flag}
        )
        self.action_space = simulation.action_space
        self.rule = simulation.rule
        self.draws = simulation.draws
        self.frames_per_second = simulation.frames_per_second

    def initial(self, uniforms: NDArray[np.float64]) -> State:
        """The simulation's start states, of age 0."""
        return self.simulation.initial(uniforms) | {"age": np.zeros(len(uniforms), np.int64)}

    def step(self, state: State, action: NDArray[Any]) -> State:
        """The simulation's step; every row grows older by 1."""
        return self.simulation.step(state, action) | {"age": state["age"] + 1}

    def observe(self, state: State) -> dict[str, NDArray[Any]]:
        """The simulation's observation dict and the flag."""
        flag = self.visible(state)[:, None].astype(np.float32)
        return self.simulation.observe(state) | {GOAL_VISIBLE: flag}

    def visible(self, state: State) -> NDArray[np.bool_]:
        """Whether each row's goal is visible, `(N,)`."""
        return np.asarray(state["age"] < self.visible_steps)

    def render(self, state: State, size: int) -> NDArray[np.uint8]:
        """The simulation's picture, in a green frame while the goal is visible to the agent."""
        picture = self.simulation.render(state, size).copy()
        if self.visible(state)[0]:
            width = max(size // 60, 1)
            inside = picture[width:-width, width:-width].copy()
            picture[:] = GOAL
            picture[width:-width, width:-width] = inside
        return picture


class MaskedEnv(SimulationEnv):
    """An environment of this suite with some entries of its observation hidden.

    Args:
        family: `"module:Class"` of the environment.
        hidden: Indices of the observation's entries to leave out.
        render_mode: "rgb_array" or None.
        arguments: Those of the environment.
    """

    def __init__(
        self, family: str, hidden: Sequence[int], render_mode: str | None = None, **arguments: Any
    ) -> None:
        env = family_env(family, arguments, _WRAPPER)
        super().__init__(Masked(env.simulation, hidden), render_mode, env.max_episode_steps)


class MaskedEnvVector(SimulationVectorEnv):
    """Many `MaskedEnv` at once.

    Args:
        family: `"module:Class"` of the single environment.
        hidden: Indices of the observation's entries to leave out.
        num_envs: How many environments, N.
        max_episode_steps: As in `SimulationVectorEnv`.
        autoreset_mode: As in `SimulationVectorEnv`.
        render_mode: "rgb_array" or None.
        arguments: Those of the environment.
    """

    def __init__(
        self,
        family: str,
        hidden: Sequence[int],
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        env = family_env(family, arguments, _WRAPPER)
        super().__init__(
            Masked(env.simulation, hidden),
            num_envs,
            shortest(env.max_episode_steps, max_episode_steps),
            autoreset_mode,
            render_mode,
        )


def family_env(family: str, arguments: dict[str, Any], wrapper: str) -> SimulationEnv:
    """An environment of this suite, whose simulation is to be varied.

    Args:
        family: `"module:Class"`.
        arguments: Those of the class.
        wrapper: What does the like for environments from elsewhere, for the error.

    Raises:
        ValueError: If the family has no simulation.
    """
    env: Any = load_env_creator(family)(**arguments)
    if not isinstance(env, SimulationEnv):
        raise ValueError(
            f"{family!r} has no Simulation to vary, it builds {type(env).__name__}: wrap it in "
            f"{wrapper}"
        )
    return env


def shortest(*limits: int | None) -> int | None:
    """The shortest of time limits, None where there is none."""
    return min((limit for limit in limits if limit is not None), default=None)
