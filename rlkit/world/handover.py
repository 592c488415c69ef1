"""Fitted worlds for agents: from a folder, in the units of agents, and as parts of checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rlkit.world.contract import WORLDS
from rlkit.world.layout import Layout
from rlkit.world.world import World


def fitted_world(value: Any) -> World | None:
    """The fitted world that a user names.

    Args:
        value: A `World`, or a folder that `World.save` or `rlkit world train` wrote.

    Returns:
        None where the value is neither.

    Raises:
        ValueError: If the folder holds no fitted world.
    """
    if isinstance(value, World):
        return value
    if not isinstance(value, str | Path) or not Path(value).is_dir():
        return None
    inside = Path(value) / "world"
    return World.load(inside if inside.is_dir() else value)


def take_over(world: World, fitted: World, action_space: spaces.Space[Any]) -> None:
    """Gives an agent's world the parameters and the scaling of a fitted one.

    Args:
        world: Reads Box actions scaled to [-1, 1], as agents store them.
        fitted: Reads actions in the environment's own units.
        action_space: Of the environment.

    Raises:
        ValueError: If the columns differ.
    """
    if fitted.layout != world.layout:
        raise ValueError(
            f"the fitted world has {_columns(fitted.layout)}, the environment needs "
            f"{_columns(world.layout)}; fit it to data of this environment"
        )
    world.load_state_dict(fitted.state_dict())
    if isinstance(action_space, spaces.Box):
        low, high = (
            torch.from_numpy(np.asarray(bound, np.float32).reshape(-1)).to(world.device)
            for bound in (action_space.low, action_space.high)
        )
        centre, half = (low + high) / 2, (high - low) / 2
        action = world.scaling.action
        scaled = replace(
            action, shift=(action.shift - centre) / half, deviation=action.deviation / half
        )
        world.scaling = replace(world.scaling, action=scaled)


def weights(world: World) -> dict[str, Tensor]:
    """Parameters and scaling by name; they share memory with the world."""
    named = {f"world.{name}": view for name, view in world.views().items()}
    scaling = world.scaling.tensors().items()
    return named | {f"scaling.{name}": value for name, value in scaling if len(value)}


def world_parts(world: World) -> dict[str, Any]:
    """A world for an agent's checkpoint: `weights`, `optimiser`, and plain data under `world`."""
    state = world.state_dict()
    facts = {name: state.pop(name) for name in ("model", "layout", "steps")}
    known = {"vector", *world.scaling.tensors()}
    known |= {name for name in state if name.startswith("parameters.")}
    optimiser = {name: value for name, value in state.items() if name not in known}
    return {"weights": weights(world), "optimiser": optimiser, "world": facts}


def load_world_parts(world: World, parts: dict[str, Any]) -> None:
    """Restores what `world_parts` gave, in the tensors that the world has.

    Raises:
        ValueError: If it belongs to another agent or another world.
    """
    try:
        _load(world, parts)
    except (KeyError, ValueError) as error:
        model = parts["world"]["model"] if "world" in parts else "none"
        raise ValueError(
            f"the saved parameters belong to another agent: its world is {model}, this one's is "
            f"{WORLDS.describe(world.model)}; use the settings it was trained with"
        ) from error


def _load(world: World, parts: dict[str, Any]) -> None:
    saved = {name: torch.as_tensor(value) for name, value in parts["weights"].items()}
    views = {k.removeprefix("world."): v for k, v in saved.items() if k.startswith("world.")}
    scaling = {k.removeprefix("scaling."): v for k, v in saved.items() if k.startswith("scaling.")}
    parameters = world.state_of(world.model.from_views(views), fresh=False)
    empty = {name: value for name, value in world.scaling.tensors().items() if not len(value)}
    place = world.parameters, world.scaling
    world.load_state_dict(
        {**parts["world"], **parts["optimiser"], **empty, **scaling, **parameters}
    )
    world.move_to(*place)


def _columns(layout: Layout) -> str:
    return (
        f"{layout.observation} columns, achieved goals in {list(layout.achieved)}, "
        f"{layout.action} of actions, outcomes {list(layout.outcomes)}"
        + (f" of which {list(layout.binary)} binary" if layout.binary else "")
    )
