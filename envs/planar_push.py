"""PlanarPush: a disc pushes a puck on a table, with dry friction and inelastic collisions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.envs.rendering import drawing
from rlkit.envs.rendering.drawing import Canvas
from rlkit.envs.simulation import State, is_sparse
from rlkit.envs.simulation_env import SimulationEnv
from rlkit.goals import DistanceRule, GoalRule, goal_distance

TABLE, TABLE_VIEW = 0.5, 0.56  # metres from the centre to each wall, and to the image's edge
PUSHER_RADIUS, PUCK_RADIUS = 0.05, 0.08  # metres
PUSHER_MASS, PUCK_MASS = 1.0, 0.2  # kilograms
FORCE = 8.0  # newtons along each axis, at most
DAMPING = 10.0  # newton seconds per metre, of the pusher's drive
PUSHER_SPEED = FORCE / DAMPING  # metres per second along each axis, at most
GRAVITY = 9.81  # metres per second squared
FRICTION_COEFFICIENT = 0.6
FRICTION = FRICTION_COEFFICIENT * GRAVITY  # m/s², deceleration of a free puck
CONTROL_PERIOD, SUBSTEPS = 0.1, 10  # seconds, count
THRESHOLD = 0.05  # metres
PUCK_START, GOAL_AREA, PUSHER_START = 0.25, 0.3, 0.44  # metres, half sides of squares

Array = NDArray[np.float64]

_TICK = CONTROL_PERIOD / SUBSTEPS
_CONTACT = PUSHER_RADIUS + PUCK_RADIUS
_PUSHER_LIMIT, _PUCK_LIMIT = TABLE - PUSHER_RADIUS, TABLE - PUCK_RADIUS


class PlanarPushSimulation:
    """Physics of `PlanarPush`, by position-based dynamics.

    Forces change velocities, velocities predict positions, contacts and walls correct the
    positions, and the velocities are then computed from the corrected positions.
    Source: Müller et al. 2007, algorithm 1; corrections weighted by inverse mass, equation 9.

    Args:
        reward: `"sparse"` or `"dense"`.
        damping: Damping of the pusher's drive, N s/m, > 0. The force is scaled with it, so that
            the top speed stays.
        friction: Coefficient of friction between puck and table, >= 0.

    Raises:
        ValueError: If the reward is unknown, or a number is out of range.
    """

    draws = 6
    frames_per_second = round(1 / CONTROL_PERIOD)
    goal_names = ("x (m)", "y (m)")

    def __init__(
        self,
        reward: str = "sparse",
        damping: float = DAMPING,
        friction: float = FRICTION_COEFFICIENT,
    ) -> None:
        if not damping > 0:
            raise ValueError(f"damping must be above 0 N s/m, got {damping!r}")
        if not friction >= 0:
            raise ValueError(f"friction must be at least 0, got {friction!r}")
        self._decay = math.exp(-_TICK * damping / PUSHER_MASS)
        self._braking = friction * GRAVITY * _TICK  # m/s, loss of a sliding puck in a substep
        self.rule: GoalRule = DistanceRule(THRESHOLD, sparse=is_sparse(reward))
        self.action_space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (2,), np.float32)
        # Collisions never make a disc faster than the top speed along a diagonal.
        speed = math.sqrt(2) * PUSHER_SPEED
        limits = [_PUSHER_LIMIT, speed, _PUCK_LIMIT, speed, _PUSHER_LIMIT + _PUCK_LIMIT]
        high = np.repeat(limits, 2).astype(np.float32)
        self.observation_space = spaces.Dict(
            observation=spaces.Box(-high, high),
            achieved_goal=spaces.Box(-_PUCK_LIMIT, _PUCK_LIMIT, (2,), np.float32),
            desired_goal=spaces.Box(-GOAL_AREA, GOAL_AREA, (2,), np.float32),
        )

    def initial(self, uniforms: NDArray[np.float64]) -> State:
        """Both discs at rest without contact, and the goal not at the puck."""
        centred = 2 * uniforms - 1
        puck = PUCK_START * centred[:, :2]
        goal = _away(GOAL_AREA * centred[:, 2:4], puck, 2 * THRESHOLD, GOAL_AREA)
        pusher = _away(PUSHER_START * centred[:, 4:], puck, _CONTACT + 0.02, PUSHER_START)
        rest = np.zeros_like(puck)
        return {
            "pusher": pusher,
            "pusher_velocity": rest,
            "puck": puck,
            "puck_velocity": rest.copy(),
            "goal": goal,
        }

    def step(self, state: State, action: NDArray[Any]) -> State:
        """States one control period later."""
        drive = PUSHER_SPEED * np.clip(action.astype(np.float64), -1, 1)
        pusher, puck = state["pusher"], state["puck"]
        pusher_velocity, puck_velocity = state["pusher_velocity"], state["puck_velocity"]
        for _ in range(SUBSTEPS):
            pusher_velocity = drive + (pusher_velocity - drive) * self._decay
            puck_velocity = _slowed(puck_velocity, self._braking)
            pusher_moved, puck_moved = _separated(
                pusher + _TICK * pusher_velocity, puck + _TICK * puck_velocity
            )
            # A pusher that is stuck between puck and wall: neither moves.
            wedged = _length(puck_moved - pusher_moved) < _CONTACT - 1e-9
            pusher_moved = np.where(wedged, pusher, pusher_moved)
            puck_moved = np.where(wedged, puck, puck_moved)
            pusher_velocity = (pusher_moved - pusher) / _TICK
            puck_velocity = (puck_moved - puck) / _TICK
            pusher, puck = pusher_moved, puck_moved
        return {
            "pusher": pusher,
            "pusher_velocity": pusher_velocity,
            "puck": puck,
            "puck_velocity": puck_velocity,
            "goal": state["goal"],
        }

    def observe(self, state: State) -> dict[str, NDArray[Any]]:
        """Observation dict, float32."""
        pusher, puck = state["pusher"], state["puck"]
        parts = [pusher, state["pusher_velocity"], puck, state["puck_velocity"], puck - pusher]
        return {
            "observation": np.concatenate(parts, axis=1).astype(np.float32),
            "achieved_goal": puck.astype(np.float32),
            "desired_goal": state["goal"].astype(np.float32),
        }

    def render(self, state: State, size: int) -> NDArray[np.uint8]:
        """The table from above; success is the puck's centre inside the green ring."""
        canvas = Canvas(size, (-TABLE_VIEW, -TABLE_VIEW, TABLE_VIEW, TABLE_VIEW))
        canvas.rectangle((0, 0), (2 * TABLE + 0.06,) * 2, drawing.WALL, 0.03)
        canvas.rectangle((0, 0), (2 * TABLE,) * 2, drawing.FLOOR)
        goal, puck, pusher = (state[key][0] for key in ("goal", "puck", "pusher"))
        canvas.circle(goal, PUCK_RADIUS, drawing.GOAL_AREA)
        canvas.circle(puck, PUCK_RADIUS, drawing.OBJECT, drawing.OBJECT_EDGE, 0.008)
        canvas.circle(puck, 0.01, drawing.OBJECT_EDGE)
        canvas.circle(pusher, PUSHER_RADIUS, drawing.AGENT, drawing.AGENT_EDGE, 0.008)
        canvas.circle(goal, THRESHOLD, None, drawing.GOAL, 0.008)
        return canvas.image()


def _away(position: Array, puck: Array, distance: float, half_side: float) -> Array:
    """Shifts positions within `distance` of the puck by half a square, where density is equal."""
    aside = position.copy()
    aside[:, 0] -= np.copysign(half_side, position[:, 0])
    return np.where(goal_distance(position, puck)[:, None] < distance, aside, position)


def _slowed(velocity: Array, braking: float) -> Array:
    """A puck's velocity after one substep of dry friction."""
    speed = _length(velocity)
    # The small number avoids a division by zero for a puck at rest.
    return velocity * np.maximum(1 - braking / np.maximum(speed, 1e-12), 0)


def _separated(pusher: Array, puck: Array) -> tuple[Array, Array]:
    """Predicted positions corrected for walls and overlap; the lighter disc moves more."""
    pusher, puck = _within(pusher, _PUSHER_LIMIT), _within(puck, _PUCK_LIMIT)
    gap = puck - pusher
    distance = _length(gap)
    if np.all(distance >= _CONTACT):
        return pusher, puck
    correction = gap * (np.maximum(_CONTACT - distance, 0) / distance)
    share = PUSHER_MASS / (PUSHER_MASS + PUCK_MASS)
    puck = _within(puck + share * correction, _PUCK_LIMIT)
    pusher = pusher - (1 - share) * correction
    # Overlap that remains because a wall stops the puck is corrected by moving the pusher.
    gap = puck - pusher
    distance = _length(gap)
    pusher = pusher - gap * (np.maximum(_CONTACT - distance, 0) / distance)
    return _within(pusher, _PUSHER_LIMIT), puck


def _within(position: Array, limit: float) -> Array:
    # np.clip takes several times as long on few rows.
    return np.minimum(np.maximum(position, -limit), limit)


def _length(vector: Array) -> Array:
    """Euclidean length per row, `(N, 2) -> (N, 1)`."""
    x, y = vector[:, :1], vector[:, 1:]
    return np.sqrt(x * x + y * y)


class PlanarPush(SimulationEnv):
    """A disc that pushes a puck to a goal position on a table.

    ## Description
    On a table of 1 m × 1 m with walls, a driven disc (radius 0.05 m, 1 kg) pushes a free puck
    (radius 0.08 m, 0.2 kg). The puck's centre has to come within 0.05 m of the goal and stay
    there. The drive has a force of up to 8 N along each axis and a damping of 10 N s/m. The puck
    slides with dry friction (coefficient 0.6, deceleration 5.886 m/s²) until it rests. The contact
    between disc and puck is frictionless, so that an off-centre push deflects the puck. Collisions
    are inelastic, and momentum is conserved between disc and puck. A step lasts 0.1 s in 10
    substeps. With small `damping` and `friction` both slide as on ice: the pusher reacts slowly, at
    the same top speed, the puck keeps sliding, and future positions depend on velocities.

    ## Action Space
    `Box(-1, 1, (2,), float32)`: force of the drive along x and y in units of 8 N (in general,
    0.8 m/s times the damping).

    ## Observation Space
    A Dict, float32:

    | Key | Content | Min | Max | Unit |
    |---|---|---|---|---|
    | `observation` | pusher x, y | -0.45 | 0.45 | m |
    | | pusher velocity x, y | -1.13 | 1.13 | m/s |
    | | puck x, y | -0.42 | 0.42 | m |
    | | puck velocity x, y | -1.13 | 1.13 | m/s |
    | | puck minus pusher x, y | -0.87 | 0.87 | m |
    | `achieved_goal` | puck x, y | -0.42 | 0.42 | m |
    | `desired_goal` | goal x, y | -0.3 | 0.3 | m |

    ## Rewards
    `sparse`: 0 if the puck is within 0.05 m of the goal after the action, else -1. `dense`: minus
    the distance of puck and goal in metres.

    ## Starting State
    Both are at rest. The puck is uniform over the square of ±0.25 m, the goal over ±0.3 m, the
    pusher over ±0.44 m. A goal within 0.1 m of the puck and a pusher within 0.02 m of contact are
    shifted by half of their square.

    ## Episode End
    Never terminates. The registered ids truncate after 50 steps (5 s).

    ## Arguments
    - `reward`: `"sparse"` (default) or `"dense"` (the `-Dense-v0` ids).
    - `damping`: damping of the drive in N s/m; default 10.
    - `friction`: coefficient of friction between puck and table; default 0.6.
    - `render_mode`: `"rgb_array"` or None.

    ## Version History
    - v0: first version.
    """

    def __init__(
        self,
        *,
        reward: str = "sparse",
        damping: float = DAMPING,
        friction: float = FRICTION_COEFFICIENT,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(PlanarPushSimulation(reward, damping, friction), render_mode)


vector = PlanarPush.vector
