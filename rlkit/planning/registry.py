"""Planners by name or description, and back into plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlkit.planning.contract import Planner
from rlkit.plugins import Kind, plugin_names

PLANNER = Kind(
    group="rlkit.planners",
    called="planner",
    contract="rlkit.planning.Planner",
    members=(
        *("horizon", "samples", "milliseconds", "actions"),
        *("with_actions", "initial", "plan"),
    ),
    example="icem",
    completed="actions",
)


def planner_names() -> list[str]:
    """Names of the installed planners."""
    return plugin_names(PLANNER.group)


def make_planner(value: str | Mapping[str, Any] | Planner) -> Planner:
    """A planner of what a user writes.

    Args:
        value: A name (`"icem"`), a class of the user's own (`"package.module:Class"`), a name with
            settings (`{"name": "icem", "samples": 200}`), or a configured planner, which is
            returned as it is.

    Raises:
        ValueError: If the name or a setting is unknown or wrong, or the object is no planner.
    """
    planner: Planner | None = PLANNER.make(value)
    if planner is None:
        raise ValueError(f"{value!r} is no planner; known are {', '.join(planner_names())}")
    return planner


def describe_planner(planner: Planner) -> dict[str, Any]:
    """A planner as plain data from which `make_planner` makes an equal one, without its actions.

    Raises:
        ValueError: If the planner, or one of its settings, cannot be written down.
    """
    return PLANNER.describe(planner) or {}
