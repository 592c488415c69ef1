"""Waypoint: an aircraft has to fly through a point in a given direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.envs.rendering import drawing
from rlkit.envs.rendering.drawing import Canvas
from rlkit.envs.simulation import State, is_sparse
from rlkit.envs.simulation_env import SimulationEnv
from rlkit.goals import GoalRule
from rlkit.goals.rule import Array, BoolArray, FloatArray

AIRSPEED = 30.0  # metres per second
TURN_RATE = 0.12  # radians per second, at most
CLIMB_RATE = 4.0  # metres per second, at most
TURN_LAG, CLIMB_LAG = 1.0, 1.5  # seconds, time constants of the commanded rates
CONTROL_PERIOD = 2.0  # seconds
START_ALTITUDES = (300.0, 600.0)  # metres
KILOMETRE = 1000.0  # metres

_LEGS, _LEG_PERIODS = 4, (3, 7)  # of the random flight to a goal; minimum and maximum periods
_MAP_SHARE = 0.84  # of the image's width; the rest shows the altitudes
_POINTS_PER_PERIOD = 8  # of the midpoint rule over the heading; its error is millimetres


@dataclass(frozen=True)
class WaypointRule:
    """Success within a radius of the goal's position and a tolerance of its heading.

    Goals are rows `(x, y, z, cos heading, sin heading)`, positions in metres. The sparse reward is
    -1 until success and 0 then; the dense reward is minus the distance in radii minus the weighted
    heading error.

    Attributes:
        radius: Distance below which the position counts as reached, metres, > 0.
        heading_tolerance: Heading error below which the direction counts as reached, radians, > 0.
        heading_weight: Distance equivalent to one radian in the dense reward, metres, >= 0.
        sparse: Whether the reward is -1 or 0 only.
        terminates: Whether success ends the episode.
    """

    radius: float = 100.0
    heading_tolerance: float = 0.35
    heading_weight: float = 100.0
    sparse: bool = True
    terminates: bool = True

    def __post_init__(self) -> None:
        if not (self.radius > 0 and self.heading_tolerance > 0):
            raise ValueError(
                f"radius and heading_tolerance must be positive, got {self.radius} m and "
                f"{self.heading_tolerance} rad"
            )
        if not self.heading_weight >= 0:
            raise ValueError(f"heading_weight must not be negative, got {self.heading_weight}")

    @property
    def reward_range(self) -> tuple[float, float]:
        """`(-1, 0)` when sparse, unbounded below when dense."""
        return (-1.0, 0.0) if self.sparse else (-np.inf, 0.0)

    def reward(self, achieved: Array, desired: Array) -> FloatArray:
        """Reward of each row, `(N, 5), (N, 5) -> (N,)`."""
        if self.sparse:
            return self.success(achieved, desired).astype(np.float64) - 1.0
        distance, turn = self.errors(achieved, desired)
        return -(distance + self.heading_weight * turn) / self.radius

    def success(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether each row reached position and direction, `(N, 5), (N, 5) -> (N,)`."""
        distance, turn = self.errors(achieved, desired)
        return np.asarray((distance < self.radius) & (turn < self.heading_tolerance))

    def terminated(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether each row ends its episode, `(N, 5), (N, 5) -> (N,)`."""
        reached = self.success(achieved, desired)
        return reached if self.terminates else np.zeros_like(reached)

    @staticmethod
    def errors(achieved: Array, desired: Array) -> tuple[FloatArray, FloatArray]:
        """Distance in metres and heading error in radians, `(N, 5), (N, 5) -> (N,), (N,)`."""
        # In float32, the type of observations, the squares would lose up to a metre of precision.
        a, d = achieved.astype(np.float64), desired.astype(np.float64)
        x, y, z = (a[:, i] - d[:, i] for i in range(3))
        along = a[:, 3] * d[:, 3] + a[:, 4] * d[:, 4]
        across = a[:, 3] * d[:, 4] - a[:, 4] * d[:, 3]
        distance = np.sqrt(x * x + y * y + z * z)
        return distance, np.arctan2(np.abs(across), along)


class WaypointSimulation:
    """Physics of `Waypoint`.

    Args:
        reward: `"sparse"` or `"dense"`.

    Raises:
        ValueError: If the reward is unknown.
    """

    draws = 2 + 2 * _LEGS
    goal_names = ("x (m)", "y (m)")
    frames_per_second = 5  # videos run at ten times the real speed

    def __init__(self, reward: str = "sparse") -> None:
        self.rule: GoalRule = WaypointRule(sparse=is_sparse(reward))
        self.action_space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (2,), np.float32)
        low = np.array([-np.inf, -np.inf, 0, -1, -1, -TURN_RATE, -CLIMB_RATE], np.float32)
        high = np.array([np.inf, np.inf, np.inf, 1, 1, TURN_RATE, CLIMB_RATE], np.float32)
        goal = spaces.Box(low[:5], high[:5])
        self.observation_space = spaces.Dict(
            observation=spaces.Box(low, high), achieved_goal=goal, desired_goal=goal
        )

    def initial(self, uniforms: NDArray[np.float64]) -> State:
        """Level flight; each goal is the end of a random flight from the same start."""
        low, high = START_ALTITUDES
        zero = np.zeros(len(uniforms))
        state: State = {
            "position": np.stack([zero, zero, low + (high - low) * uniforms[:, 0]], axis=1),
            "heading": zero,
            "turn_rate": zero,
            "climb_rate": zero,
        }
        shortest, longest = _LEG_PERIODS
        periods = shortest + np.floor((longest - shortest + 1) * uniforms[:, 1])
        seconds = CONTROL_PERIOD * periods
        commands = (2 * uniforms[:, 2:] - 1).reshape(-1, _LEGS, 2)
        flown = [state]
        for leg in range(_LEGS):
            flown.append(_flown(flown[-1], commands[:, leg], seconds, longest))
        start, earlier, goal = _pose(state), _pose(flown[-3]), _pose(flown[-1])
        # A flight may end at its start; two legs earlier it was more than 200 metres away.
        at_start = self.rule.success(start, goal)[:, None]
        return {**state, "goal": np.where(at_start, earlier, goal)}

    def step(self, state: State, action: NDArray[Any]) -> State:
        """States one control period later."""
        command = np.clip(action.astype(np.float64), -1, 1)
        seconds = np.full(len(command), float(CONTROL_PERIOD))
        return {**_flown(state, command, seconds, 1), "goal": state["goal"]}

    def observe(self, state: State) -> dict[str, NDArray[Any]]:
        """Observation dict, float32."""
        pose = _pose(state)
        rates = np.stack([state["turn_rate"], state["climb_rate"]], axis=1)
        return {
            "observation": np.concatenate([pose, rates], axis=1).astype(np.float32),
            "achieved_goal": pose.astype(np.float32),
            "desired_goal": state["goal"].astype(np.float32),
        }

    def render(self, state: State, size: int) -> NDArray[np.uint8]:
        """A map, y up, and beside it the altitudes of aircraft and goal."""
        # The image's units are kilometres, so that numbers are of order one.
        position, goal = state["position"][0] / KILOMETRE, state["goal"][0].copy()
        goal[:3] /= KILOMETRE
        middle = goal[:2] / 2
        # Start and goal are always visible; if the aircraft flies farther, the map zooms out.
        half = max(0.3 + np.abs(middle).max(), np.abs(position[:2] - middle).max() + 0.1)
        span = 2 * half / _MAP_SHARE
        corner = middle - np.array([half, span / 2])
        canvas = Canvas(size, (*corner, *(corner + span)))
        _draw_map(canvas, corner, span)
        heading = state["heading"][0]
        direction = np.array([np.cos(heading), np.sin(heading)])
        radius = WaypointRule.radius / KILOMETRE
        canvas.circle(goal[:2], radius, drawing.GOAL_AREA, drawing.GOAL, 0.006 * span)
        ahead = 0.09 * span * goal[3:]
        canvas.arrow(goal[:2] - ahead, goal[:2] + ahead, drawing.GOAL, 0.011 * span)
        canvas.polygon(_dart(position[:2], direction, 0.035 * span), drawing.AGENT_EDGE)
        canvas.polygon(_dart(position[:2], direction, 0.026 * span), drawing.AGENT)
        _draw_altitudes(canvas, corner, span, position[2], goal[2])
        return canvas.image()


def _flown(
    state: State, command: NDArray[np.float64], seconds: NDArray[np.float64], periods: int
) -> State:
    """States after constant commands `(N, 2)` for `seconds` `(N,)`, at most `periods`.

    Rates, heading, and altitude above the ground are exact.
    """
    turn, heading = _lagged(state["turn_rate"], TURN_RATE * command[:, 0], TURN_LAG, seconds)
    climb, height = _lagged(state["climb_rate"], CLIMB_RATE * command[:, 1], CLIMB_LAG, seconds)
    points = _POINTS_PER_PERIOD * periods
    times = (np.arange(points) + 0.5) / points * seconds[:, None]
    _, turned = _lagged(state["turn_rate"][:, None], TURN_RATE * command[:, :1], TURN_LAG, times)
    course = state["heading"][:, None] + turned
    length = AIRSPEED * seconds
    moved = [length * np.cos(course).mean(axis=1), length * np.sin(course).mean(axis=1), height]
    position = state["position"] + np.stack(moved, axis=1)
    grounded = position[:, 2] <= 0
    position[:, 2] = np.maximum(position[:, 2], 0)
    return {
        "position": position,
        "heading": state["heading"] + heading,
        "turn_rate": np.clip(turn, -TURN_RATE, TURN_RATE),
        "climb_rate": np.clip(
            np.where(grounded, np.maximum(climb, 0), climb), -CLIMB_RATE, CLIMB_RATE
        ),
    }


def _lagged(
    rate: NDArray[np.float64], target: NDArray[np.float64], lag: float, time: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A rate that approaches its target exponentially and its integral, both after `time`."""
    decay = np.exp(-time / lag)
    excess = rate - target
    return target + excess * decay, target * time + excess * (lag * (1 - decay))


def _pose(state: State) -> NDArray[np.float64]:
    """Goal vectors `(x, y, z, cos heading, sin heading)`, positions in metres, `(N, 5)`."""
    heading = state["heading"]
    direction = np.stack([np.cos(heading), np.sin(heading)], axis=1)
    return np.concatenate([state["position"], direction], axis=1)


def _dart(
    position: NDArray[np.float64], direction: NDArray[np.float64], reach: float
) -> NDArray[np.float64]:
    """Corners of a triangle with a notched back that points along a direction, `(4, 2)`."""
    outline = reach * np.array([[1.2, 0.0], [-0.9, 0.8], [-0.5, 0.0], [-0.9, -0.8]])
    across = np.array([-direction[1], direction[0]])
    corners: NDArray[np.float64] = position + outline[:, :1] * direction + outline[:, 1:] * across
    return corners


def _draw_map(canvas: Canvas, corner: NDArray[np.float64], span: float) -> None:
    """The ground with grid lines every 0.5 km and a mark at the start."""
    width = _MAP_SHARE * span
    left, bottom = corner
    canvas.rectangle(corner + np.array([width, span]) / 2, (width, span), drawing.FLOOR)
    for x in np.arange(np.ceil(left / 0.5) * 0.5, left + width, 0.5):
        canvas.line([(x, bottom), (x, bottom + span)], drawing.BACKGROUND, 0.005 * span)
    for y in np.arange(np.ceil(bottom / 0.5) * 0.5, bottom + span, 0.5):
        canvas.line([(left, y), (left + width, y)], drawing.BACKGROUND, 0.005 * span)
    canvas.circle((0, 0), 0.012 * span, None, drawing.TRAIL, 0.006 * span)


def _draw_altitudes(
    canvas: Canvas, corner: NDArray[np.float64], span: float, aircraft: float, goal: float
) -> None:
    """A scale from 0 to 1 km with ticks every 200 m, and both altitudes."""
    strip = (1 - _MAP_SHARE) * span
    middle, ground = corner[0] + span - strip / 2, corner[1] + 0.08 * span
    canvas.rectangle((middle, corner[1] + span / 2), (strip, 1.1 * span), drawing.BACKGROUND)

    def at(altitude: float) -> NDArray[np.float64]:
        return np.array([middle, ground + 0.84 * span * min(altitude, 1.0)])

    reach = np.array([0.18 * strip, 0.0])
    canvas.line([at(0), at(1)], drawing.WALL, 0.006 * span)
    for tick in np.linspace(0, 1, 6):
        canvas.line([at(tick) - reach, at(tick) + reach], drawing.WALL, 0.004 * span)
    tolerance = 0.84 * span * 2 * WaypointRule.radius / KILOMETRE
    canvas.rectangle(at(goal), (0.7 * strip, tolerance), drawing.GOAL_AREA)
    canvas.line([at(goal) - 2 * reach, at(goal) + 2 * reach], drawing.GOAL, 0.011 * span)
    nose = np.array([-1.0, 0.0])
    canvas.polygon(_dart(at(aircraft) + 1.2 * reach, nose, 0.022 * span), drawing.AGENT)
    canvas.text((middle, ground - 0.045 * span), "altitude", size=0.03 * span)


class Waypoint(SimulationEnv):
    """An aircraft that flies through waypoints in given directions.

    ## Description
    An aircraft with a constant speed of 30 m/s over flat ground has to fly through a position,
    within 100 m, with a given heading, within 0.35 rad (20°). It cannot stop or wait: after a miss
    it has to fly another circle. Turns are coordinated. The turn rate follows its command with a
    time constant of 1 s, up to 0.12 rad/s (a circle of 250 m radius at 20° of bank), the climb rate
    with one of 1.5 s, up to 4 m/s. There is no wind, climbing does not change the ground speed, and
    the altitude cannot fall below 0, which stands for ground avoidance. A step lasts 2 s. Rates and
    heading are solved exactly, positions to millimetres.

    ## Action Space
    `Box(-1, 1, (2,), float32)`: commanded turn rate (counterclockwise) in units of 0.12 rad/s and
    commanded climb rate in units of 4 m/s.

    ## Observation Space
    A Dict, float32:

    | Key | Content | Min | Max | Unit |
    |---|---|---|---|---|
    | `observation` | x, y | -inf | inf | m |
    | | altitude z | 0 | inf | m |
    | | cosine, sine of the heading | -1 | 1 | |
    | | turn rate | -0.12 | 0.12 | rad/s |
    | | climb rate | -4 | 4 | m/s |
    | `achieved_goal` | x, y, z, cosine, sine of the heading | as above | as above | m |
    | `desired_goal` | the same values of the waypoint | as above | as above | m |

    ## Rewards
    `sparse`: 0 if position and direction are reached after the action, else -1. `dense`: minus the
    distance in units of 100 m, minus 1 per radian of heading error.

    ## Starting State
    The aircraft is at x = y = 0 in level flight along the x axis, 300 m to 600 m high. The waypoint
    is the end of a random flight of 12 to 28 steps from the same start, so that it can be reached
    in time: four legs of equal duration, 3 to 7 steps each, with uniform commands. If that flight
    ends at its start, the waypoint is the end of its second leg.

    ## Episode End
    Terminates at success. The registered ids truncate after 100 steps (200 s).

    ## Arguments
    - `reward`: `"sparse"` (default) or `"dense"` (the `-Dense-v0` ids).
    - `render_mode`: `"rgb_array"` or None.

    ## Version History
    - v0: first version.
    """

    def __init__(self, *, reward: str = "sparse", render_mode: str | None = None) -> None:
        super().__init__(WaypointSimulation(reward), render_mode)


vector = Waypoint.vector
