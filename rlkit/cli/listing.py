"""The command `rlkit list`."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Annotated, Literal

from tyro.conf import Positional

from rlkit.cli import world as cli_world

GROUPS = ("agents", "encoders", "generators", "latents", "planners", "samplers", "worlds")


def list_(
    what: Annotated[
        Literal[
            "agents",
            "encoders",
            "envs",
            "generators",
            "latents",
            "planners",
            "recipes",
            "samplers",
            "worlds",
        ],
        Positional,
    ],
) -> int:
    """List what is installed.

    Args:
        what: agents, encoders, envs (environments), generators (of goals), latents (latent models),
            planners, recipes, samplers (of the replay buffer) or worlds (world models).
    """
    rows: Iterable[tuple[str, str]]
    if what in GROUPS:
        rows = [(name, "") for name in sorted(entry_points(group=f"rlkit.{what}").names)]
        if what == "worlds":
            rows += cli_world.BASELINES.items()
    elif what == "recipes":
        from rlkit.experiment.recipe import describe_recipes

        rows = describe_recipes()
    else:
        rows = [(name, "") for name in environments()]
    for name, description in rows:
        print(f"{name:24} {description}".rstrip())
    return 0


def environments() -> list[str]:
    """Ids of the suite's environments and of those that packages register by entry points."""
    import gymnasium

    from rlkit.envs.make import registering_modules

    for module in registering_modules():
        importlib.import_module(module)
    namespaces = {"rlkit", *entry_points(group="rlkit.envs").names}
    return sorted(name for name in gymnasium.registry if name.partition("/")[0] in namespaces)
