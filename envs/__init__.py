"""Goal-conditioned Gymnasium environments; importing this package registers their `rlkit/` ids.

Entry points are strings, so an environment's module is imported only when one is made.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import WrapperSpec


def _register(name: str, entry_point: str, steps: int | None, **kwargs: Any) -> None:
    """Registers `rlkit/<name>-v0` and `rlkit/<name>-Dense-v0`."""
    for suffix, reward in (("", {}), ("-Dense", {"reward": "dense"})):
        gym.register(
            id=f"rlkit/{name}{suffix}-v0",
            entry_point=f"rlkit.envs.{entry_point}",
            vector_entry_point=f"rlkit.envs.{entry_point}Vector",
            max_episode_steps=steps,
            kwargs=kwargs | reward,
        )


# BitFlip counts its own steps: its limit is the number of bits.
_register("BitFlip", "bit_flip:BitFlip", None)
_register("PointMaze-Open", "point_maze:PointMaze", 50, maze="Open")
_register("PointMaze-U", "point_maze:PointMaze", 100, maze="U")
_register("PointMaze-Medium", "point_maze:PointMaze", 150, maze="Medium")
_register("PointMaze-Large", "point_maze:PointMaze", 300, maze="Large")
_register("PlanarReach", "planar_reach:PlanarReach", 50, links=2)
_register("PlanarReach3", "planar_reach:PlanarReach", 50, links=3)
_register("PlanarPush", "planar_push:PlanarPush", 50)
_register("Waypoint", "waypoint:Waypoint", 100)
_register("HiddenGoalReach", "hidden_goal_reach:HiddenGoalReach", 50)

# CueMaze counts its own steps too: its limit follows from the length.
for _suffix, _length in (("", 10), ("-50", 50), ("-100", 100), ("-200", 200)):
    gym.register(
        id=f"rlkit/CueMaze{_suffix}-v0",
        entry_point="rlkit.envs.cue_maze:CueMaze",
        vector_entry_point="rlkit.envs.cue_maze:CueMazeVector",
        kwargs={"length": _length},
    )


# Partially observable variants. Their time limits are those of the environments that they vary.


def _register_masked(
    name: str, entry_point: str, steps: int, hidden: tuple[int, ...], **kwargs: Any
) -> None:
    """Registers a variant of the suite's own, native vector form included."""
    gym.register(
        id=f"rlkit/{name}-v0",
        entry_point="rlkit.envs.wrappers.partial_simulation:MaskedEnv",
        vector_entry_point="rlkit.envs.wrappers.partial_simulation:MaskedEnvVector",
        max_episode_steps=steps,
        kwargs=kwargs | {"family": f"rlkit.envs.{entry_point}", "hidden": hidden},
    )


def _register_wrapped(
    name: str,
    entry_point: str,
    steps: int,
    hidden: tuple[int, ...],
    delay: int = 0,
    kwargs: dict[str, Any] | None = None,
) -> None:
    """Registers a variant of an environment from elsewhere, as wrappers around it."""
    wrappers = [
        WrapperSpec(
            "HideIndices",
            "rlkit.envs.wrappers.partial_observation:HideIndices",
            {"indices": hidden},
        )
    ]
    if delay:
        wrappers.append(
            WrapperSpec("Delay", "rlkit.envs.wrappers.partial_observation:Delay", {"steps": delay})
        )
    gym.register(
        id=f"rlkit/{name}-v0",
        entry_point=f"rlkit.envs.{entry_point}",
        max_episode_steps=steps,
        additional_wrappers=tuple(wrappers),
        kwargs=kwargs or {},
    )


# Maze and table are icy: with their usual friction things stop where they are, and an agent without
# memory does as well as one that sees velocities.
_ICE: dict[str, Any] = {"maze": "U", "damping": 0.3}
_register_masked("PointMaze-U-HiddenVelocity", "point_maze:PointMaze", 100, (2, 3), **_ICE)
_register_masked("PlanarReach-HiddenVelocity", "planar_reach:PlanarReach", 50, (4, 5), links=2)
_ICE = {"damping": 3.0, "friction": 0.15}
_register_masked("PlanarPush-HiddenVelocity", "planar_push:PlanarPush", 50, (2, 3, 6, 7), **_ICE)

# Pendulum: cosine, sine, angular velocity. CartPole: position and velocity of cart, then of pole.
_register_wrapped("Pendulum-HiddenVelocity", "classic_control:Pendulum", 200, (2,))
_register_wrapped("Pendulum-HiddenAngle", "classic_control:Pendulum", 200, (0, 1))
_register_wrapped("CartPole-HiddenVelocity", "classic_control:CartPole", 500, (1, 3))
_register_wrapped(
    "MountainCarContinuous-HiddenVelocity", "classic_control:MountainCarContinuous", 999, (1,)
)

# Fetch-v4 with every velocity hidden, of gripper, fingers and object, and what is left two steps
# late. They need the extra `robotics`.
for _task, _hidden in (("Reach", range(5, 10)), ("Push", range(14, 25))):
    _register_wrapped(
        f"Fetch{_task}-Masked",
        "robotics:load",
        50,
        tuple(_hidden),
        delay=2,
        kwargs={
            "entry_point": (f"gymnasium_robotics.envs.fetch.{_task.lower()}:MujocoFetch{_task}Env"),
            "reward_type": "sparse",
        },
    )


# Goals in pictures, drawn in batches. Their time limits are those of the environments behind them.
for _name, _entry, _steps, _arguments in (
    ("PointMaze-Open", "point_maze:PointMaze", 50, {"maze": "Open"}),
    ("PointMaze-U", "point_maze:PointMaze", 100, {"maze": "U"}),
    ("PointMaze-Medium", "point_maze:PointMaze", 150, {"maze": "Medium"}),
    ("PointMaze-Large", "point_maze:PointMaze", 300, {"maze": "Large"}),
    ("PlanarReach", "planar_reach:PlanarReach", 50, {}),
    ("PlanarPush", "planar_push:PlanarPush", 50, {}),
):
    gym.register(
        id=f"rlkit/{_name}-Pixels-v0",
        entry_point="rlkit.envs.wrappers.pixel_simulation:PixelsEnv",
        vector_entry_point="rlkit.envs.wrappers.pixel_simulation:PixelsEnvVector",
        max_episode_steps=_steps,
        kwargs={"family": f"rlkit.envs.{_entry}"} | _arguments,
    )

gym.register(
    id="rlkit/Pendulum-Pixels-v0",
    entry_point="rlkit.envs.classic_control:Pendulum",
    max_episode_steps=200,
    additional_wrappers=(
        WrapperSpec(
            "PixelObservation",
            "rlkit.envs.wrappers.pixel_observation:PixelObservation",
            {"size": 48, "grayscale": False, "frames": 1},
        ),
    ),
    kwargs={"render_mode": "rgb_array", "render_size": 48},
)

# Seen through a camera near the gripper, which MuJoCo renders; goals stay places in metres, and are
# not in the picture, where hindsight could not change them. It needs the extra `robotics`.
gym.register(
    id="rlkit/FetchReach-Pixels-v0",
    entry_point="rlkit.envs.robotics:load",
    max_episode_steps=50,
    additional_wrappers=(
        WrapperSpec(
            "PixelObservation",
            "rlkit.envs.wrappers.pixel_observation:PixelObservation",
            {"size": 64, "grayscale": False, "frames": 1},
        ),
    ),
    kwargs={
        "entry_point": "gymnasium_robotics.envs.fetch.reach:MujocoFetchReachEnv",
        "reward_type": "sparse",
        "render_mode": "rgb_array",
        "show_goal": False,
        "width": 64,
        "height": 64,
        "default_camera_config": {
            "distance": 1.1,
            "azimuth": 150.0,
            "elevation": -30.0,
            "lookat": [1.35, 0.75, 0.6],
        },
    },
)
