"""PointMaze: a disc, driven by a force, has to reach a goal in a maze of unit cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.envs.rendering.drawing import (
    AGENT,
    AGENT_EDGE,
    FLOOR,
    FLOOR_TILE,
    GOAL,
    GOAL_AREA,
    WALL,
    Canvas,
)
from rlkit.envs.simulation import State, is_sparse
from rlkit.envs.simulation_env import SimulationEnv
from rlkit.goals import DistanceRule, GoalRule

MAZES = {
    "Open": """
        #######
        #     #
        #     #
        #     #
        #     #
        #     #
        #######
    """,
    "U": """
        #####
        #   #
        ### #
        #   #
        #####
    """,
    "Medium": """
        ########
        #   #  #
        # #   ##
        # ###  #
        #   #  #
        ## #   #
        #    # #
        ########
    """,
    "Large": """
        ############
        #   #      #
        # # # #### #
        # #   #  # #
        # #####  # #
        #      # # #
        # #### #   #
        #    #   # #
        ############
    """,
}

RADIUS = 0.2  # m, of the disc
_JITTER = 0.25  # m, of start and goal positions about the centre of their cell
_THRESHOLD = 0.45  # m; start and goal are in different cells, so at least 0.5 m apart
_DAMPING = 3.0  # 1/s
_AXIS_SPEED = 2.0  # m/s along an axis, at most
_SUBSTEPS = 2
_DT = 0.05  # s; a move of at most 0.14 m is less than the radius and cannot cross a wall
_TOP_SPEED = float(np.sqrt(2)) * _AXIS_SPEED


class PointMazeSimulation:
    """Physics of `PointMaze`.

    Internal coordinates start at the maze's lower left corner, so that walls begin and end at
    integers. A disc with a radius below 1/2 can touch only the three cells around the nearest
    lattice point; a look-up table per half cell marks those in walls. States are float32.

    Args:
        maze: A key of `MAZES`.
        reward: "sparse" or "dense".
        terminates: Whether success ends the episode.
        damping: Friction, 1/s, > 0 and at most 10. The force is scaled with it, so that the top
            speed stays at 2 m/s.

    Raises:
        ValueError: If the maze or the reward is unknown, or the damping is out of range.
    """

    draws = 6
    frames_per_second = round(1 / (_SUBSTEPS * _DT))
    goal_names = ("x (m)", "y (m)")

    def __init__(self, maze: str, reward: str, terminates: bool, damping: float = _DAMPING) -> None:
        if maze not in MAZES:
            raise ValueError(f"maze must be one of {', '.join(MAZES)}, got {maze!r}")
        if not 0 < damping <= 10:  # larger values would reverse the velocity in a substep
            raise ValueError(f"damping must be above 0 and at most 10 1/s, got {damping!r}")
        self._drive, self._slowing = _AXIS_SPEED * damping * _DT, 1 - damping * _DT
        rows = [line.strip() for line in MAZES[maze].split("\n") if line.strip()]
        # [y, x] with y up, True for walls.
        self.walls: NDArray[np.bool_] = np.array([[c == "#" for c in row] for row in rows[::-1]])
        self.rule: GoalRule = DistanceRule(
            _THRESHOLD, sparse=is_sparse(reward), terminates=terminates
        )
        self._origin = np.array(self.walls.shape[::-1], np.float32) / np.float32(2)
        self._free = np.argwhere(~self.walls)[:, ::-1] + np.float64(0.5)
        self._width = 2 * self.walls.shape[1]
        self._side_reach, self._corner_reach_squared = _reaches(self.walls)
        bounds = np.concatenate([self._origin, np.full(2, _TOP_SPEED, np.float32)])
        positions = spaces.Box(-self._origin, self._origin)
        self.observation_space = spaces.Dict(
            observation=spaces.Box(-bounds, bounds), achieved_goal=positions, desired_goal=positions
        )
        self.action_space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def initial(self, uniforms: NDArray[np.float64]) -> State:
        """Draws start and goal uniformly from two different cells, with jitter."""
        cells = len(self._free)
        start = (uniforms[:, 0] * cells).astype(np.intp)
        goal = (uniforms[:, 1] * (cells - 1)).astype(np.intp)
        goal += goal >= start
        jitter = _JITTER * (2 * uniforms[:, 2:] - 1)
        position = self._free[start] + jitter[:, :2] - self._origin
        return {
            "position": position.astype(np.float32),
            "velocity": np.zeros_like(position, np.float32),
            "goal": (self._free[goal] + jitter[:, 2:] - self._origin).astype(np.float32),
        }

    def step(self, state: State, action: NDArray[Any]) -> State:
        """States after forces `(N, 2)` have acted for 0.1 s."""
        push = np.minimum(np.maximum(action, -1), 1) * self._drive
        position, velocity = state["position"] + self._origin, state["velocity"]
        for _ in range(_SUBSTEPS):
            velocity = velocity * self._slowing + push
            position, velocity = self._slide(position + velocity * _DT, velocity)
        return {
            "position": position - self._origin,
            "velocity": velocity,
            "goal": state["goal"],
        }

    def observe(self, state: State) -> dict[str, NDArray[Any]]:
        """Position and velocity `(N, 4)`; the position is the achieved goal `(N, 2)`."""
        return {
            "observation": np.concatenate([state["position"], state["velocity"]], axis=1),
            "achieved_goal": state["position"],
            "desired_goal": state["goal"],
        }

    def _slide(
        self, position: NDArray[np.float32], velocity: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Moves discs out of walls and removes the velocity into the wall."""
        half = (2 * position).astype(np.intp)
        index = half[:, 1] * self._width + half[:, 0]
        corner = np.floor(position + 0.5)
        gap = position - corner
        reach = self._side_reach.take(index, axis=0)
        touching = np.abs(gap) < reach
        inward = touching & (velocity * gap < 0)
        position = np.where(touching, corner + np.copysign(reach, gap), position)
        velocity = np.where(inward, 0, velocity)
        squared = gap[:, 0] * gap[:, 0] + gap[:, 1] * gap[:, 1]
        rows = (squared < self._corner_reach_squared.take(index)).nonzero()[0]
        if len(rows):
            normal = gap[rows] / np.sqrt(squared[rows])[:, None]
            speed = velocity[rows, 0] * normal[:, 0] + velocity[rows, 1] * normal[:, 1]
            position[rows] = corner[rows] + normal * RADIUS
            velocity[rows] -= np.minimum(speed, 0)[:, None] * normal
        return position, velocity

    def render(self, state: State, size: int) -> NDArray[np.uint8]:
        """The maze from above; the ring's radius is the threshold, the arrow the velocity."""
        height, width = self.walls.shape
        canvas = Canvas(size, (0.6, 0.6, width - 0.6, height - 0.6))
        position, goal = state["position"][0] + self._origin, state["goal"][0] + self._origin
        for x, y in self._free:
            canvas.rectangle((x, y), (1.0, 1.0), FLOOR)
            canvas.rectangle((x, y), (0.96, 0.96), FLOOR_TILE, 0.06)
        canvas.circle(goal, _THRESHOLD, GOAL_AREA, GOAL, 0.03)
        canvas.circle(goal, 0.08, GOAL)
        for y, x in np.argwhere(self.walls):
            canvas.rectangle((x + 0.5, y + 0.5), (1.0, 1.0), WALL)
        canvas.circle(position, RADIUS, AGENT, AGENT_EDGE, 0.03)
        canvas.arrow(position, position + 0.35 * state["velocity"][0], AGENT_EDGE, 0.06)
        return canvas.image()


def _reaches(walls: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distances at which walls stop a disc, per half cell: sides `(K, 2)`, corners² `(K,)`."""
    height, width = walls.shape
    y, x = np.divmod(np.arange(4 * height * width), 2 * width)
    to_x, to_y = x // 2 + np.where(x % 2, 1, -1), y // 2 + np.where(y % 2, 1, -1)
    padded = np.pad(walls, 1, constant_values=True)
    beside, above = padded[y // 2 + 1, to_x + 1], padded[to_y + 1, x // 2 + 1]
    # Where two walls meet, their sides keep the disc away from the corner.
    corner = padded[to_y + 1, to_x + 1] & ~beside & ~above
    sides = RADIUS * np.stack([beside, above], axis=1)
    return sides.astype(np.float32), (RADIUS**2 * corner).astype(np.float32)


class PointMaze(SimulationEnv):
    """A disc in a maze, driven by a force, has to reach a goal position.

    ## Description
    A disc of radius 0.2 m slides in a maze with cells of 1 m. The action accelerates it, friction
    limits its speed to 2 m/s along each axis, and walls stop it without friction or bouncing. A
    smaller `damping` reduces friction and force at the same top speed: with 0.3, as on ice, the
    disc has to brake in time, which needs its velocity. A step lasts 0.1 s. The longest paths take
    about 20 steps in `Open`, 35 in `U`, 65 in `Medium` and 115 in `Large`.

    ## Action Space
    `Box(-1, 1, (2,), float32)`

    | Num | Action                      | Min | Max | Unit          |
    |-----|-----------------------------|-----|-----|---------------|
    | 0   | acceleration to the right   | -1  | 1   | 6 m/s² at 1   |
    | 1   | acceleration upwards        | -1  | 1   | 6 m/s² at 1   |

    The acceleration is 2 m/s times the damping, 6 m/s² at the default of 3 1/s.

    ## Observation Space
    A `Dict` of float32 boxes. The origin is the centre of the maze. W x H is its size, walls
    included: 7 x 7 m (`Open`), 5 x 5 m (`U`), 8 x 8 m (`Medium`), 12 x 9 m (`Large`).

    | Key             | Num | Observation  | Min   | Max  | Unit |
    |-----------------|-----|--------------|-------|------|------|
    | `observation`   | 0   | x            | -W/2  | W/2  | m    |
    |                 | 1   | y            | -H/2  | H/2  | m    |
    |                 | 2   | x velocity   | -2.83 | 2.83 | m/s  |
    |                 | 3   | y velocity   | -2.83 | 2.83 | m/s  |
    | `achieved_goal` | 0   | x            | -W/2  | W/2  | m    |
    |                 | 1   | y            | -H/2  | H/2  | m    |
    | `desired_goal`  | 0   | x to reach   | -W/2  | W/2  | m    |
    |                 | 1   | y to reach   | -H/2  | H/2  | m    |

    ## Rewards
    `sparse`: 0 if the disc's centre is within 0.45 m of the goal after the action, else -1.
    `dense` (the `-Dense` ids): minus the Euclidean distance in metres.

    ## Starting State
    Start and goal are in two different cells, drawn uniformly, up to 0.25 m per axis from the
    cells' centres. The disc is at rest.

    ## Episode End
    Truncates after 50 (`Open`), 100 (`U`), 150 (`Medium`) or 300 (`Large`) steps. Terminates at
    success only with `terminates=True`.

    ## Arguments
    - `maze`: "Open", "U", "Medium" or "Large"; each has its ids.
    - `reward`: "sparse" or "dense".
    - `terminates`: whether success ends the episode; default False.
    - `damping`: friction in 1/s; default 3.
    - `render_mode`: "rgb_array" or None.

    ## Version History
    - v0: first version.
    """

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        maze: str = "U",
        reward: str = "sparse",
        terminates: bool = False,
        damping: float = _DAMPING,
    ) -> None:
        super().__init__(PointMazeSimulation(maze, reward, terminates, damping), render_mode)


vector = PointMaze.vector
