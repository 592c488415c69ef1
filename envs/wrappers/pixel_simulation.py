"""Image observations and image goals inside a `Simulation`, rendered in batches by NumPy.

For all other environments there are the wrappers of `rlkit.envs.wrappers.pixel_observation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.envs.rendering.raster import Pictures, Raster, View
from rlkit.envs.rendering.renderers import Factors, Renderer, renderer_of
from rlkit.envs.simulation import Simulation, State
from rlkit.envs.simulation_env import SimulationEnv
from rlkit.envs.wrappers.simulation_wrapper import SimulationWrapper, family_env
from rlkit.goals import DistanceRule
from rlkit.goals.rule import Array, BoolArray, FloatArray

SIZES = (32, 48, 64, 84)
"""Image widths in pixels that the suite's convolutional networks accept."""

_WRAPPER = "rlkit.envs.wrappers.pixel_observation.PixelObservation"
_GOAL_PICTURE = "goal_picture"
_NOISE_FLOOR = 20  # red minus green, of at most 180; smaller values are noise of decoded images


@dataclass(frozen=True)
class MarkerRule:
    """Compares two images by the positions of their markers.

    The position is the centroid of red minus green (see `rlkit.envs.rendering.renderers`), exact
    to a twentieth of a pixel. The sums are over integers, so that a batch equals a loop bit for
    bit.

    Attributes:
        rule: The rule for positions in metres.
        view: The part of the world that the images show.
        width: Length of `goal_vector`'s rows.
    """

    rule: DistanceRule
    view: View
    width: ClassVar[int] = 2

    @property
    def reward_range(self) -> tuple[float, float]:
        """That of the rule for positions."""
        return self.rule.reward_range

    def reward(self, achieved: Array, desired: Array) -> FloatArray:
        """Reward of each row, `(N, H, W, 3), (N, H, W, 3) -> (N,)`."""
        return self.rule.reward(self.goal_vector(achieved), self.goal_vector(desired))

    def success(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether the markers are close to each other, `(N, H, W, 3), (N, H, W, 3) -> (N,)`."""
        return self.rule.success(self.goal_vector(achieved), self.goal_vector(desired))

    def terminated(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether each row ends its episode, `(N, H, W, 3), (N, H, W, 3) -> (N,)`."""
        if not self.rule.terminates:
            return np.zeros(len(achieved), np.bool_)
        return self.rule.terminated(self.goal_vector(achieved), self.goal_vector(desired))

    def goal_vector(self, pictures: Array) -> NDArray[np.float64]:
        """The marker's position in each image, metres, `(N, H, W, 3) -> (N, 2)`.

        Channels may come first, `(N, 3, H, W)`, as in Stable-Baselines3.

        Raises:
            ValueError: If the arrays are not square uint8 images, or one shows no marker.
        """
        red, green = _red_and_green(pictures)
        size = red.shape[-1]
        weight = np.maximum(red, green) - green
        weight = np.maximum(weight, _NOISE_FLOOR) - np.uint8(_NOISE_FLOOR)
        steps = np.arange(size, dtype=np.float32)
        # Integers below 2**24 are exact in float32, whatever the order of the sums.
        lines = weight.astype(np.float32) @ np.stack([np.ones_like(steps), steps], axis=1)
        mass = lines[..., 0].sum(axis=1, dtype=np.float64)
        if not mass.all():
            raise ValueError(
                f"image {int(np.argmin(mass))} of {len(mass)} shows no marker (red > green), so "
                f"it has no goal position: it was not rendered by this environment"
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
        f"goals must be uint8 images of shape (N, size, size, 3), got {pictures.dtype} of shape "
        f"{shape}"
    )


class Pixels(SimulationWrapper):
    """A simulation observed through images; the dynamics are unchanged.

    `observation` and `achieved_goal` are the same image of the current state, which shows neither
    the goal nor velocities. `desired_goal` is the image of a state at rest that satisfies the goal.
    Reward, success and termination are computed from the images, and differ from the wrapped
    simulation's own only within about a tenth of a pixel of its threshold.

    Args:
        simulation: The simulation to wrap, with a `DistanceRule` for the marker's position.
        renderer: Renders its states.
        size: Width and height of the images, one of `SIZES`.

    Raises:
        ValueError: If the size is not in `SIZES`, or the rule is not a `DistanceRule`.
    """

    def __init__(self, simulation: Simulation, renderer: Renderer, size: int = 48) -> None:
        if size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(map(str, SIZES))}, got {size!r}")
        if not isinstance(simulation.rule, DistanceRule):
            raise ValueError(
                f"image goals are compared by the distance between two positions, which needs a "
                f"DistanceRule, got {simulation.rule!r}"
            )
        super().__init__(simulation)
        self.renderer = renderer
        self.size = size
        self.rule = MarkerRule(simulation.rule, renderer.view)
        image = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = spaces.Dict(
            observation=image, achieved_goal=image, desired_goal=image
        )
        self._raster = Raster(renderer.view, size)
        self._background = renderer.background(self._raster)

    def initial(self, uniforms: NDArray[np.float64]) -> State:
        """Start states of the wrapped simulation, and the goals' images, rendered only once."""
        state = self.simulation.initial(uniforms)
        return state | {_GOAL_PICTURE: self.picture(self.renderer.goal_state(state))}

    def step(self, state: State, action: NDArray[Any]) -> State:
        """Next states of the wrapped simulation; the goals' images stay."""
        return self.simulation.step(state, action) | {_GOAL_PICTURE: state[_GOAL_PICTURE]}

    def observe(self, state: State) -> dict[str, NDArray[Any]]:
        """Three images `(N, size, size, 3)`, of which the first two are one array."""
        current = self.picture(state)
        return {
            "observation": current,
            "achieved_goal": current,
            "desired_goal": state[_GOAL_PICTURE],
        }

    def picture(self, state: State) -> Pictures:
        """Images of states, `(N, size, size, 3)`."""
        rows = len(next(iter(state.values())))
        pictures = np.repeat(self._background, rows, axis=0)
        self.renderer.render(self._raster, pictures, state)
        return pictures

    def factors(self, state: State) -> Factors:
        """Ground-truth factors of states by name, `(N, K)`: targets for probes of latents."""
        return self.renderer.factors(state)


class PixelsEnv(SimulationEnv):
    """PointMaze, PlanarReach or PlanarPush with image observations and image goals.

    ## Description
    Dynamics, start states, goals and time limits are those of the family. A single image does not
    show velocities. `env.unwrapped.simulation.factors(state)` returns the ground truth of states.

    ## Action Space
    The family's.

    ## Observation Space
    A Dict of three images, `Box(0, 255, (size, size, 3), uint8)`, channels last:

    | Key | Content |
    |---|---|
    | `observation` | the current state: walls, arm, pusher, and a red marker |
    | `achieved_goal` | the same image |
    | `desired_goal` | a state at rest that satisfies the goal |

    The marker is the disc (PointMaze), the arm's tip (PlanarReach) or the puck (PlanarPush). In
    PlanarReach's `desired_goal` the elbow bends counter-clockwise; in PlanarPush's, the pusher
    is 2 cm to the left of the puck.

    ## Rewards
    The family's `sparse` or `dense` reward of the distance between the two markers.

    ## Starting State, Episode End
    The family's.

    ## Arguments
    - `family`: `"module:Class"` of the environment; the ids set it.
    - `size`: width and height of the images, 32, 48 (default), 64 or 84 pixels.
    - `render_mode`: `"rgb_array"` or None; `render()` gives the family's image with the goal.
    - all others: the family's, such as `reward` and PointMaze's `terminates`.

    ## Version History
    - v0: first version.
    """

    def __init__(
        self, family: str, render_mode: str | None = None, *, size: int = 48, **arguments: Any
    ) -> None:
        env = family_env(family, arguments, _WRAPPER)
        pixels = Pixels(env.simulation, renderer_of(env.simulation), size)
        super().__init__(pixels, render_mode, env.max_episode_steps)


vector = PixelsEnv.vector
