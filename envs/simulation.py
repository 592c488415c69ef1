"""The physics behind an environment: batched, stateless, written once.

A `Simulation` is what an environment family writes. `rlkit.envs.simulation_env` turns it into a
single `GoalEnv` and into a native vector environment that equal each other step for step.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.goals import GoalRule

State = dict[str, NDArray[Any]]
"""Everything that evolves: arrays whose first axis is the batch of environments `(N, ...)`."""


class Simulation(Protocol):
    """Batched NumPy physics of one environment family.

    Methods never write to their arguments and hold no state of their own, so a `State` copied to
    disk and back continues bit for bit. Rows never influence each other: a batch of N equals N
    batches of one, bit for bit. (Avoid BLAS products such as `@` in `step`: their rounding may
    depend on the batch. Elementwise arithmetic and einsum over short axes do not.)

    Attributes:
        observation_space: Space of one environment: a Dict with the goal keys.
        action_space: Space of one environment's action.
        rule: Reward, success and termination of goals.
        draws: How many uniform numbers in [0, 1) one environment's reset consumes.
        frames_per_second: Control steps per second of simulated time, for videos.
    """

    observation_space: spaces.Dict
    action_space: spaces.Space[Any]
    rule: GoalRule
    draws: int
    frames_per_second: int

    def initial(self, uniforms: NDArray[np.float64]) -> State:
        """Start states and goals from uniform numbers `(N, draws)`.

        No start may satisfy its goal already.
        """

    def step(self, state: State, action: NDArray[Any]) -> State:
        """The states after actions `(N, *action)`; out-of-range actions are clipped."""

    def observe(self, state: State) -> dict[str, NDArray[Any]]:
        """The observation dict, every value `(N, ...)` and of its space's dtype."""

    def render(self, state: State, size: int) -> NDArray[np.uint8]:
        """A picture `(size, size, 3)` of a state with one row."""
