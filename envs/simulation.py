"""The contract for the physics of an environment family: batched and stateless.

`rlkit.envs.simulation_env` turns a `Simulation` into a single `GoalEnv` and into a native vector
environment. Both give the same numbers, step for step.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.goals import GoalRule

State = dict[str, NDArray[Any]]
"""Everything that changes during an episode: arrays `(N, ...)`, N environments."""


class Simulation(Protocol):
    """Batched NumPy physics of one environment family.

    Methods do not write to their arguments and keep no state between calls, so a `State` that was
    saved and loaded continues bit for bit. Rows are independent: a batch of N equals N batches of
    one, bit for bit. (Avoid BLAS products such as `@` in `step`: their rounding may depend on the
    batch size. The rounding of elementwise arithmetic and of einsum over short axes does not.)

    Attributes:
        observation_space: Space of one environment: a Dict with the goal keys.
        action_space: Space of one environment's action.
        rule: Reward, success and termination of goals.
        draws: Number of uniform random numbers in [0, 1) per reset of one environment.
        frames_per_second: Control steps per second of simulated time, for videos. An attribute
            `goal_names` may name the goal's dimensions, with units, for figures.
    """

    observation_space: spaces.Dict
    action_space: spaces.Space[Any]
    rule: GoalRule
    draws: int
    frames_per_second: int

    def initial(self, uniforms: NDArray[np.float64]) -> State:
        """Start states and goals from uniform numbers `(N, draws)`.

        No start state satisfies its goal.
        """

    def step(self, state: State, action: NDArray[Any]) -> State:
        """Next states after actions `(N, *action)`; out-of-range actions are clipped."""

    def observe(self, state: State) -> dict[str, NDArray[Any]]:
        """Observation dict; every value is `(N, ...)` in the dtype of its space."""

    def render(self, state: State, size: int) -> NDArray[np.uint8]:
        """RGB image `(size, size, 3)` of a state with one row."""


def is_sparse(reward: str) -> bool:
    """Whether `reward` is "sparse" and not "dense".

    Raises:
        ValueError: If it is neither.
    """
    if reward not in ("sparse", "dense"):
        raise ValueError(f'reward must be "sparse" or "dense", got {reward!r}')
    return reward == "sparse"
