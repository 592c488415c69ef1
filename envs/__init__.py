"""Goal-conditioned Gymnasium environments; importing this package registers their `rlkit/` ids.

Entry points are strings, so that an environment's module is imported only when one is made.
"""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import WrapperSpec

_WRAPPERS = "rlkit.envs.wrappers"


def _register(
    name: str,
    module: str,
    steps: int | None,
    *,
    native: bool = True,
    wrappers: tuple[WrapperSpec, ...] = (),
    **arguments: Any,
) -> None:
    """Registers `rlkit/<name>-v0`.

    Args:
        name: The id without prefix and version.
        module: `"module:Class"` below `rlkit.envs`.
        steps: Time limit; None if the environment has one of its own.
        native: Whether the module has a native vector environment, `module:vector`.
        wrappers: Wrappers to add.
        arguments: Arguments of the class.
    """
    gym.register(
        id=f"rlkit/{name}-v0",
        entry_point=f"rlkit.envs.{module}",
        vector_entry_point=f"rlkit.envs.{module.split(':')[0]}:vector" if native else None,
        max_episode_steps=steps,
        additional_wrappers=wrappers,
        kwargs=arguments,
    )


def _register_goals(name: str, module: str, steps: int | None, **arguments: Any) -> None:
    """Registers an environment twice: with sparse rewards, and as `<name>-Dense`."""
    _register(name, module, steps, **arguments)
    _register(f"{name}-Dense", module, steps, **arguments, reward="dense")


def _wrapper(module: str, name: str, **arguments: Any) -> WrapperSpec:
    return WrapperSpec(name, f"{_WRAPPERS}.{module}:{name}", arguments)


# BitFlip has a time limit of its own, the number of bits.
_register_goals("BitFlip", "bit_flip:BitFlip", None)
_register_goals("PointMaze-Open", "point_maze:PointMaze", 50, maze="Open")
_register_goals("PointMaze-U", "point_maze:PointMaze", 100, maze="U")
_register_goals("PointMaze-Medium", "point_maze:PointMaze", 150, maze="Medium")
_register_goals("PointMaze-Large", "point_maze:PointMaze", 300, maze="Large")
_register_goals("PlanarReach", "planar_reach:PlanarReach", 50, links=2)
_register_goals("PlanarReach3", "planar_reach:PlanarReach", 50, links=3)
_register_goals("PlanarPush", "planar_push:PlanarPush", 50)
_register_goals("Waypoint", "waypoint:Waypoint", 100)
_register_goals("HiddenGoalReach", "hidden_goal_reach:HiddenGoalReach", 50)

# CueMaze has a time limit of its own, which depends on the length.
for _suffix, _length in (("", 10), ("-50", 50), ("-100", 100), ("-200", 200)):
    _register(f"CueMaze{_suffix}", "cue_maze:CueMaze", None, length=_length)


# Partially observable variants. Their time limits are those of the full environments.


def _register_masked(
    name: str, family: str, steps: int, hidden: tuple[int, ...], **arguments: Any
) -> None:
    """Registers a masked variant of an environment of this suite, with a native vector form."""
    arguments |= {"family": f"rlkit.envs.{family}", "hidden": hidden}
    _register(name, "wrappers.partial_simulation:MaskedEnv", steps, **arguments)


def _register_hidden(name: str, module: str, steps: int, hidden: tuple[int, ...]) -> None:
    """Registers a masked variant of one of Gymnasium's environments, by a wrapper around it."""
    wrapper = _wrapper("partial_observation", "HideIndices", indices=hidden)
    _register(name, module, steps, native=False, wrappers=(wrapper,))


# Maze and table have little friction: with their usual friction, discs stop where they are, and an
# feed-forward agent does as well as one that observes velocities.
_icy: dict[str, Any] = {"maze": "U", "damping": 0.3}
_register_masked("PointMaze-U-HiddenVelocity", "point_maze:PointMaze", 100, (2, 3), **_icy)
_register_masked("PlanarReach-HiddenVelocity", "planar_reach:PlanarReach", 50, (4, 5), links=2)
_icy = {"damping": 3.0, "friction": 0.15}
_register_masked("PlanarPush-HiddenVelocity", "planar_push:PlanarPush", 50, (2, 3, 6, 7), **_icy)

# Pendulum: cosine, sine, angular velocity. CartPole: position and velocity of cart, then of pole.
_register_hidden("Pendulum-HiddenVelocity", "classic_control:Pendulum", 200, (2,))
_register_hidden("Pendulum-HiddenAngle", "classic_control:Pendulum", 200, (0, 1))
_register_hidden("CartPole-HiddenVelocity", "classic_control:CartPole", 500, (1, 3))
_register_hidden(
    "MountainCarContinuous-HiddenVelocity", "classic_control:MountainCarContinuous", 999, (1,)
)


# Fetch-v4 without the velocities of gripper, fingers and object. These environments need the extra
# `robotics`.
def _register_fetch(name: str, task: str, *more: WrapperSpec) -> None:
    module = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", task).lower()
    hidden = tuple(range(5, 10) if task == "Reach" else range(14, 25))
    _register(
        name,
        "robotics:load",
        50,
        native=False,
        wrappers=(_wrapper("partial_observation", "HideIndices", indices=hidden), *more),
        entry_point=f"gymnasium_robotics.envs.fetch.{module}:MujocoFetch{task}Env",
        reward_type="sparse",
    )


for _task in ("Reach", "Push", "PickAndPlace", "Slide"):
    _register_fetch(f"Fetch{_task}-HiddenVelocity", _task)
for _task in ("Reach", "Push"):  # and two steps late
    _register_fetch(
        f"Fetch{_task}-Masked", _task, _wrapper("partial_observation", "Delay", steps=2)
    )


# Observations and goals are images, rendered in batches. The time limits are those of the families.
def _register_pixels(name: str, family: str, steps: int, **arguments: Any) -> None:
    arguments["family"] = f"rlkit.envs.{family}"
    _register(f"{name}-Pixels", "wrappers.pixel_simulation:PixelsEnv", steps, **arguments)


_register_pixels("PointMaze-Open", "point_maze:PointMaze", 50, maze="Open")
_register_pixels("PointMaze-U", "point_maze:PointMaze", 100, maze="U")
_register_pixels("PointMaze-Medium", "point_maze:PointMaze", 150, maze="Medium")
_register_pixels("PointMaze-Large", "point_maze:PointMaze", 300, maze="Large")
_register_pixels("PlanarReach", "planar_reach:PlanarReach", 50)
_register_pixels("PlanarPush", "planar_push:PlanarPush", 50)


def _pixels(size: int) -> tuple[WrapperSpec, ...]:
    arguments = {"size": size, "grayscale": False, "frames": 1}
    return (_wrapper("pixel_observation", "PixelObservation", **arguments),)


_register(
    "Pendulum-Pixels",
    "classic_control:Pendulum",
    200,
    native=False,
    wrappers=_pixels(48),
    render_mode="rgb_array",
    render_size=48,
)

# MuJoCo renders the view of a camera near the gripper. Goals stay positions in metres, and are not
# in the image, where hindsight could not change them. This environment needs the extra `robotics`.
_register(
    "FetchReach-Pixels",
    "robotics:load",
    50,
    native=False,
    wrappers=_pixels(64),
    entry_point="gymnasium_robotics.envs.fetch.reach:MujocoFetchReachEnv",
    reward_type="sparse",
    render_mode="rgb_array",
    show_goal=False,
    width=64,
    height=64,
    default_camera_config={
        "distance": 1.1,
        "azimuth": 150.0,
        "elevation": -30.0,
        "lookat": [1.35, 0.75, 0.6],
    },
)
