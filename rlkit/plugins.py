"""Exchangeable parts by name: short names from Python entry points, or `"package.module:Class"`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import entry_points
from typing import Any, Generic, Protocol, TypeVar, overload

from rlkit.names import nearest, require_known

T = TypeVar("T")
Case = TypeVar("Case")


@dataclass(frozen=True)
class PluginGroup(Generic[T]):
    """A group of exchangeable parts, such as encoders: chosen by name, settings, or as an object.

    Attributes:
        group: Entry-point group in which packages register classes, `"rlkit.encoders"`.
        kind: What messages call one of the parts, `"encoder"`.
        contract: The protocol that the parts follow; its public names are what each must have.
        completed: The field that is set later, by the code that knows what the part will read; it
            is not a setting.
    """

    group: str
    kind: str
    contract: type[Any] = object
    completed: str = ""

    def names(self) -> list[str]:
        """Short names that installed packages register."""
        return sorted(entry_points(group=self.group).names)

    def load(self, name: str) -> type[Any]:
        """The class of a short name, or of `"package.module:Class"`, which is imported.

        A name from a file has to pass `rlkit.trust.require_trusted` first.

        Raises:
            ValueError: If there is no such class (the message names the nearest match), or it
                lacks members of the contract.
        """
        if ":" in name:
            found = _load_class(name, self.kind)
        else:
            entries = entry_points(group=self.group, name=name)
            if not entries:
                raise ValueError(
                    f"unknown {self.kind} {name!r}. {nearest(name, self.names())} "
                    f"{self._one} of your own is written package.module:Class."
                )
            found = _load_class(next(iter(entries)).value, self.kind)
        self._require_members(found, _members_of_objects(found).__contains__)
        return found

    def make(self, value: str | Mapping[str, Any] | T) -> T:
        """A configured part.

        Args:
            value: A name, `"package.module:Class"`, a mapping with a name and settings
                (`{"name": "gru", "hidden": 128}`), or a configured object, which is returned as it
                is.

        Raises:
            ValueError: If the name or a setting is unknown or wrong, or the object lacks members.
        """
        made = self.make_optional(value)
        if made is None:
            raise ValueError(f"{value!r} is no {self.kind}; known are {', '.join(self.names())}")
        return made

    def make_optional(self, value: str | Mapping[str, Any] | T | None) -> T | None:
        """Same as `make`, but None and `"none"` give None."""
        if value is None:
            return None
        if isinstance(value, str):
            value = {"name": value}
        made: Any = self._build(value) if isinstance(value, Mapping) else value
        if made is None:
            return None
        if isinstance(made, type):
            raise ValueError(f"{made.__name__} is a class; configure it: {made.__name__}()")
        self._require_members(made, lambda name: hasattr(made, name))
        found: T = made
        return found

    @overload
    def describe(self, made: None) -> None: ...

    @overload
    def describe(self, made: T) -> dict[str, Any]: ...

    def describe(self, made: T | None) -> dict[str, Any] | None:
        """A part as plain data from which `make` makes an equal one; None for None.

        Raises:
            ValueError: If the object, or one of its settings, cannot be written to a file.
        """
        if made is None:
            return None
        found = type(made)
        if not is_dataclass(made):
            raise ValueError(
                f"{found.__name__} cannot be written to a file: make it a dataclass whose fields "
                f"are its settings (@dataclass(frozen=True))"
            )
        if "." in found.__qualname__:
            raise ValueError(
                f"{found.__qualname__} cannot be written to a file: define the class at the top of "
                f"a module, where package.module:Class finds it"
            )
        settings = {
            name: _plain_setting(f"{found.__name__}.{name}", getattr(made, name))
            for name in self._settings(found)
        }
        path = f"{found.__module__}:{found.__qualname__}"
        short = [entry.name for entry in entry_points(group=self.group) if entry.value == path]
        return {"name": min(short, default=path), **settings}

    @property
    def _one(self) -> str:
        return f"{'An' if self.kind[0] in 'aeiou' else 'A'} {self.kind}"

    def _require_members(self, found: Any, has: Callable[[str], bool]) -> None:
        """Refuses a class or an object that lacks members; not by isinstance, to name them."""
        missing = [name for name in _members(self.contract) if not has(name)]
        if missing:
            contract = f"{self.contract.__module__}.{self.contract.__qualname__}"
            raise ValueError(
                f"{found!r} is no {self.kind}: it lacks {', '.join(missing)}. Give a name "
                f"({', '.join(self.names())}), a mapping with a name, or an object with all "
                f"members of {contract}"
            )

    def _settings(self, found: Any) -> list[str]:
        names = [field.name for field in fields(found) if field.init]
        return [name for name in names if name != self.completed]

    def _build(self, value: Mapping[str, Any]) -> Any:
        name = value.get("name")
        if not isinstance(name, str):
            raise ValueError(
                f"{self._one} needs a name ({', '.join(self.names())}) beside its settings, got "
                f"{value!r}"
            )
        settings = {key: _setting(one) for key, one in value.items() if key != "name"}
        if name.lower() == "none":
            if settings:
                raise ValueError(f"{self.kind} none has no settings, got {', '.join(settings)}")
            return None
        found = self.load(name)
        if settings and not is_dataclass(found):
            raise ValueError(
                f"{self.kind} {name!r} has no settings {', '.join(settings)}: {found.__name__} is "
                f"no dataclass, whose fields are its settings (@dataclass(frozen=True))"
            )
        if is_dataclass(found):
            require_known(f"{self.kind} {name!r}", settings, self._settings(found))
        try:
            return found(**settings)
        except TypeError as error:
            raise ValueError(
                f"{self.kind} {name!r} cannot be made of {settings}: {error}"
            ) from error


def law_in(
    laws: dict[str, Callable[[Case], str | None]], name: str
) -> Callable[[Callable[[Case], str | None]], Callable[[Case], str | None]]:
    """Decorates a function as one of several laws, under a name."""

    def register(check: Callable[[Case], str | None]) -> Callable[[Case], str | None]:
        laws[name] = check
        return check

    return register


def run_laws(owner: object, laws: Mapping[str, Callable[[Case], str | None]], case: Case) -> None:
    """Checks an object against laws.

    Args:
        owner: What is checked; its class is named in the error.
        laws: By name; each returns what is wrong, or None.
        case: What the laws are checked on.

    Raises:
        ValueError: If a law is broken or fails; the message names it and what is wrong.
    """
    for name, law in laws.items():
        broken = f"{type(owner).__name__} breaks the law {name!r}"
        try:
            wrong = law(case)
        except Exception as error:  # a user's class may raise anything
            raise ValueError(f"{broken}: {type(error).__name__}: {error}") from error
        if wrong is not None:
            raise ValueError(f"{broken}: {wrong}")


def _members(contract: type[Any]) -> list[str]:
    """Public names that a protocol declares, in its order."""
    names = [*vars(contract), *vars(contract).get("__annotations__", {})]
    return [name for name in names if not name.startswith("_")]


def _members_of_objects(found: type[Any]) -> set[str]:
    """Names that objects of a class have: its attributes, and fields that it only annotates."""
    annotated = (vars(one).get("__annotations__", {}) for one in found.__mro__)
    return {*dir(found), *(name for part in annotated for name in part)}


def _load_class(path: str, kind: str) -> type[Any]:
    module_name, _, class_name = path.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise ValueError(f"{kind} {path!r} is no package.module:Class")
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


def _setting(value: Any) -> Any:
    """A setting as written in a file; its lists are tuples in a frozen dataclass."""
    return tuple(_setting(one) for one in value) if isinstance(value, list) else value


def _plain_setting(name: str, value: Any) -> Any:
    """The inverse of `_setting`."""
    if isinstance(value, (list, tuple)):
        return [_plain_setting(name, one) for one in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(
        f"{name} = {value!r} cannot be written to a file: settings are numbers, strings, booleans "
        f"and sequences of them"
    )


class TrainableAgent(Protocol):
    """What the training of a run calls; see `rlkit.experiment.train`."""

    def iterate(self, total_timesteps: int) -> Any:
        """Trains, and yields the number of steps after every round."""

    def predict(self, observation: Any) -> Any:
        """Actions, as in Stable-Baselines3."""

    def set_logger(self, logger: Any) -> None:
        """Sets the logger, as in Stable-Baselines3."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on, as plain data."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()`."""


AGENTS = PluginGroup[Any]("rlkit.agents", "agent", TrainableAgent)
