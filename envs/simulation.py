"""The contract for the physics of an environment family: batched and stateless.

`SimulationEnv` (`rlkit.envs.simulation_env`) makes a single `GoalEnv` of a `Simulation`, and
`SimulationVectorEnv` (`rlkit.envs.simulation_vector_env`) a native vector environment. Both give
the same numbers, step for step; the functions below are what they share.
"""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from rlkit.goals import GoalRule

State = dict[str, NDArray[Any]]
"""Everything that changes during an episode: arrays `(N, ...)`, N environments."""

RENDER_SIZE = 480  # pixels; video encoders need an even number
NO_RENDER_MODE = 'render() gives no image: make the environment with render_mode="rgb_array"'

Observation = dict[str, NDArray[Any]]
Saved = dict[str, Any]
"""State that can be saved: arrays, and dicts of arrays, numbers and strings."""


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


def env_metadata(simulation: Simulation, render_mode: str | None) -> dict[str, Any]:
    """Gymnasium's `metadata` of the environments of a simulation.

    Raises:
        ValueError: If the render mode is another one than None or "rgb_array".
    """
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f'render_mode must be None or "rgb_array", got {render_mode!r}')
    return {
        "render_modes": ["rgb_array"],
        "render_fps": simulation.frames_per_second,
        "goal_names": getattr(simulation, "goal_names", ()),
    }


def observe(simulation: Simulation, state: State) -> Observation:
    """The observations `(N, ...)` of a state, in arrays of their own."""
    # A copy, because users may write to it; C order, because the rule may round by the layout.
    return {name: np.array(value, order="C") for name, value in simulation.observe(state).items()}


def goals(batch: Observation) -> tuple[NDArray[Any], NDArray[Any]]:
    """Achieved and desired goals `(N, *goal)`."""
    return batch["achieved_goal"], batch["desired_goal"]


def after_reset(state: State | None, call: str) -> State:
    """The state itself.

    Raises:
        ResetNeeded: If there is none yet.
    """
    if state is None:
        raise gym.error.ResetNeeded(f"call reset() before {call}()")
    return state


def checked_actions(
    action: ArrayLike, space: spaces.Space[Any], batch: tuple[int, ...]
) -> NDArray[Any]:
    """The actions `(*batch, *action)` in the dtype of the space of one action.

    Raises:
        ValueError: If they have another shape, or are not finite.
    """
    actions = np.asarray(action)
    shape = batch + (space.shape or ())
    if actions.shape != shape:
        raise ValueError(f"the action must have shape {shape}, got {actions.shape}: {action!r}")
    if isinstance(space, spaces.Discrete):
        low, high = space.start, space.start + space.n - 1
        if actions.dtype.kind not in "iu" or ((actions < low) | (actions > high)).any():
            raise ValueError(f"the action must be an integer from {low} to {high}, got {action!r}")
    elif not np.isfinite(actions).all():
        raise ValueError(f"the action must be finite, got {actions[~np.isfinite(actions)][:3]}")
    return actions.astype(space.dtype)


def checked_rows(state: State, rows: int) -> State:
    """A copy of a saved state.

    Raises:
        ValueError: If it does not have this number of rows.
    """
    for name, value in state.items():
        if len(value) != rows:
            raise ValueError(f"the state's {name!r} has {len(value)} rows instead of {rows}")
    return {name: np.array(value) for name, value in state.items()}
