"""Goals in pictures inside a `Simulation`: what is seen, achieved and desired are images.

Everything is drawn in batches by NumPy. For environments from elsewhere there are the wrappers of
`rlkit.envs.wrappers.pixel_observation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from rlkit.envs.rendering.raster import Pictures, Raster, View
from rlkit.envs.rendering.renderers import Factors, Renderer, renderer_of
from rlkit.envs.simulation import Simulation, State
from rlkit.envs.simulation_env import SimulationEnv, SimulationVectorEnv
from rlkit.envs.wrappers.partial_simulation import family_env, shortest
from rlkit.goals import DistanceRule, GoalRule
from rlkit.goals.rule import Array, BoolArray, FloatArray

SIZES = (32, 48, 64, 84)
"""Widths of pictures, those that the suite's convolutional networks take."""

_WRAPPER = "rlkit.envs.wrappers.pixel_observation.PixelObservation"
_GOAL_PICTURE = "goal_picture"
_FAINTEST = 20  # of 180, red minus green; less is the noise of a decoded picture


@dataclass(frozen=True)
class MarkerRule:
    """Judges two pictures by where their markers are.

    The marker's place is the centroid of red minus green (see
    `rlkit.envs.rendering.renderers`), right to a
    twentieth of a pixel. Integers are summed, so that a batch equals a loop bit for bit.

    Attributes:
        rule: Judges the places, metres.
        view: What part of the world the pictures show.
        width: Numbers that are read from a picture.
    """

    rule: DistanceRule
    view: View
    width: ClassVar[int] = 2

    @property
    def reward_range(self) -> tuple[float, float]:
        """The places' rule's."""
        return self.rule.reward_range

    def reward(self, achieved: Array, desired: Array) -> FloatArray:
        """Reward of each row, `(N, H, W, 3), (N, H, W, 3) -> (N,)`."""
        return self.rule.reward(self.goal_vector(achieved), self.goal_vector(desired))

    def success(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether the markers are near each other, `(N, H, W, 3), (N, H, W, 3) -> (N,)`."""
        return self.rule.success(self.goal_vector(achieved), self.goal_vector(desired))

    def terminated(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether each row ends its episode, `(N, H, W, 3), (N, H, W, 3) -> (N,)`."""
        if not self.rule.terminates:
            return np.zeros(len(achieved), np.bool_)
        return self.rule.terminated(self.goal_vector(achieved), self.goal_vector(desired))

    def goal_vector(self, pictures: Array) -> NDArray[np.float64]:
        """The marker's place in each picture, metres, `(N, H, W, 3) -> (N, 2)`.

        Channels may come first, `(N, 3, H, W)`, as Stable-Baselines3 hands images on.

        Raises:
            ValueError: If the arrays are no square uint8 pictures, or one shows no marker.
        """
        red, green = _red_and_green(pictures)
        size = red.shape[-1]
        weight = np.maximum(red, green) - green
        weight = np.maximum(weight, _FAINTEST) - np.uint8(_FAINTEST)
        steps = np.arange(size, dtype=np.float32)
        # Integers below 2**24 are exact in float32, whatever the order of the sums.
        lines = weight.astype(np.float32) @ np.stack([np.ones_like(steps), steps], axis=1)
        mass = lines[..., 0].sum(axis=1, dtype=np.float64)
        if not mass.all():
            raise ValueError(
                f"picture {int(np.argmin(mass))} of {len(mass)} shows no marker (red > green), so "
                f"there is no place to judge: it was not drawn by this environment"
            )
        column = lines[..., 1].sum(axis=1, dtype=np.float64) / mass
        row = (lines[..., 0] * steps).sum(axis=1, dtype=np.float64) / mass
        return self.view.to_world(np.stack([column, row], axis=1) + 0.5, size)


def _red_and_green(pictures: Array) -> tuple[Array, Array]:
    shape = pictures.shape
    if pictures.dtype == np.uint8 and len(shape) == 4:
        if shape[3] == 3 and shape[1] == shape[2]:
            return pictures[..., 0], pictures[..., 1]
        if shape[1] == 3 and shape[2] == shape[3]:
            return pictures[:, 0], pictures[:, 1]
    raise ValueError(
        f"goals are pictures here, uint8 of shape (N, size, size, 3), got {pictures.dtype} of "
        f"shape {shape}"
    )


class Pixels:
    """A simulation of which only pictures are seen; dynamics and rewards are as they were.

    `observation` and `achieved_goal` are one picture of the present, without the goal and without
    a hint of velocity. `desired_goal` is the picture of a state at rest that satisfies the goal.
    Reward, success and termination are read off the pictures, and so differ from the simulation's
    own within about a tenth of a pixel of its threshold.

    Args:
        simulation: The physics, judged by a `DistanceRule` of the marker's place.
        renderer: How its states look.
        size: Width and height of the pictures, one of `SIZES`.

    Raises:
        ValueError: If the size is not offered, or goals are not judged by distance.
    """

    def __init__(self, simulation: Simulation, renderer: Renderer, size: int = 48) -> None:
        if size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(map(str, SIZES))}, got {size!r}")
        if not isinstance(simulation.rule, DistanceRule):
            raise ValueError(
                f"pictures are judged by the distance between two places, which needs a "
                f"DistanceRule, got {simulation.rule!r}"
            )
        self.simulation = simulation
        self.renderer = renderer
        self.size = size
        self.rule: GoalRule = MarkerRule(simulation.rule, renderer.view)
        picture = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = spaces.Dict(
            observation=picture, achieved_goal=picture, desired_goal=picture
        )
        self.action_space: spaces.Space[Any] = simulation.action_space
        self.draws = simulation.draws
        self.frames_per_second = simulation.frames_per_second
        self._raster = Raster(renderer.view, size)
        self._background = renderer.background(self._raster)

    def initial(self, uniforms: NDArray[np.float64]) -> State:
        """The simulation's start states, and the goals' pictures, which are drawn only once."""
        state = self.simulation.initial(uniforms)
        return state | {_GOAL_PICTURE: self.picture(self.renderer.goal_state(state))}

    def step(self, state: State, action: NDArray[Any]) -> State:
        """The simulation's step."""
        return self.simulation.step(state, action) | {_GOAL_PICTURE: state[_GOAL_PICTURE]}

    def observe(self, state: State) -> dict[str, NDArray[Any]]:
        """Three pictures `(N, size, size, 3)`, of which the first two are one array."""
        seen = self.picture(state)
        return {
            "observation": seen,
            "achieved_goal": seen,
            "desired_goal": state[_GOAL_PICTURE],
        }

    def picture(self, state: State) -> Pictures:
        """What states look like, `(N, size, size, 3)`."""
        rows = len(next(iter(state.values())))
        pictures = np.repeat(self._background, rows, axis=0)
        self.renderer.render(self._raster, pictures, state)
        return pictures

    def factors(self, state: State) -> Factors:
        """What is true of states, by name and `(N, K)`: targets for a probe of what agents see."""
        return self.renderer.factors(state)

    def render(self, state: State, size: int) -> NDArray[np.uint8]:
        """The simulation's own picture, goal included, for people."""
        return self.simulation.render(state, size)


class PixelsEnv(SimulationEnv):
    """PointMaze, PlanarReach or PlanarPush, seen and asked for in pictures.

    ## Description

    The dynamics, starts, goals and time limits are those of the family. One picture does not show
    velocities. `env.unwrapped.simulation.factors(state)` tells the truth behind states.

    ## Action Space

    The family's.

    ## Observation Space

    A Dict of three pictures, `Box(0, 255, (size, size, 3), uint8)`, channels last:

    | Key | Content |
    |---|---|
    | `observation` | the present: walls, arm, pusher, and a red marker |
    | `achieved_goal` | the same picture |
    | `desired_goal` | a state at rest that satisfies the goal |

    The marker is the disc (PointMaze), the arm's tip (PlanarReach) or the puck (PlanarPush). In
    PlanarReach's `desired_goal` the elbow bends counter-clockwise; in PlanarPush's, the pusher
    lies 2 cm to the left of the puck.

    ## Rewards

    The family's `sparse` or `dense` reward of the distance between the two markers.

    ## Starting State, Episode End

    The family's.

    ## Arguments

    - `family`: `"module:Class"` of the environment; the ids set it.
    - `size`: 32, 48 (default), 64 or 84 pixels.
    - `render_mode`: `"rgb_array"` or None; the family's large picture, goal included.
    - all others: the family's, such as `reward` and PointMaze's `terminates`.

    ## Version History

    - v0: first version.
    """

    def __init__(
        self, family: str, render_mode: str | None = None, *, size: int = 48, **arguments: Any
    ) -> None:
        env = family_env(family, arguments, _WRAPPER)
        super().__init__(_pixels(env, size), render_mode, env.max_episode_steps)


class PixelsEnvVector(SimulationVectorEnv):
    """Many `PixelsEnv` at once.

    Args:
        family: `"module:Class"` of the single environment.
        num_envs: How many environments, N.
        max_episode_steps: As in `SimulationVectorEnv`.
        autoreset_mode: As in `SimulationVectorEnv`.
        render_mode: "rgb_array" or None.
        size: Width and height of the pictures, one of `SIZES`.
        arguments: Those of the environment.
    """

    def __init__(
        self,
        family: str,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        *,
        size: int = 48,
        **arguments: Any,
    ) -> None:
        env = family_env(family, arguments, _WRAPPER)
        limit = shortest(env.max_episode_steps, max_episode_steps)
        super().__init__(_pixels(env, size), num_envs, limit, autoreset_mode, render_mode)


def _pixels(env: SimulationEnv, size: int) -> Pixels:
    return Pixels(env.simulation, renderer_of(env.simulation), size)
