"""PointMaze: a disc is pushed through a maze of unit cells to a goal."""

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

_RADIUS = 0.2  # m
_JITTER = 0.25  # m, of starts and goals about their cell's centre
_THRESHOLD = 0.45  # m; goals lie in another cell than the start, so at least 0.5 m away
_DAMPING = 3.0  # 1/s
_AXIS_SPEED = 2.0  # m/s along an axis, where friction takes up the full drive
_SUBSTEPS = 2
_DT = 0.05  # s; moves of at most 0.14 m, less than the radius, cannot enter a wall
_TOP_SPEED = float(np.sqrt(2)) * _AXIS_SPEED


class PointMazeSimulation:
    """The physics of `PointMaze`, whose arguments it takes.

    Inside, lengths count from the maze's lower left corner, so that walls begin and end at
    integers. The only walls a disc of radius below 1/2 can touch are the three cells around the
    lattice point nearest to it; one look-up per half cell says which of them are walls. States are
    float32: networks read nothing finer.

    Args:
        maze: A key of `MAZES`.
        reward: "sparse" or "dense".
        terminates: Whether success ends the episode.
        damping: Friction, 1/s, > 0 and at most 10; the drive is as strong as 2 m/s need.

    Raises:
        ValueError: If the maze or the reward is unknown, or the damping out of range.
    """

    draws = 6
    frames_per_second = round(1 / (_SUBSTEPS * _DT))

    def __init__(self, maze: str, reward: str, terminates: bool, damping: float = _DAMPING) -> None:
        if maze not in MAZES:
            raise ValueError(f"maze must be one of {', '.join(MAZES)}, got {maze!r}")
        if not 0 < damping <= 10:  # more than 1 per substep would turn the velocity round
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
        self._face_reach, self._corner_reach_squared = _reaches(self.walls)
        bounds = np.concatenate([self._origin, np.full(2, _TOP_SPEED, np.float32)])
        place = spaces.Box(-self._origin, self._origin)
        self.observation_space = spaces.Dict(
            observation=spaces.Box(-bounds, bounds), achieved_goal=place, desired_goal=place
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
        """Pushes the discs for 0.1 s with actions `(N, 2)`."""
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
        """Moves discs out of walls and takes the velocity into the wall away."""
        half = (2 * position).astype(np.intp)
        index = half[:, 1] * self._width + half[:, 0]
        corner = np.floor(position + 0.5)
        gap = position - corner
        reach = self._face_reach.take(index, axis=0)
        touching = np.abs(gap) < reach
        inward = touching & (velocity * gap < 0)
        position = np.where(touching, corner + np.copysign(reach, gap), position)
        velocity = np.where(inward, 0, velocity)
        squared = gap[:, 0] * gap[:, 0] + gap[:, 1] * gap[:, 1]
        rows = (squared < self._corner_reach_squared.take(index)).nonzero()[0]
        if len(rows):
            normal = gap[rows] / np.sqrt(squared[rows])[:, None]
            speed = velocity[rows, 0] * normal[:, 0] + velocity[rows, 1] * normal[:, 1]
            position[rows] = corner[rows] + normal * _RADIUS
            velocity[rows] -= np.minimum(speed, 0)[:, None] * normal
        return position, velocity

    def render(self, state: State, size: int) -> NDArray[np.uint8]:
        """The maze from above."""
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
        canvas.circle(position, _RADIUS, AGENT, AGENT_EDGE, 0.03)
        canvas.arrow(position, position + 0.35 * state["velocity"][0], AGENT_EDGE, 0.06)
        return canvas.image()


def _reaches(walls: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Reach of the walls around each half cell: of faces `(K, 2)`, of corners squared `(K,)`."""
    height, width = walls.shape
    y, x = np.divmod(np.arange(4 * height * width), 2 * width)
    to_x, to_y = x // 2 + np.where(x % 2, 1, -1), y // 2 + np.where(y % 2, 1, -1)
    padded = np.pad(walls, 1, constant_values=True)
    beside, above = padded[y // 2 + 1, to_x + 1], padded[to_y + 1, x // 2 + 1]
    # A corner between two walls is no corner: their faces keep the disc away from it.
    corner = padded[to_y + 1, to_x + 1] & ~beside & ~above
    faces = _RADIUS * np.stack([beside, above], axis=1)
    return faces.astype(np.float32), (_RADIUS**2 * corner).astype(np.float32)


class PointMaze(SimulationEnv):
    """A disc in a maze, pushed by a force, has to reach a place.

    ## Description
    A disc of radius 0.2 m slides over the floor of a maze whose cells measure 1 m. The action
    pushes it; friction slows it down to at most 2 m/s along an axis; walls stop it without
    friction or bounce. Less `damping` means less friction and a weaker drive at the same top speed:
    on ice, with 0.3 say, the disc has to brake in time, for which it has to know its velocity. One
    step lasts 0.1 s. The longest way takes about 20 steps in `Open`, 35 in `U`, 65 in `Medium` and
    115 in `Large`.

    ## Action Space
    `Box(-1, 1, (2,), float32)`

    | Num | Action                      | Min | Max | Unit          |
    |-----|-----------------------------|-----|-----|---------------|
    | 0   | acceleration to the right   | -1  | 1   | 6 m/s² at 1   |
    | 1   | acceleration upwards        | -1  | 1   | 6 m/s² at 1   |

    6 m/s² is twice the damping of 3 1/s; with another damping it changes in proportion.

    ## Observation Space
    A `Dict` of float32 boxes. Lengths count from the middle of the maze, which is W wide and H
    high, walls included: 7 x 7 m (`Open`), 5 x 5 m (`U`), 8 x 8 m (`Medium`), 12 x 9 m (`Large`).

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
    `sparse`: -1 until the disc's centre is within 0.45 m of the goal, 0 there. `dense` (the
    `-Dense` ids): minus the distance as the crow flies, m.

    ## Starting State
    Start and goal lie in two different cells drawn uniformly, up to 0.25 m per axis off the
    cells' centres; the disc rests.

    ## Episode End
    Truncation after 50 (`Open`), 100 (`U`), 150 (`Medium`) or 300 (`Large`) steps. Success ends
    the episode only with `terminates=True`.

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
