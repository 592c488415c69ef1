"""Goal-conditioned Gymnasium environments; importing this package registers their `rlkit/` ids.

Entry points are strings, so an environment's module is imported only when one is made.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym


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
