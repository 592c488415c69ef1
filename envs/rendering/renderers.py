"""How the suite's flat worlds look in small pictures that agents see.

One colour rule makes places readable to a fraction of a pixel: in every colour but the marker's,
red equals green. What is blended of such colours has none of the marker in it, and red minus green
tells how much of a pixel the marker covers. The marker is drawn last, so nothing hides it.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlkit.envs.planar_push import PUCK_RADIUS, PUSHER_RADIUS, TABLE, PlanarPushSimulation
from rlkit.envs.planar_reach import ARM_LENGTH, PlanarReachSimulation
from rlkit.envs.point_maze import PointMazeSimulation
from rlkit.envs.rendering.drawing import Colour
from rlkit.envs.rendering.raster import Pictures, Raster, View, centred_view
from rlkit.envs.simulation import Simulation, State

MARKER: Colour = (228, 48, 48)
WALL: Colour = (72, 72, 96)
FLOOR: Colour = (236, 236, 230)
PUSHER: Colour = (48, 48, 216)
UPPER_ARM: Colour = (24, 24, 72)
FOREARM: Colour = (84, 84, 232)

_SMALLEST_MARKER = 2.0  # pixels of radius; less is little beside all else that an encoder sees
_DISC_RADIUS = 0.2  # metres, of PointMaze's disc
_MAZE_BORDER = 0.5  # metres of the outer walls that the picture leaves out
_REACH_IN_VIEW = 1.14 * ARM_LENGTH  # room for the tip's marker
_LINK_WIDTH, _TIP_RADIUS = 0.09, 0.1  # metres
_TABLE_IN_VIEW = TABLE + 0.06  # metres; a rim of wall
_ASIDE = PUSHER_RADIUS + PUCK_RADIUS + 0.02  # metres, from the goal's puck to its pusher

Factors = dict[str, NDArray[Any]]


class Renderer(Protocol):
    """Draws one family's states; the goal stays invisible.

    Attributes:
        view: The part of the world in the pictures.
    """

    view: View

    def background(self, raster: Raster) -> Pictures:
        """All that never moves, `(1, size, size, 3)`."""

    def render(self, raster: Raster, pictures: Pictures, state: State) -> None:
        """Draws all that moves over backdrops `(N, size, size, 3)`, the marker last."""

    def goal_state(self, state: State) -> State:
        """States at rest with the same goals, which they satisfy."""

    def factors(self, state: State) -> Factors:
        """What is true of each state, arrays `(N, K)` by name."""


class MazeRenderer:
    """`PointMaze`: the disc is the marker. In wide mazes it looks larger than it is.

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
        raster.disc(pictures, state["position"], _visible(_DISC_RADIUS, raster), MARKER)

    def goal_state(self, state: State) -> State:
        """The disc at the goal."""
        return state | {"position": state["goal"], "velocity": np.zeros_like(state["velocity"])}

    def factors(self, state: State) -> Factors:
        """`position` and `velocity`, which no single picture shows, `(N, 2)` each."""
        return {"position": state["position"], "velocity": state["velocity"]}


class ReachRenderer:
    """`PlanarReach` with two links: the tip is the marker.

    Args:
        simulation: The arm.

    Raises:
        ValueError: If the arm has not two links: only for these is the pose at a goal known.
    """

    def __init__(self, simulation: PlanarReachSimulation) -> None:
        if simulation.links != 2:
            raise ValueError(
                f"pictures of goals need an arm with 2 links, whose pose follows from where its "
                f"tip is, got links={simulation.links}"
            )
        self._joints = simulation.joints
        self.view = centred_view(2 * _REACH_IN_VIEW)

    def background(self, raster: Raster) -> Pictures:
        """All that is within reach, on a dark ground."""
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

        Two equal links and the line to a goal at distance d make an isosceles triangle: half the
        bend has the cosine d / arm length, and the upper arm deviates by as much.
        """
        x, y = state["goal"][:, 0], state["goal"][:, 1]
        half = np.arccos(np.minimum(np.sqrt(x * x + y * y) / ARM_LENGTH, 1))
        angle = np.stack([np.arctan2(y, x) - half, 2 * half], axis=1)
        return state | {"angle": angle, "velocity": np.zeros_like(angle)}

    def factors(self, state: State) -> Factors:
        """`tip` `(N, 2)`, `angle` as the joints' cosines, then sines `(N, 4)`, and `velocity`."""
        angle = state["angle"]
        return {
            "tip": self._joints(angle)[:, -1],
            "angle": np.concatenate([np.cos(angle), np.sin(angle)], axis=1),
            "velocity": state["velocity"],
        }


class PushRenderer:
    """`PlanarPush`: the puck is the marker."""

    view = centred_view(2 * _TABLE_IN_VIEW)

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

        There the table is free whatever the goal, and near goals have near pictures: a side that
        depended on the goal would have to jump somewhere.
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
    """The renderer of one of the suite's flat worlds.

    Raises:
        ValueError: If it has none.
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
