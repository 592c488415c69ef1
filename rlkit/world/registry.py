"""World models by name or description, and back into plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlkit.plugins import Kind, plugin_names
from rlkit.world.contract import WorldModel

WORLD = Kind(
    group="rlkit.worlds",
    called="world model",
    contract="rlkit.world.WorldModel",
    members=(
        *("widths", "window", "size", "with_widths", "shapes", "views"),
        *("initial_parameters", "initial", "observe", "imagine", "loss"),
    ),
    example="ensemble",
    completed="widths",
)


def world_names() -> list[str]:
    """Names of the installed world models."""
    return plugin_names(WORLD.group)


def make_world(value: str | Mapping[str, Any] | WorldModel) -> WorldModel:
    """A world model of what a user writes.

    Args:
        value: A name (`"ensemble"`), a class of the user's own (`"package.module:Class"`), a name
            with settings (`{"name": "ensemble", "members": 3}`), or a configured model, which is
            returned as it is.

    Raises:
        ValueError: If the name or a setting is unknown or wrong, or the object is no world model.
    """
    model: WorldModel | None = WORLD.make(value)
    if model is None:
        raise ValueError(f"{value!r} is no world model; known are {', '.join(world_names())}")
    return model


def describe_world(model: WorldModel) -> dict[str, Any]:
    """A world model as plain data from which `make_world` makes an equal one, without its widths.

    Raises:
        ValueError: If the model, or one of its settings, cannot be written down.
    """
    return WORLD.describe(model) or {}
