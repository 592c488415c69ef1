"""Renderers of the small images that agents observe.

In every colour except the marker's, red equals green, and so it does in blends of these colours.
Red minus green is therefore the share of a pixel that the marker covers, from which its position
follows to a fraction of a pixel. The marker is drawn last, so that nothing hides it.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.planar_push import (
    PUCK_RADIUS,
    PUSHER_RADIUS,
    TABLE,
    TABLE_VIEW,
    PlanarPushSimulation,
)
from rlkit.envs.planar_reach import ARM_LENGTH, PlanarReachSimulation
from rlkit.envs.point_maze import RADIUS, PointMazeSimulation
from rlkit.envs.rendering.raster import Pictures, Raster, View, centred_view
from rlkit.envs.simulation import Simulation, State

MARKER = (228, 48, 48)
WALL, FLOOR = (72, 72, 96), (236, 236, 230)
UPPER_ARM, FOREARM, PUSHER = (24, 24, 72), (84, 84, 232), (48, 48, 216)

_SMALLEST_MARKER = 2.0  # pixels of radius; an encoder loses smaller ones among all other pixels
_MAZE_BORDER = 0.5  # metres of the outer walls outside of the image
_REACH_IN_VIEW = 1.14 * ARM_LENGTH  # room for the tip's marker
_LINK_WIDTH, _TIP_RADIUS = 0.09, 0.1  # metres
_ASIDE = PUSHER_RADIUS + PUCK_RADIUS + 0.02  # metres, from the puck to the pusher in goal states

Factors = dict[str, NDArray[Any]]


class Renderer(Protocol):
    """Renders the states of one family, without the goal.

    Attributes:
        view: The part of the world that the images show.
    """

    view: View

    def background(self, raster: Raster) -> Pictures:
        """Image of all that never moves, `(1, size, size, 3)`."""

    def render(self, raster: Raster, pictures: Pictures, state: State) -> None:
        """Draws all that moves over backgrounds `(N, size, size, 3)`, the marker last."""

    def goal_state(self, state: State) -> State:
        """States at rest that satisfy the goals of `state`."""

    def factors(self, state: State) -> Factors:
        """Ground-truth factors of each state, arrays `(N, K)` by name."""


class MazeRenderer:
    """`PointMaze`: the disc is the marker. In wide mazes it is drawn larger than it is.

    Args:
        simulation: The maze.
    """

    def __init__(self, simulation: PointMazeSimulation) -> None:
        self._walls = simulation.walls
        self.view = centred_view(max(self._walls.shape) - 2 * _MAZE_BORDER)

    def background(self, raster: Raster) -> Pictures:
        """Walls and floor."""
        pictures = raster.filled(WALL)
        middle = np.array(self._walls.shape[::-1]) / 2
        raster.squares(pictures, np.argwhere(~self._walls)[:, ::-1] + 0.5 - middle, 1.0, FLOOR)
        return pictures

    def render(self, raster: Raster, pictures: Pictures, state: State) -> None:
        """The disc."""
        raster.disc(pictures, state["position"], _visible(RADIUS, raster), MARKER)

    def goal_state(self, state: State) -> State:
        """The disc at the goal."""
        return state | {"position": state["goal"], "velocity": np.zeros_like(state["velocity"])}

    def factors(self, state: State) -> Factors:
        """`position` and `velocity`, `(N, 2)` each; a single image shows no velocity."""
        return {"position": state["position"], "velocity": state["velocity"]}


class ReachRenderer:
    """`PlanarReach` with two links: the tip is the marker.

    Args:
        simulation: The arm.

    Raises:
        ValueError: If the arm does not have two links: only then the goal determines the pose.
    """

    def __init__(self, simulation: PlanarReachSimulation) -> None:
        if simulation.links != 2:
            raise ValueError(
                f"image goals need an arm with 2 links, whose pose follows from the position of "
                f"its tip, got links={simulation.links}"
            )
        self._joints = simulation.joints
        self.view = centred_view(2 * _REACH_IN_VIEW)

    def background(self, raster: Raster) -> Pictures:
        """The area within reach, on a dark ground."""
        pictures = raster.filled(WALL)
        raster.disc(pictures, np.zeros((1, 2)), ARM_LENGTH, FLOOR)
        return pictures

    def render(self, raster: Raster, pictures: Pictures, state: State) -> None:
        """The upper arm, dark; the forearm, light; the tip."""
        ends = self._joints(state["angle"])
        elbow, tip = ends[:, 0], ends[:, 1]
        raster.bar(pictures, np.zeros_like(elbow), elbow, _LINK_WIDTH, UPPER_ARM)
        raster.bar(pictures, elbow, tip, _LINK_WIDTH, FOREARM)
        raster.disc(pictures, tip, _visible(_TIP_RADIUS, raster), MARKER)

    def goal_state(self, state: State) -> State:
        """The tip at the goal; of the two poses, the one whose elbow bends counter-clockwise.

        Two equal links and the line to a goal at distance d form an isosceles triangle: the cosine
        of half the elbow's angle is d / arm length, and the upper arm deviates from the line by
        half that angle.
        """
        x, y = state["goal"][:, 0], state["goal"][:, 1]
        half = np.arccos(np.minimum(np.sqrt(x * x + y * y) / ARM_LENGTH, 1))
        angle = np.stack([np.arctan2(y, x) - half, 2 * half], axis=1)
        return state | {"angle": angle, "velocity": np.zeros_like(angle)}

    def factors(self, state: State) -> Factors:
        """`tip` `(N, 2)`, `angle` as cosines, then sines of the joints `(N, 4)`, `velocity`."""
        angle = state["angle"]
        return {
            "tip": self._joints(angle)[:, -1],
            "angle": np.concatenate([np.cos(angle), np.sin(angle)], axis=1),
            "velocity": state["velocity"],
        }


class PushRenderer:
    """`PlanarPush`: the puck is the marker."""

    view = centred_view(2 * TABLE_VIEW)

    def background(self, raster: Raster) -> Pictures:
        """The table and its walls."""
        pictures = raster.filled(WALL)
        raster.squares(pictures, [[0, 0]], 2 * TABLE, FLOOR)
        return pictures

    def render(self, raster: Raster, pictures: Pictures, state: State) -> None:
        """The pusher and the puck."""
        raster.disc(pictures, state["pusher"], PUSHER_RADIUS, PUSHER)
        raster.disc(pictures, state["puck"], _visible(PUCK_RADIUS, raster), MARKER)

    def goal_state(self, state: State) -> State:
        """The puck at the goal, the pusher 2 cm to the left of it.

        That position is on the table for every goal, and similar goals have similar images. A side
        that depended on the goal would change abruptly somewhere.
        """
        rest = np.zeros_like(state["puck_velocity"])
        return state | {
            "pusher": state["goal"] - np.array([_ASIDE, 0.0]),
            "pusher_velocity": rest,
            "puck": state["goal"],
            "puck_velocity": rest,
        }

    def factors(self, state: State) -> Factors:
        """`pusher`, `puck` and their velocities, `(N, 2)` each."""
        names = ("pusher", "pusher_velocity", "puck", "puck_velocity")
        return {name: state[name] for name in names}


def renderer_of(simulation: Simulation) -> Renderer:
    """The renderer of a simulation.

    Raises:
        ValueError: If there is none.
    """
    if isinstance(simulation, PointMazeSimulation):
        return MazeRenderer(simulation)
    if isinstance(simulation, PlanarReachSimulation):
        return ReachRenderer(simulation)
    if isinstance(simulation, PlanarPushSimulation):
        return PushRenderer()
    raise ValueError(
        f"{type(simulation).__name__} has no renderer, PointMaze, PlanarReach and PlanarPush have: "
        f"give rlkit.envs.wrappers.pixel_simulation.Pixels(simulation, renderer) a renderer of "
        f"your own, or wrap the environment in "
        f"rlkit.envs.wrappers.pixel_observation.PixelObservation"
    )


def _visible(radius: float, raster: Raster) -> float:
    return max(radius, _SMALLEST_MARKER * raster.pixel)
