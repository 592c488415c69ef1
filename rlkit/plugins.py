"""Classes by name: short ones through Python entry points, `"package.module:Class"` directly.

And objects of these classes, made of what a user writes and written down as plain data.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import entry_points
from typing import Any

from rlkit.names import nearest

AGENTS = "rlkit.agents"  # the entry-point group of agents


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
    kind = _kind(group)
    if ":" in name:
        return _load_class(name, kind)
    found = entry_points(group=group, name=name)
    if not found:
        raise ValueError(
            f"unknown {kind} {name!r}. {nearest(name, plugin_names(group))} "
            f"{_article(kind)} {kind} of your own is written package.module:Class."
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


@dataclass(frozen=True)
class Kind:
    """A kind of part that users name, describe by settings, or bring themselves.

    Attributes:
        group: Entry-point group, `"rlkit.encoders"` say; its last word in the singular is what
            errors call the part.
        called: What an object of the kind is called in full, `"sequence encoder"`.
        contract: Where its members are documented, `"rlkit.networks.encoders.SequenceEncoder"`.
        members: What an object must have.
        example: A name to show in errors.
        completed: The field that is set later, by the code that knows what the part will read; it
            is no setting.
    """

    group: str
    called: str
    contract: str
    members: tuple[str, ...]
    example: str
    completed: str

    def make(self, value: Any) -> Any:
        """An object of what a user writes.

        Args:
            value: A name, `"package.module:Class"`, a table of a name and settings, or a configured
                object, which is returned as it is. None and `"none"` stand for None.

        Raises:
            ValueError: If the name or a setting is unknown or wrong, or the object lacks members.
        """
        if value is None:
            return None
        if isinstance(value, str):
            value = {"name": value}
        made = self._build(value) if isinstance(value, Mapping) else value
        if made is None:
            return None
        if isinstance(made, type):
            raise ValueError(f"{made.__name__} is a class; configure it: {made.__name__}()")
        # Not isinstance: the members that are missing are what the user has to know.
        missing = [name for name in self.members if not hasattr(made, name)]
        if missing:
            raise ValueError(
                f"{made!r} is no {self.called}: it lacks {', '.join(missing)}. Give a name "
                f"({', '.join(plugin_names(self.group))}), a table with a name, or an object with "
                f"all members of {self.contract}"
            )
        return made

    def describe(self, made: Any) -> dict[str, Any] | None:
        """An object as plain data from which `make` makes an equal one; None for None.

        Raises:
            ValueError: If the object, or one of its settings, cannot be written down.
        """
        if made is None:
            return None
        kind = type(made)
        if not is_dataclass(made):
            raise ValueError(
                f"{kind.__name__} cannot be written to a file: make it a dataclass whose fields "
                f"are its settings (@dataclass(frozen=True))"
            )
        if "." in kind.__qualname__:
            raise ValueError(
                f"{kind.__qualname__} cannot be written to a file: define the class at the top of "
                f"a module, where package.module:Class finds it"
            )
        settings = {
            name: _plain(f"{kind.__name__}.{name}", getattr(made, name))
            for name in self._settings(kind)
        }
        return {"name": plugin_name(kind, self.group), **settings}

    def _settings(self, found: Any) -> list[str]:
        names = [field.name for field in fields(found) if field.init]
        return [name for name in names if name != self.completed]

    def _build(self, value: Mapping[str, Any]) -> Any:
        kind, name = _kind(self.group), value.get("name")
        if not isinstance(name, str):
            example = f'{{"name": "{self.example}"}}'
            table = f"{_article(kind).lower()} {kind}'s table"
            raise ValueError(f"{table} needs a name, {example} say, got {value!r}")
        settings = {key: _setting(one) for key, one in value.items() if key != "name"}
        if name.lower() == "none":
            if settings:
                raise ValueError(f"no {kind} (none) has no settings, got {', '.join(settings)}")
            return None
        found = load_plugin(name, self.group)
        if is_dataclass(found):
            known = self._settings(found)
            for key in settings:
                if key not in known:
                    raise ValueError(
                        f"{kind} {name!r} has no setting {key!r}. {nearest(key, known)}"
                    )
        try:
            return found(**settings)
        except TypeError as error:
            raise ValueError(f"{kind} {name!r} cannot be made of {settings}: {error}") from error


def _kind(group: str) -> str:
    return group.rpartition(".")[2].removesuffix("s")


def _article(kind: str) -> str:
    return "An" if kind[0] in "aeiou" else "A"


def _setting(value: Any) -> Any:
    """A setting as written in a file; its lists are tuples in a frozen dataclass."""
    return tuple(_setting(one) for one in value) if isinstance(value, list) else value


def _plain(name: str, value: Any) -> Any:
    """The inverse of `_setting`."""
    if isinstance(value, (list, tuple)):
        return [_plain(name, one) for one in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(
        f"{name} = {value!r} cannot be written to a file: settings are numbers, strings, booleans "
        f"and sequences of them"
    )
