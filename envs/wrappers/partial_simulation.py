"""Partial observability inside a `Simulation`, at the speed of a native vector environment.

`Masked` hides entries of the observation; `HiddenGoal` hides the goal after the first steps. For
all other environments there are the wrappers of `rlkit.envs.wrappers.partial_observation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.envs.rendering.drawing import GOAL
from rlkit.envs.simulation import Simulation, State
from rlkit.envs.simulation_env import SimulationEnv
from rlkit.envs.wrappers.partial_observation import without_indices
from rlkit.envs.wrappers.simulation_wrapper import SimulationWrapper, family_env

GOAL_VISIBLE = "goal_visible"
"""Observation key: 1 where an agent may read `desired_goal`, 0 where it is hidden.

`desired_goal` is always the true goal, because rewards, hindsight and evaluation need it. In an
environment without this key the goal is always visible.
"""
_WRAPPER = "rlkit.envs.wrappers.partial_observation.HideIndices"


class Masked(SimulationWrapper):
    """A simulation with some entries of `observation` removed; nothing else changes.

    Args:
        simulation: The simulation to wrap.
        hidden: Indices of the entries to remove.

    Raises:
        ValueError: If the indices do not fit the observation.
    """

    def __init__(self, simulation: Simulation, hidden: Sequence[int]) -> None:
        super().__init__(simulation)
        parts = simulation.observation_space.spaces
        self._kept, visible = without_indices(parts["observation"], hidden)
        self.observation_space = spaces.Dict(parts | {"observation": visible})

    def observe(self, state: State) -> dict[str, NDArray[Any]]:
        """Observation dict without the hidden entries."""
        observation = self.simulation.observe(state)
        return observation | {"observation": observation["observation"][:, self._kept]}


class HiddenGoal(SimulationWrapper):
    """A simulation whose goal is visible in the first steps of an episode only.

    Adds the key `goal_visible` `(N, 1)` to the observation; see `GOAL_VISIBLE`.

    Args:
        simulation: The simulation to wrap; its state has no array "age".
        visible_steps: Number of observations with a visible goal, the reset's included; >= 1.

    Raises:
        ValueError: If the goal would never be visible.
    """

    def __init__(self, simulation: Simulation, visible_steps: int) -> None:
        if visible_steps < 1:
            raise ValueError(
                f"visible_steps must be at least 1 (the reset's observation), or None for a goal "
                f"that is always visible, got {visible_steps}"
            )
        super().__init__(simulation)
        self.visible_steps = visible_steps
        flag = spaces.Box(0.0, 1.0, (1,), np.float32)
        parts = simulation.observation_space.spaces
        self.observation_space = spaces.Dict(parts | {GOAL_VISIBLE: flag})

    def initial(self, uniforms: NDArray[np.float64]) -> State:
        """Start states of the wrapped simulation, at age 0."""
        return self.simulation.initial(uniforms) | {"age": np.zeros(len(uniforms), np.int64)}

    def step(self, state: State, action: NDArray[Any]) -> State:
        """Next states of the wrapped simulation; the age grows by 1."""
        return self.simulation.step(state, action) | {"age": state["age"] + 1}

    def observe(self, state: State) -> dict[str, NDArray[Any]]:
        """Observation dict of the wrapped simulation and the flag."""
        flag = self.visible(state)[:, None].astype(np.float32)
        return self.simulation.observe(state) | {GOAL_VISIBLE: flag}

    def visible(self, state: State) -> NDArray[np.bool_]:
        """Whether each row's goal is visible, `(N,)`."""
        return np.asarray(state["age"] < self.visible_steps)

    def render(self, state: State, size: int) -> NDArray[np.uint8]:
        """Image of the wrapped simulation, with a green border while the goal is visible."""
        image = self.simulation.render(state, size).copy()
        if self.visible(state)[0]:
            width = max(size // 60, 1)
            inside = image[width:-width, width:-width].copy()
            image[:] = GOAL
            image[width:-width, width:-width] = inside
        return image


class MaskedEnv(SimulationEnv):
    """An environment of this suite with some entries of its observation removed.

    ## Description
    Dynamics, actions, goals, rewards, start states and time limits are those of the family. The
    registered ids hide all velocities, so that the tasks are partially observable:

    | Id | Hidden entries | Arguments |
    |---|---|---|
    | `rlkit/PointMaze-U-HiddenVelocity-v0` | 2, 3: velocity | `damping=0.3` |
    | `rlkit/PlanarReach-HiddenVelocity-v0` | 4, 5: joint velocities | |
    | `rlkit/PlanarPush-HiddenVelocity-v0` | 2, 3, 6, 7: velocities | `damping=3`, `friction=0.15` |

    ## Observation Space
    That of the family; `observation` lacks the hidden entries.

    ## Arguments
    - `family`: `"module:Class"` of the environment; the ids set it.
    - `hidden`: indices of the entries to remove from `observation`; the ids set it.
    - `render_mode`: `"rgb_array"` or None.
    - all others: the family's.

    ## Version History
    - v0: first version.
    """

    def __init__(
        self, family: str, hidden: Sequence[int], render_mode: str | None = None, **arguments: Any
    ) -> None:
        env = family_env(family, arguments, _WRAPPER)
        super().__init__(Masked(env.simulation, hidden), render_mode, env.max_episode_steps)


vector = MaskedEnv.vector
