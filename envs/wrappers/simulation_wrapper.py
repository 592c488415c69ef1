"""Simulations around other simulations, as Gymnasium's wrappers are around environments."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from numpy.typing import NDArray

from rlkit.envs.simulation import Simulation, State
from rlkit.envs.simulation_env import SimulationEnv
from rlkit.goals import GoalRule


class SimulationWrapper:
    """Passes everything through to the wrapped simulation; subclasses override parts of it.

    Args:
        simulation: The simulation to wrap.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.observation_space: spaces.Dict = simulation.observation_space
        self.action_space: spaces.Space[Any] = simulation.action_space
        self.rule: GoalRule = simulation.rule
        self.draws = simulation.draws
        self.frames_per_second = simulation.frames_per_second
        self.goal_names: tuple[str, ...] = getattr(simulation, "goal_names", ())

    def initial(self, uniforms: NDArray[np.float64]) -> State:
        """Start states of the wrapped simulation."""
        return self.simulation.initial(uniforms)

    def step(self, state: State, action: NDArray[Any]) -> State:
        """Next states of the wrapped simulation."""
        return self.simulation.step(state, action)

    def observe(self, state: State) -> dict[str, NDArray[Any]]:
        """Observation dict of the wrapped simulation."""
        return self.simulation.observe(state)

    def render(self, state: State, size: int) -> NDArray[np.uint8]:
        """Image of the wrapped simulation, `(size, size, 3)`."""
        return self.simulation.render(state, size)


def family_env(family: str, arguments: dict[str, Any], wrapper: str) -> SimulationEnv:
    """An environment of this suite, whose simulation is to be wrapped.

    Args:
        family: `"module:Class"`.
        arguments: Arguments of the class.
        wrapper: The wrapper for environments without a simulation, for the error message.

    Raises:
        ValueError: If the family has no simulation.
    """
    env: Any = load_env_creator(family)(**arguments)
    if not isinstance(env, SimulationEnv):
        raise ValueError(
            f"{family!r} has no Simulation, it builds {type(env).__name__}: wrap it in {wrapper}"
        )
    return env
