"""Classes of torch that users name or pass: activations, optimisers, and modules of their own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from rlkit.names import nearest
from rlkit.plugins import PluginGroup

MODULES = PluginGroup[Any]("rlkit.modules", "network module")


def torch_class(given: Any, kind: str) -> Any:
    """The class that a user means.

    Args:
        given: A class, its name in torch in any case, a name that packages register in the group
            `rlkit.modules`, `"package.module:Class"`, a function that makes modules, or a module,
            which is copied.
        kind: "activation" (in `torch.nn`), "optimiser" (in `torch.optim`) or "network module".

    Raises:
        ValueError: If there is no such class; the message names the nearest.
    """
    if isinstance(given, nn.Module):
        return partial(_copied, given)
    if callable(given):
        return given
    if not isinstance(given, str):
        raise ValueError(f"{given!r} is no {kind}: give a class or its name")
    if ":" in given:
        return MODULES.load(given)
    known = _classes(kind)
    if given.lower() not in known:
        raise ValueError(f"unknown {kind} {given!r}. {nearest(given, known)}")
    return MODULES.load(given) if kind == "network module" else known[given.lower()]


def class_name(given: Any, kind: str) -> str:
    """The name under which `torch_class` finds a class again, for files.

    Functions, modules, and classes that are not at the top of a module get a name that is not
    found: who loads the file has to pass them again.
    """
    if isinstance(given, str):
        return given
    own = _classes(kind)
    found = type(given) if isinstance(given, nn.Module) else given
    name = getattr(found, "__qualname__", type(found).__qualname__)
    if own.get(name.lower()) is found:
        return str(name.lower())
    for short in MODULES.names():
        if MODULES.load(short) is found:
            return short
    return f"{getattr(found, '__module__', '')}:{name}"


def module_and_settings(described: Any) -> tuple[Any, dict[str, Any]]:
    """The class of a module and its arguments, of a class, a name, or a table with a `name`."""
    settings = dict(described) if isinstance(described, Mapping) else {"name": described}
    kind = torch_class(settings.pop("name"), "network module")
    return kind, {
        name: torch_class(value["class"], "activation") if _is_class(value) else value
        for name, value in settings.items()
    }


def _is_class(value: Any) -> bool:
    """Whether an argument is a class, as files hold it: `{"class": name}`."""
    return isinstance(value, Mapping) and set(value) == {"class"}


def _copied(module: nn.Module, *_: Any, **__: Any) -> nn.Module:
    return copy.deepcopy(module)


@cache
def _classes(kind: str) -> dict[str, type[Any]]:
    """Classes that need no module's name, by name in lower case."""
    if kind == "network module":
        return dict.fromkeys(MODULES.names(), nn.Module)
    is_optimiser = kind == "optimiser"
    found = vars(torch.optim if is_optimiser else torch.nn.modules.activation)
    parent: type[Any] = torch.optim.Optimizer if is_optimiser else nn.Module
    return {
        name.lower(): value
        for name, value in found.items()
        if isinstance(value, type)
        and issubclass(value, parent)
        and value is not parent
        and not name.startswith("_")
    }


def activation_function(given: str | type[Any]) -> Any:
    """A function of one tensor, elementwise.

    Args:
        given: See `torch_class`; a module without parameters, built without arguments.

    Raises:
        ValueError: If it has parameters, needs arguments or changes shapes.
    """
    chosen: Any = given
    return _activation(chosen)


@cache
def _activation(given: Any) -> Any:
    found = torch_class(given, "activation")
    try:
        made = found().eval()
        fits = made(torch.zeros(2, 4)).shape == (2, 4)
    except Exception as error:  # whatever a user's class raises is the reason
        raise ValueError(
            f"activation = {given!r} cannot be used: {type(error).__name__}: {error}"
        ) from error
    if not fits or any(True for _ in made.parameters()):
        raise ValueError(
            f"activation = {given!r} must be a function of single numbers without parameters; give "
            f"a whole network instead: policy_kwargs={{'network': ...}}"
        )
    return made
