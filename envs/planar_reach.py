"""PlanarReach: the tip of a planar arm has to reach a point; its motion is solved exactly."""

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

ARM_LENGTH = 1.0  # metres, all links together
TORQUE = 2.0  # newton metres at each joint, at most
INERTIA = 0.05  # kilogram metres squared, of a motor as seen through its gear
DAMPING = 0.5  # newton metre seconds per radian
JOINT_SPEED = TORQUE / DAMPING  # radians per second, at most
CONTROL_PERIOD = 0.05  # seconds
THRESHOLD = 0.05  # metres
GOAL_RADII = (0.2, 0.95)  # metres from the shoulder


class PlanarReachSimulation:
    """Physics of `PlanarReach`.

    Args:
        links: Number of links of equal length, at least 2.
        reward: `"sparse"` or `"dense"`.

    Raises:
        ValueError: If there are fewer than two links or the reward is unknown.
    """

    frames_per_second = round(1 / CONTROL_PERIOD)
    goal_names = ("x (m)", "y (m)")

    def __init__(self, links: int = 2, reward: str = "sparse") -> None:
        if links < 2:
            raise ValueError(f"links must be at least 2 to reach an area, got {links}")
        self.links = links
        self.draws = links + 2
        self.rule: GoalRule = DistanceRule(THRESHOLD, sparse=is_sparse(reward))
        self.action_space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (links,), np.float32)
        high = np.repeat([1.0, JOINT_SPEED, ARM_LENGTH], [2 * links, links, 2])
        # Rounding may put the tip of a straight arm just beyond one arm's length.
        high[-2:] += 1e-6
        self.observation_space = spaces.Dict(
            observation=spaces.Box(-high.astype(np.float32), high.astype(np.float32)),
            achieved_goal=spaces.Box(-high[-2:].astype(np.float32), high[-2:].astype(np.float32)),
            desired_goal=spaces.Box(-GOAL_RADII[1], GOAL_RADII[1], (2,), np.float32),
        )

    def initial(self, uniforms: NDArray[np.float64]) -> State:
        """Arms at rest in random poses, goals uniform by area in an annulus, not at the tip."""
        angle = np.pi * (2 * uniforms[:, : self.links] - 1)
        inner, outer = GOAL_RADII
        radius = np.sqrt(inner**2 + (outer**2 - inner**2) * uniforms[:, -2])
        direction = 2 * np.pi * uniforms[:, -1]
        goal = np.stack([radius * np.cos(direction), radius * np.sin(direction)], axis=1)
        tip = self.joints(angle)[:, -1]
        # The opposite goal has the same density and is at least 2 * (inner - THRESHOLD) away.
        goal = np.where(goal_distance(tip, goal)[:, None] < 2 * THRESHOLD, -goal, goal)
        return {"angle": angle, "velocity": np.zeros_like(angle), "goal": goal}

    def step(self, state: State, action: NDArray[Any]) -> State:
        """States one control period later, exact for constant torques."""
        final = JOINT_SPEED * np.clip(action.astype(np.float64), -1, 1)
        lag = INERTIA / DAMPING
        decay = math.exp(-CONTROL_PERIOD / lag)
        excess = state["velocity"] - final
        return {
            "angle": state["angle"] + final * CONTROL_PERIOD + excess * (lag * (1 - decay)),
            # The exact solution stays within the speed limit; the clip removes rounding errors.
            "velocity": np.clip(final + excess * decay, -JOINT_SPEED, JOINT_SPEED),
            "goal": state["goal"],
        }

    def observe(self, state: State) -> dict[str, NDArray[Any]]:
        """Observation dict, float32."""
        angle = state["angle"]
        tip = self.joints(angle)[:, -1]
        parts = [np.cos(angle), np.sin(angle), state["velocity"], tip]
        return {
            "observation": np.concatenate(parts, axis=1).astype(np.float32),
            "achieved_goal": tip.astype(np.float32),
            "desired_goal": state["goal"].astype(np.float32),
        }

    def joints(self, angle: NDArray[np.float64]) -> NDArray[np.float64]:
        """Forward kinematics: the outer end of each link, metres, `(N, links) -> (N, links, 2)`."""
        heading = np.cumsum(angle, axis=1)
        link = ARM_LENGTH / self.links * np.stack([np.cos(heading), np.sin(heading)], axis=2)
        ends: NDArray[np.float64] = np.cumsum(link, axis=1)
        return ends

    def render(self, state: State, size: int) -> NDArray[np.uint8]:
        """The arm, the area within its reach, and the goal; the ring's radius is the threshold."""
        reach = 1.1 * ARM_LENGTH
        canvas = Canvas(size, (-reach, -reach, reach, reach))
        canvas.circle((0, 0), ARM_LENGTH, drawing.FLOOR)
        goal, ends = state["goal"][0], self.joints(state["angle"])[0]
        canvas.circle(goal, THRESHOLD, drawing.GOAL_AREA, drawing.GOAL, 0.012)
        canvas.circle(goal, 0.012, drawing.GOAL)
        canvas.circle((0, 0), 0.09, drawing.WALL)
        points = np.concatenate([np.zeros((1, 2)), ends])
        canvas.line(points, drawing.AGENT_EDGE, 0.07)
        canvas.line(points, drawing.AGENT, 0.05)
        for joint in points[:-1]:
            canvas.circle(joint, 0.045, drawing.BACKGROUND, drawing.AGENT_EDGE, 0.014)
        canvas.circle(points[-1], 0.03, drawing.OBJECT, drawing.OBJECT_EDGE, 0.01)
        return canvas.image()


class PlanarReach(SimulationEnv):
    """A planar arm whose tip has to reach a goal position.

    ## Description
    An arm of `links` equal links with a total length of 1 m turns about a shoulder at the origin.
    Its tip has to come within 0.05 m of the goal and stay there. Every joint has a motor with a
    gear of high ratio: the motor's inertia, as seen through the gear, is much larger than that of
    the links, so that the dynamic coupling of the links is neglected. Joint i obeys

        0.05 kg m² · acceleration = torque − 0.5 N m s/rad · velocity

    with the velocity relative to the previous link, without gravity (the plane is horizontal),
    joint limits and self-collision. A step lasts 0.05 s. The torque is constant during a step, and
    the equation is solved exactly.

    ## Action Space
    `Box(-1, 1, (links,), float32)`: torques of the joints in units of 2 N m.

    ## Observation Space
    A Dict, float32:

    | Key | Content | Min | Max | Unit |
    |---|---|---|---|---|
    | `observation` | cosines of the joint angles (`links`) | -1 | 1 | |
    | | sines of the joint angles (`links`) | -1 | 1 | |
    | | joint velocities (`links`) | -4 | 4 | rad/s |
    | | tip x, y | -1 | 1 | m |
    | `achieved_goal` | tip x, y | -1 | 1 | m |
    | `desired_goal` | goal x, y | -0.95 | 0.95 | m |

    A joint angle is measured from the previous link, the first one from the x axis.

    ## Rewards
    `sparse`: 0 if the tip is within 0.05 m of the goal after the action, else -1. `dense`: minus
    the distance of tip and goal in metres.

    ## Starting State
    The arm is at rest with uniform joint angles. The goal is uniform by area over the annulus from
    0.2 m to 0.95 m around the shoulder; a goal within 0.1 m of the tip is reflected through the
    shoulder.

    ## Episode End
    Never terminates. The registered ids truncate after 50 steps (2.5 s).

    ## Arguments
    - `links`: number of links, at least 2 (default 2; `rlkit/PlanarReach3-v0` has 3).
    - `reward`: `"sparse"` (default) or `"dense"` (the `-Dense-v0` ids).
    - `render_mode`: `"rgb_array"` or None.

    ## Version History
    - v0: first version.
    """

    def __init__(
        self, *, links: int = 2, reward: str = "sparse", render_mode: str | None = None
    ) -> None:
        super().__init__(PlanarReachSimulation(links, reward), render_mode)


vector = PlanarReach.vector
