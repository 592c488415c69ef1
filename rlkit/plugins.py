"""Classes by name: short ones through Python entry points, `"package.module:Class"` directly."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint that ends an error about an unknown name: what was probably meant, what exists."""
    names = sorted(known)
    spelled = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=0.5)
    meant = f"Did you mean {spelled[close[0]]!r}? " if close else ""
    return f"{meant}Known: {', '.join(names)}."


def plugin_names(group: str) -> list[str]:
    """Short names that installed packages register in an entry-point group."""
    return sorted(entry_points(group=group).names)


def plugin_name(found: type[Any], group: str) -> str:
    """The short name of a class in a group, or `"package.module:Class"` where it has none."""
    path = f"{found.__module__}:{found.__qualname__}"
    short = [entry.name for entry in entry_points(group=group) if entry.value == path]
    return min(short, default=path)


def load_plugin(name: str, group: str) -> type[Any]:
    """The class of a short name in a group, or of `"package.module:Class"`.

    Args:
        name: One of the two.
        group: Entry-point group, `"rlkit.agents"` say; its last word in the singular is what
            errors call the thing.

    Raises:
        ValueError: If there is no such class; the message names the nearest match.
    """
    kind = group.rpartition(".")[2].removesuffix("s")
    if ":" in name:
        return _load_class(name, kind)
    found = entry_points(group=group, name=name)
    if not found:
        article = "An" if kind[0] in "aeiou" else "A"
        raise ValueError(
            f"unknown {kind} {name!r}. {nearest(name, plugin_names(group))} "
            f"{article} {kind} of your own is written package.module:Class."
        )
    return _load_class(next(iter(found)).value, kind)


def _load_class(path: str, kind: str) -> type[Any]:
    module_name, _, class_name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises, it is the reason
        raise ValueError(
            f"{kind} {path!r} cannot be imported: {type(error).__name__}: {error}. "
            f"Is it installed, or its folder on PYTHONPATH?"
        ) from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise ValueError(
            f"{module_name} has no class {class_name!r}. {nearest(class_name, classes)}"
        )
    return found
