"""Agents by name: `"sac"` through Python entry points, `"package.module:Class"` directly."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any

AGENTS = "rlkit.agents"  # the entry-point group


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint that ends an error about an unknown name: what was probably meant, what exists."""
    names = sorted(known)
    spelled = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=0.5)
    meant = f"Did you mean {spelled[close[0]]!r}? " if close else ""
    return f"{meant}Known: {', '.join(names)}."


def agent_names() -> list[str]:
    """Names of the installed agents."""
    return sorted(entry_points(group=AGENTS).names)


def load_agent(name: str) -> type[Any]:
    """The agent class of a name, or of `"package.module:Class"`.

    Raises:
        ValueError: If there is no such agent; the message names the nearest match.
    """
    if ":" in name:
        return _load_class(name)
    found = entry_points(group=AGENTS, name=name)
    if not found:
        raise ValueError(
            f"unknown agent {name!r}. {nearest(name, agent_names())} "
            f"An agent of your own is written package.module:Class."
        )
    return _load_class(next(iter(found)).value)


def _load_class(path: str) -> type[Any]:
    module_name, _, class_name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises, it is the reason
        raise ValueError(
            f"agent {path!r} cannot be imported: {type(error).__name__}: {error}. "
            f"Is it installed, or its folder on PYTHONPATH?"
        ) from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise ValueError(
            f"{module_name} has no class {class_name!r}. {nearest(class_name, classes)}"
        )
    return found
