"""Builds environments from the ids that `rlkit train --env` accepts."""

from __future__ import annotations

import copy
import ctypes.util
import importlib
import os
import re
import sys
import warnings
from importlib.metadata import entry_points
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, WrapperSpec

import rlkit.envs  # noqa: F401  registers the suite's ids
from rlkit.envs.panda import ENTRY_POINTS as PANDA_TASKS
from rlkit.names import similar

_ROBOTICS_NAME = re.compile(r"(Fetch|HandReach|HandManipulate|PointMaze_|AntMaze_|Adroit|Franka)")
_OWN_ID = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:(?!\d+$)\w[\w./-]*")
_ROBOTICS_ENTRY = "rlkit.envs.robotics:load"
GOAL_FAMILIES = tuple(
    f"gymnasium_robotics.envs.{family}." for family in ("fetch", "shadow_dexterous_hand", "maze")
)


def make(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """Builds an environment with Gymnasium's standard wrappers.

    Args:
        env_id: Any registered id, `"module:Id-v0"` (the module is imported and registers the id),
            or an id of Gymnasium-Robotics, whose environment gets a goal rule and an exact state
            (`rlkit.envs.robotics.RoboticsEnv`). Tasks of panda-gym get a goal rule as well.
        kwargs: Arguments of the environment, and of `gymnasium.make`: `max_episode_steps` and
            `disable_env_checker`.

    Raises:
        ValueError: If the id is unknown or its module cannot be imported.
    """
    spec = find_spec(env_id)
    with warnings.catch_warnings():
        # Warnings about old versions and render modes; the user chose this id.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return gym.make(spec, **kwargs)


def prefer_egl() -> None:
    """Sets MUJOCO_GL to EGL if there is no screen, EGL is installed, and MUJOCO_GL is unset."""
    # Without a screen, Gymnasium chooses GLFW by default, which then fails. If MUJOCO_GL names a
    # library that is missing, child processes cannot import MuJoCo.
    has_screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform == "linux" and not has_screen and ctypes.util.find_library("EGL"):
        os.environ.setdefault("MUJOCO_GL", "egl")


def find_spec(env_id: str) -> EnvSpec:
    """The spec that `make` builds; imports the modules that the id needs.

    Raises:
        ValueError: If the id is unknown or its module cannot be imported.
    """
    module, _, name = env_id.rpartition(":")
    if ":" in env_id and not _OWN_ID.fullmatch(env_id):
        raise ValueError(f"{env_id!r} is no id of an environment; write module:Id-v0")
    modules = [module] if module else []
    if name not in gym.registry and "/" in name:
        modules += registering_modules(name.partition("/")[0])
    for needed in modules:
        try:
            importlib.import_module(needed)
        except Exception as error:
            raise ValueError(
                f"{env_id!r} needs the module {needed!r}, which cannot be imported: "
                f"{type(error).__name__}: {error}. Is it installed, or its folder on PYTHONPATH?"
            ) from error
    if name not in gym.registry:
        has_robotics = _import_robotics()
        if name not in gym.registry:
            raise ValueError(_unknown(env_id, name, has_robotics))
    spec = gym.registry[name]
    if spec.entry_point == _ROBOTICS_ENTRY and not _import_robotics():
        raise ValueError(_without_robotics(env_id))
    return _with_rule(spec)


def registering_modules(namespace: str | None = None) -> list[str]:
    """Modules that other packages name in the entry-point group `rlkit.envs`.

    The entry point `mine = "my_pkg.envs"` is for the ids `mine/...`, which that module registers
    with `gymnasium.register` when it is imported.

    Args:
        namespace: The part of an id before the slash; all namespaces without.
    """
    found = entry_points(group="rlkit.envs")
    return sorted(entry.value for entry in found if namespace in (None, entry.name))


def _import_robotics() -> bool:
    # Imported only when needed: it takes half a second, and the extra may be missing.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("rlkit.envs.robotics")
    except ImportError:
        return False
    return True


def _with_rule(spec: EnvSpec) -> EnvSpec:
    entry_point = spec.entry_point
    if entry_point in PANDA_TASKS:
        adapted = copy.deepcopy(spec)
        adapted.additional_wrappers += (WrapperSpec("PandaTask", "rlkit.envs.panda:PandaTask", {}),)
        return adapted
    if not isinstance(entry_point, str) or not entry_point.startswith(GOAL_FAMILIES):
        return spec
    adapted = copy.deepcopy(spec)
    adapted.entry_point = _ROBOTICS_ENTRY
    adapted.kwargs["entry_point"] = entry_point
    return adapted


def _unknown(env_id: str, name: str, has_robotics: bool) -> str:
    if _ROBOTICS_NAME.match(name) and not has_robotics:
        return _without_robotics(env_id)
    near = similar(name, gym.registry, count=3, cutoff=0.6)
    hint = f"Nearest: {', '.join(near)}." if near else ""
    return (
        f"unknown environment {env_id!r}. {hint} "
        f"For an environment of your own, write module:Id-v0, where importing the module "
        f"registers the id with gymnasium.register."
    ).replace("  ", " ")


def _without_robotics(env_id: str) -> str:
    return (
        f"{env_id!r} belongs to Gymnasium-Robotics, which cannot be imported: "
        f'pip install "rlkit-suite[robotics]"'
    )
