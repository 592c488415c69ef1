"""CueMaze: a cue at the start of a corridor shows which way to turn at its end."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.envs.rendering import drawing
from rlkit.envs.rendering.drawing import Canvas
from rlkit.envs.simulation import Simulation, State
from rlkit.envs.simulation_env import SimulationEnv
from rlkit.envs.wrappers.partial_simulation import HiddenGoal
from rlkit.goals import DistanceRule, GoalRule

FORWARD, UP, DOWN = range(3)
_VIEW = 13.0  # width of the image in cells; in longer corridors it follows the agent
_SIGN, _BAR = 3.2, -3.4  # heights of cue and progress bar in the image, cells


class CueMazeSimulation:
    """Dynamics of `CueMaze` with a visible goal.

    Args:
        length: Cells from the start to the junction, >= 1.

    Raises:
        ValueError: If the length is below 1.
    """

    draws = 1
    frames_per_second = 10

    def __init__(self, length: int) -> None:
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        self.length = length
        # Positions are whole cells; the tolerance of half a cell covers rounding of goals.
        self.rule: GoalRule = DistanceRule(0.5 / length, terminates=True)
        self.action_space: spaces.Space[Any] = spaces.Discrete(3)
        position = spaces.Box(np.array([0, -1], np.float32), np.array([1, 1], np.float32))
        self.observation_space = spaces.Dict(
            observation=spaces.Box(np.array([0, -1, 0, 0, 0], np.float32), np.ones(5, np.float32)),
            achieved_goal=position,
            desired_goal=position,
        )

    def initial(self, uniforms: NDArray[np.float64]) -> State:
        """Agents at the start, goals up or down with equal probability."""
        start = np.zeros(len(uniforms), np.int64)
        return {"x": start, "y": start.copy(), "side": np.where(uniforms[:, 0] < 0.5, 1, -1)}

    def step(self, state: State, action: NDArray[Any]) -> State:
        """One cell forward or, at the junction, into an arm; other actions do nothing."""
        x, y = state["x"], state["y"]
        turn = (action == UP).astype(np.int64) - (action == DOWN)
        return {
            "x": x + ((action == FORWARD) & (x < self.length)),
            "y": np.where((x == self.length) & (y == 0), turn, y),
            "side": state["side"],
        }

    def observe(self, state: State) -> dict[str, NDArray[Any]]:
        """Position and open directions `(N, 5)`, position `(N, 2)` and goal `(N, 2)`."""
        x, y = state["x"], state["y"]
        along, fork = x / self.length, (x == self.length) & (y == 0)
        end = np.ones_like(along)
        return {
            "observation": _columns(along, y, x < self.length, fork, fork),
            "achieved_goal": _columns(along, y),
            "desired_goal": _columns(end, state["side"]),
        }

    def render(self, state: State, size: int) -> NDArray[np.uint8]:
        """The corridor around the agent, the cue above, and the progress below."""
        return self.picture(state, size, cue=True)

    def picture(self, state: State, size: int, cue: bool) -> NDArray[np.uint8]:
        """Image `(size, size, 3)`; the sign shows the goal if `cue` is true."""
        x, y, side = (int(state[name][0]) for name in ("x", "y", "side"))
        if self.length + 3 <= _VIEW:
            left = (self.length - _VIEW) / 2
        else:
            left = min(max(x - 5.0, -1.5), self.length + 1.5 - _VIEW)
        canvas = Canvas(size, (left, -_VIEW / 2, left + _VIEW, _VIEW / 2))
        self._draw_maze(canvas, side, left)
        canvas.circle((x, y), 0.32, drawing.AGENT, drawing.AGENT_EDGE, 0.06)
        _draw_sign(canvas, left + _VIEW / 2, side if cue else 0)
        self._draw_progress(canvas, left, x, y, side)
        return canvas.image()

    def _draw_maze(self, canvas: Canvas, side: int, left: float) -> None:
        shown = range(max(int(left) - 1, 0), min(int(left + _VIEW) + 2, self.length + 1))
        cells = [(x, 0) for x in shown] + [(self.length, 1), (self.length, -1)]
        for cell in cells:
            canvas.rectangle(cell, (1.24, 1.24), drawing.WALL, 0.12)
        for cell in cells:
            canvas.rectangle(cell, (1.0, 1.0), drawing.FLOOR)
            canvas.rectangle(cell, (0.94, 0.94), drawing.FLOOR_TILE, 0.08)
        canvas.rectangle((self.length, side), (0.94, 0.94), drawing.GOAL_AREA, 0.08)
        canvas.circle((self.length, side), 0.4, None, drawing.GOAL, 0.07)

    def _draw_progress(self, canvas: Canvas, left: float, x: int, y: int, side: int) -> None:
        start, end = left + 1.5, left + _VIEW - 1.5
        canvas.line([(start, _BAR), (end, _BAR)], drawing.FLOOR, 0.22)
        for arm in (1, -1):
            canvas.line([(end, _BAR), (end, _BAR + 0.7 * arm)], drawing.FLOOR, 0.22)
        canvas.circle((end, _BAR + 0.7 * side), 0.2, drawing.GOAL)
        agent = (start + (end - start) * x / self.length, _BAR + 0.7 * y)
        canvas.line([(start, _BAR), (agent[0], _BAR), agent], drawing.TRAIL, 0.22)
        canvas.circle(agent, 0.2, drawing.AGENT)
        canvas.text((left + _VIEW / 2, _BAR - 1.4), f"{x} of {self.length}", size=0.5)


class HiddenCue(HiddenGoal):
    """`HiddenGoal` around a `CueMazeSimulation`: the sign is blank while the goal is hidden."""

    simulation: CueMazeSimulation

    def render(self, state: State, size: int) -> NDArray[np.uint8]:
        """The maze with the cue that the agent observes."""
        return self.simulation.picture(state, size, cue=bool(self.visible(state)[0]))


def _columns(*values: NDArray[Any]) -> NDArray[np.float32]:
    return np.stack([value.astype(np.float32) for value in values], axis=1)


def _draw_sign(canvas: Canvas, x: float, side: int) -> None:
    canvas.rectangle((x, _SIGN), (2.4, 2.4), drawing.GOAL if side else drawing.FLOOR, 0.3)
    canvas.rectangle((x, _SIGN), (2.16, 2.16), drawing.BACKGROUND, 0.22)
    if side:
        canvas.arrow((x, _SIGN - 0.8 * side), (x, _SIGN + 0.85 * side), drawing.GOAL, 0.26)
    else:
        canvas.text((x, _SIGN), "?", drawing.FLOOR, 1.4)


def _simulation(length: int, visible_steps: int | None) -> tuple[Simulation, int]:
    """The maze and its time limit."""
    maze = CueMazeSimulation(length)
    limit = length + max(5, length // 4)
    return (maze if visible_steps is None else HiddenCue(maze, visible_steps)), limit


class CueMaze(SimulationEnv):
    """A T-shaped maze; the direction to turn at its junction is visible only at the start.

    ## Description
    The agent starts at the left end of a corridor of `length` cells. At its right end, one arm
    leads up and one down. The goal is the end of one arm, and only the first observation shows
    which one. The agent cannot go back, neither in the corridor nor out of an arm, and later
    observations do not depend on the goal. The task therefore only requires remembering the goal
    for `length` steps; a feed-forward agent succeeds in half of the episodes. Hindsight may use
    every cell of the corridor as a goal. These goals lead to the junction, which random actions do
    not reach in a long corridor.

    Source: the T-maze of Bakker 2002, "Reinforcement Learning with Long Short-Term Memory"; there
    the cue is an observation, here it is the goal.

    ## Action Space
    `Discrete(3)`

    | Num | Action                                                |
    |-----|-------------------------------------------------------|
    | 0   | one cell forward, to the right                        |
    | 1   | up; moves at the junction only                        |
    | 2   | down; moves at the junction only                      |

    ## Observation Space
    A `Dict` of float32 boxes. `desired_goal` is always the true goal, because rewards and hindsight
    need it; an agent may read it only while `goal_visible` is 1.

    | Key             | Num | Observation                     | Min | Max | Unit             |
    |-----------------|-----|---------------------------------|-----|-----|------------------|
    | `observation`   | 0   | x                               | 0   | 1   | corridor lengths |
    |                 | 1   | y                               | -1  | 1   | cells            |
    |                 | 2   | whether the cell ahead is free  | 0   | 1   | -                |
    |                 | 3   | whether the cell above is free  | 0   | 1   | -                |
    |                 | 4   | whether the cell below is free  | 0   | 1   | -                |
    | `achieved_goal` | 0   | x                               | 0   | 1   | corridor lengths |
    |                 | 1   | y                               | -1  | 1   | cells            |
    | `desired_goal`  | 0   | x to reach, always 1            | 0   | 1   | corridor lengths |
    |                 | 1   | y to reach, 1 or -1             | -1  | 1   | cells            |
    | `goal_visible`  | 0   | whether the goal is visible     | 0   | 1   | -                |

    With `visible_steps=None` the goal is always visible, and there is no key `goal_visible`.

    ## Rewards
    0 if the agent is in the goal's cell after the action, else -1.

    ## Starting State
    The left end of the corridor; the goal is up or down with equal probability.

    ## Episode End
    Terminates at success, which takes `length + 1` steps or more. Truncates after
    `length + max(5, length // 4)` steps; the environment counts them itself, because the limit
    depends on `length`. `max_episode_steps` may shorten it. An agent in the wrong arm stays there
    until the time limit.

    ## Arguments
    - `length`: cells from start to junction; default 10. `rlkit/CueMaze-50-v0`, `-100-` and
      `-200-` have longer ones.
    - `visible_steps`: number of observations with a visible goal, the first included; default 1.
      With None the goal is always visible, and the task is fully observable.
    - `render_mode`: "rgb_array" or None.

    ## Version History
    - v0: first version.
    """

    def __init__(
        self, render_mode: str | None = None, *, length: int = 10, visible_steps: int | None = 1
    ) -> None:
        simulation, limit = _simulation(length, visible_steps)
        super().__init__(simulation, render_mode, limit)


vector = CueMaze.vector
