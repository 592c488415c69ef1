"""Agents by name: `"sac"` through Python entry points, `"package.module:Class"` directly."""

from __future__ import annotations

from typing import Any

from rlkit.plugins import load_plugin, plugin_names
from rlkit.plugins import nearest as nearest

AGENTS = "rlkit.agents"  # the entry-point group


def agent_names() -> list[str]:
    """Names of the installed agents."""
    return plugin_names(AGENTS)


def load_agent(name: str) -> type[Any]:
    """The agent class of a name, or of `"package.module:Class"`.

    Raises:
        ValueError: If there is no such agent; the message names the nearest match.
    """
    return load_plugin(name, AGENTS)
