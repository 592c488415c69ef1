"""Gymnasium-Robotics environments with picklable goal rules and an exact state.

`rlkit.envs.make.make("FetchPush-v4")` uses this module. Only it and `rlkit.envs.fetch` need the
extra `robotics`.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from numpy.typing import NDArray

from rlkit.envs.make import GOAL_FAMILIES, prefer_egl
from rlkit.goals import GoalEnv, GoalRule
from rlkit.goals.rule import Array, BoolArray, FloatArray

try:
    # The package prints messages about its versions when it is imported.
    with contextlib.redirect_stderr(io.StringIO()):
        import gymnasium_robotics
        import mujoco
        from gymnasium_robotics.envs.fetch.fetch_env import MujocoFetchEnv
        from gymnasium_robotics.envs.maze.maze_v4 import MazeEnv
        from gymnasium_robotics.envs.shadow_dexterous_hand.manipulate import MujocoManipulateEnv
        from gymnasium_robotics.envs.shadow_dexterous_hand.reach import MujocoHandReachEnv
        from gymnasium_robotics.utils import rotations

        from rlkit.envs.fetch import INDEXED
except ImportError as error:
    raise ImportError(
        f"the Gymnasium-Robotics environments need an extra ({error}): "
        f'pip install "rlkit-suite[robotics]"'
    ) from error

gym.register_envs(gymnasium_robotics)
_EVERYTHING = mujoco.mjtState.mjSTATE_INTEGRATION


class _ContinuingRule:
    """What the rules of the Fetch and Shadow Hand tasks share: rewards of at most 0, no ends.

    Attributes:
        sparse: Whether the reward is -1 or 0.
    """

    sparse: bool

    @property
    def reward_range(self) -> tuple[float, float]:
        """`(-1, 0)` when sparse, unbounded below when dense."""
        return (-1.0, 0.0) if self.sparse else (-np.inf, 0.0)

    def terminated(self, achieved: Array, desired: Array) -> BoolArray:
        """Never, `(N, G), (N, G) -> (N,)`."""
        return np.zeros(len(achieved), np.bool_)


@dataclass(frozen=True)
class ReachRule(_ContinuingRule):
    """The rule of the Fetch tasks and of HandReach: points within a distance of their targets.

    Source: Plappert et al. 2018, section 1. At exactly the threshold the packaged environments
    return the success reward without reporting success; so does this rule.

    Attributes:
        threshold: Distance in metres.
        sparse: Whether the reward is -1 until success and 0 then; else it is minus the distance.
    """

    threshold: float
    sparse: bool = True

    def reward(self, achieved: Array, desired: Array) -> FloatArray:
        """Reward of each row, `(N, G), (N, G) -> (N,)`."""
        distance = _distance(achieved, desired)
        return -(distance > self.threshold).astype(np.float64) if self.sparse else -distance

    def success(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether each row lies within the threshold, `(N, G), (N, G) -> (N,)`."""
        return np.asarray(_distance(achieved, desired) < self.threshold)


@dataclass(frozen=True)
class MazeRule:
    """The rule of PointMaze and AntMaze: the agent within a radius of the target.

    Attributes:
        sparse: Whether the reward is 1 at success and 0 before; else it is exp(-distance).
        terminates: Whether success ends the episode (`continuing_task=False`).
        radius: Distance in metres, the same for every agent and maze size.
    """

    sparse: bool = True
    terminates: bool = False
    radius: float = 0.45

    @property
    def reward_range(self) -> tuple[float, float]:
        """Always `(0, 1)`."""
        return (0.0, 1.0)

    def reward(self, achieved: Array, desired: Array) -> FloatArray:
        """Reward of each row, `(N, 2), (N, 2) -> (N,)`."""
        distance = _distance(achieved, desired)
        dense: FloatArray = np.exp(-distance)
        return (distance <= self.radius).astype(np.float64) if self.sparse else dense

    def success(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether each row lies within the radius, `(N, 2), (N, 2) -> (N,)`."""
        return np.asarray(_distance(achieved, desired) <= self.radius)

    def terminated(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether each row ends its episode, `(N, 2), (N, 2) -> (N,)`."""
        reached = self.success(achieved, desired)
        return reached if self.terminates else np.zeros_like(reached)


@dataclass(frozen=True)
class ManipulateRule(_ContinuingRule):
    """The rule of the HandManipulate tasks: an object's pose `(x, y, z, quaternion w x y z)`.

    The packaged `compute_reward` is wrong for batches where `ignore_z` is set (the pen): it
    overwrites row 2 instead of component 2. This rule computes for each row what the package
    computes for a single goal.

    Attributes:
        distance: Position threshold in metres.
        angle: Rotation threshold in radians.
        sparse: Whether the reward is -1 until success and 0 then; else it is
            -(10 distance + angle).
        use_position: Whether the position counts.
        use_rotation: Whether the rotation counts.
        ignore_z: Whether rotation about the z axis is free.
    """

    distance: float
    angle: float
    sparse: bool = True
    use_position: bool = True
    use_rotation: bool = True
    ignore_z: bool = False

    def reward(self, achieved: Array, desired: Array) -> FloatArray:
        """Reward of each row, `(N, 7), (N, 7) -> (N,)`."""
        if self.sparse:
            return self.success(achieved, desired).astype(np.float64) - 1.0
        return -(10.0 * self._position(achieved, desired) + self._rotation(achieved, desired))

    def success(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether position and rotation are within their thresholds, `(N, 7), (N, 7) -> (N,)`."""
        near = self._position(achieved, desired) < self.distance
        aligned = self._rotation(achieved, desired) < self.angle
        return np.asarray(near & aligned)

    def _position(self, achieved: Array, desired: Array) -> FloatArray:
        if not self.use_position:
            return np.zeros(len(achieved))
        return _distance(achieved[:, :3], desired[:, :3])

    def _rotation(self, achieved: Array, desired: Array) -> FloatArray:
        if not self.use_rotation:
            return np.zeros(len(achieved))
        actual, wanted = achieved[:, 3:], desired[:, 3:]
        if self.ignore_z:
            euler = rotations.quat2euler(actual)
            euler[:, 2] = rotations.quat2euler(wanted)[:, 2]
            actual = rotations.euler2quat(euler)
        difference = rotations.quat_mul(actual, rotations.quat_conjugate(wanted))
        angle: FloatArray = 2 * np.arccos(np.clip(difference[:, 0], -1.0, 1.0))
        return angle


def _distance(achieved: Array, desired: Array) -> FloatArray:
    # As in the packaged environments; a faster sum could differ in the last bit.
    return np.asarray(np.linalg.norm(achieved - desired, axis=-1))


def rule_of(robot: gym.Env[Any, Any]) -> GoalRule:
    """The goal rule of an unwrapped Gymnasium-Robotics environment.

    Raises:
        ValueError: If there is no rule for the environment.
    """
    if isinstance(robot, MujocoFetchEnv | MujocoHandReachEnv):
        return ReachRule(float(robot.distance_threshold), robot.reward_type == "sparse")
    if isinstance(robot, MazeEnv):
        return MazeRule(robot.reward_type == "sparse", not robot.continuing_task)
    if isinstance(robot, MujocoManipulateEnv):
        return ManipulateRule(
            distance=float(robot.distance_threshold),
            angle=float(robot.rotation_threshold),
            sparse=robot.reward_type == "sparse",
            use_position=robot.target_position != "ignore",
            use_rotation=robot.target_rotation != "ignore",
            ignore_z=bool(robot.ignore_z_target_rotation),
        )
    raise ValueError(
        f"{type(robot).__name__} has no goal rule: supported are Fetch*-v4, HandReach-v3, "
        f"HandManipulate*-v1, PointMaze_*-v3, AntMaze_*-v4 and -v5. (AntMaze_*-v3 draws a new goal "
        f"before it computes the reward, and older versions need mujoco_py.)"
    )


class RoboticsEnv(GoalEnv[NDArray[np.float32]]):
    """A Gymnasium-Robotics environment with a `GoalRule` and an exact state.

    Observations, rewards and ends of episodes are those of the packaged environment.
    `info["is_success"]` is present for every family, also in `reset`.

    Args:
        robot: The packaged environment without wrappers.
        show_goal: Whether images show the goal; only Fetch tasks can hide it.

    Attributes:
        robot: The packaged environment; its `model`, `data`, `initial_qpos` and `initial_qvel` are
            attributes of this one as well.

    Raises:
        ValueError: If `robot` is wrapped, there is no rule for it, or its goal cannot be hidden.
    """

    def __init__(self, robot: Any, show_goal: bool = True) -> None:
        if robot.unwrapped is not robot:
            raise ValueError(
                f"{robot} is wrapped, and its wrappers would be ignored: pass env.unwrapped, or "
                f"build the environment with rlkit.envs.make.make"
            )
        self.robot: Any = robot
        self.rule = rule_of(robot)
        self.observation_space = robot.observation_space
        self.action_space = robot.action_space
        in_metres = isinstance(robot, MujocoFetchEnv | MazeEnv)
        names = ("x (m)", "y (m)", "z (m)") if in_metres else ()
        self.metadata = {**robot.metadata, "goal_names": names}
        self.render_mode = robot.render_mode
        # A maze contains a MuJoCo environment, every other task is one.
        self._simulator: Any = getattr(robot, "point_env", getattr(robot, "ant_env", robot))
        self._show_goal = show_goal
        if not show_goal:
            if not isinstance(robot, MujocoFetchEnv):
                raise ValueError(f"show_goal=False is for Fetch tasks, got {type(robot).__name__}")
            robot.model.site("target0").rgba[3] = 0

    def __getattr__(self, name: str) -> Any:
        # What users of the packaged environments read of `env.unwrapped`.
        if name in ("model", "data"):
            return getattr(self._simulator, name)
        if name in ("initial_qpos", "initial_qvel"):
            return getattr(self.robot, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        # The packaged environment is built anew when it is unpickled, without what was changed
        # in its model; a maze gets a new simulator.
        kept = {k: v for k, v in vars(self).items() if k not in ("robot", "_simulator")}
        return type(self), (self.robot, self._show_goal), kept

    @property
    def np_random(self) -> np.random.Generator:
        """The random generator of start states and goals."""
        generator: np.random.Generator = self.robot.np_random
        return generator

    @np_random.setter
    def np_random(self, value: np.random.Generator) -> None:
        self.robot.np_random = value

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode; `options` are those of the packaged environment."""
        observation, info = self.robot.reset(seed=seed, options=options)
        self._np_random = self.robot.np_random  # Gymnasium's checker reads this
        self._np_random_seed = self.robot.np_random_seed
        pair = observation["achieved_goal"][None], observation["desired_goal"][None]
        info["is_success"] = bool(self.rule.success(*pair)[0])
        return observation, info

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step of the packaged environment."""
        observation, reward, terminated, truncated, info = self.robot.step(action)
        info["is_success"] = bool(info.get("is_success", info.get("success")))
        return observation, float(reward), bool(terminated), bool(truncated), info

    def render(self) -> Any:
        """The image that the packaged environment renders.

        Raises:
            RuntimeError: If MuJoCo cannot render.
        """
        try:
            return self.robot.render()
        except Exception as error:  # each backend raises exceptions of its own
            raise RuntimeError(
                f"MuJoCo cannot render ({type(error).__name__}: {error}). Without a screen it "
                f"needs EGL (apt install libegl1 libgl1-mesa-dri, and MUJOCO_GL=egl) or OSMesa "
                f"(apt install libosmesa6, and MUJOCO_GL=osmesa)"
            ) from error

    def close(self) -> None:
        """Closes windows and rendering contexts."""
        self.robot.close()

    def get_state(self) -> dict[str, Any]:
        """Physics, goal and random generators.

        After a step, MuJoCo's derived quantities are one substep older than its state, and some
        actions read them. `set_state` recomputes them. For an exact continuation, the environment
        that goes on must call `set_state(get_state())` as well.
        """
        model, data = self._simulator.model, self._simulator.data
        physics = np.empty(mujoco.mj_stateSize(model, _EVERYTHING))
        mujoco.mj_getState(model, data, physics, _EVERYTHING)
        return {
            "physics": physics,
            "goal": np.array(self.robot.goal),
            "generator": self.robot.np_random.bit_generator.state,
            "simulator_generator": self._simulator.np_random.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from a state that `get_state` returned, bit for bit.

        Raises:
            ValueError: If the state is one of another environment.
        """
        model, data = self._simulator.model, self._simulator.data
        size = mujoco.mj_stateSize(model, _EVERYTHING)
        physics = np.asarray(state["physics"], np.float64)
        if physics.shape != (size,):
            raise ValueError(
                f"the physics of this environment has shape ({size},), the state {physics.shape}: "
                f"it was taken from another environment"
            )
        mujoco.mj_resetData(model, data)
        mujoco.mj_setState(model, data, physics, _EVERYTHING)
        mujoco.mj_forward(model, data)
        mujoco.mj_rnePostConstraint(model, data)  # contact forces, which AntMaze-v5 observes
        # The calls above may change the solver's initial guess, which belongs to the state.
        mujoco.mj_setState(model, data, physics, _EVERYTHING)
        self.robot.goal = np.array(state["goal"], np.float64)
        self._simulator.np_random.bit_generator.state = state["simulator_generator"]
        self.robot.np_random.bit_generator.state = state["generator"]
        if isinstance(self.robot, MazeEnv):
            self.robot.update_target_site_pos()


def load(entry_point: str, show_goal: bool = True, **kwargs: Any) -> RoboticsEnv:
    """Builds an environment of Gymnasium-Robotics and adapts it: the entry point of specs.

    Fetch tasks get the class of `rlkit.envs.fetch`, whose steps are shorter.

    Args:
        entry_point: `"module:Class"` of the packaged environment.
        show_goal: Whether images show the goal; only Fetch tasks can hide it.
        kwargs: Arguments of the packaged environment.

    Raises:
        ValueError: If `show_goal` is False for another task, or the class is of another package.
    """
    if not entry_point.startswith(GOAL_FAMILIES):  # it would be imported
        raise ValueError(f"{entry_point!r} is no goal environment of Gymnasium-Robotics")
    if kwargs.get("render_mode") == "rgb_array":
        prefer_egl()
    packaged: Any = load_env_creator(entry_point)
    return RoboticsEnv(INDEXED.get(packaged, packaged)(**kwargs), show_goal)
