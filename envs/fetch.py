"""The Fetch tasks of Gymnasium-Robotics with shorter steps and the same physics.

The packaged environments look every joint and site up by its name at every step, which takes about
a third of it. These look them up once. Seeds, starts, goals, rewards and infos are the packaged
ones; observations differ by rounding at most (`tests/envs/test_fetch.py`).

Source: Plappert et al. 2018, "Multi-Goal Reinforcement Learning: Challenging Robotics Environments
and Request for Research", section 1.
"""

from __future__ import annotations

import math
from typing import Any

import mujoco
import numpy as np
from gymnasium_robotics.envs.fetch.fetch_env import MujocoFetchEnv
from gymnasium_robotics.envs.fetch.pick_and_place import MujocoFetchPickAndPlaceEnv
from gymnasium_robotics.envs.fetch.push import MujocoFetchPushEnv
from gymnasium_robotics.envs.fetch.reach import MujocoFetchReachEnv
from gymnasium_robotics.envs.fetch.slide import MujocoFetchSlideEnv
from numpy.typing import NDArray

_REACH = 0.05  # metres that a full action moves the gripper's target
_DOWNWARDS = np.array([1.0, 0.0, 1.0, 0.0])  # added to the gripper's orientation, w x y z
_FINGERS = ("robot0:l_gripper_finger_joint", "robot0:r_gripper_finger_joint")
_VERTICAL = 4 * np.finfo(np.float64).eps  # cosine of the pitch, below which roll is set to 0


class IndexedFetch(MujocoFetchEnv):  # type: ignore[misc]
    """Overrides what the packaged environment does by name at every step."""

    def _env_setup(self, initial_qpos: dict[str, Any]) -> None:
        super()._env_setup(initial_qpos)
        model = self.model
        joints = [i for i in range(model.njnt) if model.joint(i).name.startswith("robot")]
        self._grip = model.site("robot0:grip").id
        self._object = model.site("object0").id if self.has_object else None
        # The last two joints of the robot, in the order of the observation.
        self._gripper_qpos = model.jnt_qposadr[joints[-2:]]
        self._gripper_qvel = model.jnt_dofadr[joints[-2:]]
        self._fingers = [model.jnt_qposadr[model.joint(name).id] for name in _FINGERS]
        self._welds = [_weld(model, i) for i in range(model.neq)]
        # Which joint a position actuator moves relative to; -1 for actuators of force.
        moved = model.jnt_qposadr[model.actuator_trnid[:, 0]]
        self._actuated = np.where(model.actuator_biastype == 0, -1, moved)
        self._jacobians = np.zeros((2, 3, model.nv))

    def _set_action(self, action: NDArray[Any]) -> None:
        data = self.data
        # In the action's precision, as in the packaged environment.
        motion, grip = (action[:3] * _REACH).astype(np.float64), action[3]
        for mocap, body in self._welds:
            data.mocap_pos[mocap] = data.xpos[body]
            data.mocap_quat[mocap] = data.xquat[body]
        data.mocap_pos[:] += motion
        data.mocap_quat[:] += _DOWNWARDS
        for i, joint in enumerate(self._actuated):
            start = 0.0 if joint < 0 else data.qpos[joint]
            data.ctrl[i] = start + (0.0 if self.block_gripper else grip)

    def _step_callback(self) -> None:
        if self.block_gripper:
            self.data.qpos[self._fingers] = 0.0
            mujoco.mj_forward(self.model, self.data)

    def _get_obs(self) -> dict[str, NDArray[np.float64]]:
        data, dt = self.data, self.dt
        gripper = data.qpos[self._gripper_qpos], data.qvel[self._gripper_qvel] * dt
        position = data.site_xpos[self._grip].copy()
        velocity = self._velocities(self._grip)[0] * dt
        if self._object is None:
            parts = [position, gripper[0], velocity, gripper[1]]
            achieved = position
        else:
            achieved = data.site_xpos[self._object].copy()
            linear, angular = self._velocities(self._object)
            parts = [
                position,
                achieved,
                achieved - position,
                gripper[0],
                euler_angles(data.site_xmat[self._object]),
                linear * dt - velocity,
                angular * dt,
                velocity,
                gripper[1],
            ]
        return {
            "observation": np.concatenate(parts),
            "achieved_goal": achieved,
            "desired_goal": self.goal.copy(),
        }

    def _velocities(self, site: int) -> NDArray[np.float64]:
        """Linear and angular velocity of a site, `(2, 3)` in m/s and rad/s."""
        # By the Jacobian: after a step, MuJoCo's own velocities are one substep older than `qvel`.
        mujoco.mj_jacSite(self.model, self.data, *self._jacobians, site)
        found: NDArray[np.float64] = self._jacobians @ self.data.qvel
        return found


class FetchReachEnv(IndexedFetch, MujocoFetchReachEnv):  # type: ignore[misc]
    """FetchReach: the gripper to a point."""


class FetchPushEnv(IndexedFetch, MujocoFetchPushEnv):  # type: ignore[misc]
    """FetchPush: a block to a point on the table, with closed fingers."""


class FetchPickAndPlaceEnv(IndexedFetch, MujocoFetchPickAndPlaceEnv):  # type: ignore[misc]
    """FetchPickAndPlace: a block to a point on the table or above it."""


class FetchSlideEnv(IndexedFetch, MujocoFetchSlideEnv):  # type: ignore[misc]
    """FetchSlide: a puck to a point on the table beyond the arm's reach."""


INDEXED: dict[type[Any], type[IndexedFetch]] = {
    MujocoFetchReachEnv: FetchReachEnv,
    MujocoFetchPushEnv: FetchPushEnv,
    MujocoFetchPickAndPlaceEnv: FetchPickAndPlaceEnv,
    MujocoFetchSlideEnv: FetchSlideEnv,
}
"""The class of this module that replaces a packaged one."""


def euler_angles(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles `(3,)` in radians about the axes x, y and z, of a rotation matrix of 9 entries.

    Where the rotation about y is a right angle, that about x is 0.
    """
    m = matrix.tolist()
    cosine = math.hypot(m[8], m[5])
    pitch = math.atan2(m[2], cosine)
    if cosine > _VERTICAL:
        return np.array([math.atan2(-m[5], m[8]), pitch, math.atan2(-m[1], m[0])])
    return np.array([0.0, pitch, math.atan2(m[3], m[4])])


def _weld(model: Any, i: int) -> tuple[int, int]:
    """The mocap body of a weld, and the body that follows it."""
    one, two = model.eq_obj1id[i], model.eq_obj2id[i]
    mocap = model.body_mocapid[one]
    return (mocap, two) if mocap >= 0 else (model.body_mocapid[two], one)
