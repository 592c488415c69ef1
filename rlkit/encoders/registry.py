"""Encoders by name or description, and back into plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from rlkit.encoders.contract import SequenceEncoder
from rlkit.plugins import load_plugin, nearest, plugin_name, plugin_names

ENCODERS = "rlkit.encoders"  # the entry-point group
SURFACE = (
    *("inputs", "features", "size", "with_inputs", "views"),
    *("initial_parameters", "initial", "step", "scan"),
)


def encoder_names() -> list[str]:
    """Names of the installed encoders."""
    return plugin_names(ENCODERS)


def make_encoder(
    value: str | Mapping[str, Any] | SequenceEncoder | None,
) -> SequenceEncoder | None:
    """An encoder of what a user writes.

    Args:
        value: A name (`"gru"`), a class of the user's own (`"package.module:Class"`), a name with
            settings (`{"name": "gru", "hidden": 128}`), or a configured encoder, which is returned
            as it is. None and `"none"` stand for no memory.

    Raises:
        ValueError: If the name or a setting is unknown or wrong, or the object is no encoder.
    """
    if value is None:
        return None
    if isinstance(value, str):
        value = {"name": value}
    encoder = _build(value) if isinstance(value, Mapping) else value
    if encoder is None:
        return None
    if isinstance(encoder, type):
        raise ValueError(f"{encoder.__name__} is a class; configure it: {encoder.__name__}()")
    # Not isinstance: the members that are missing are what the user has to know.
    missing = [name for name in SURFACE if not hasattr(encoder, name)]
    if missing:
        raise ValueError(
            f"{encoder!r} is no sequence encoder: it lacks {', '.join(missing)}. Give a name "
            f"({', '.join(encoder_names())}), a table with a name, or an object with all members "
            f"of rlkit.encoders.SequenceEncoder"
        )
    return encoder


def describe_encoder(encoder: SequenceEncoder | None) -> dict[str, Any] | None:
    """An encoder as plain data from which `make_encoder` makes an equal one; None for none.

    Raises:
        ValueError: If the encoder, or one of its settings, cannot be written down.
    """
    if encoder is None:
        return None
    kind = type(encoder)
    if not is_dataclass(encoder):
        raise ValueError(
            f"{kind.__name__} cannot be written to a file: make it a dataclass whose fields are "
            f"its settings (@dataclass(frozen=True))"
        )
    if "." in kind.__qualname__:
        raise ValueError(
            f"{kind.__qualname__} cannot be written to a file: define the class at the top of a "
            f"module, where package.module:Class finds it"
        )
    settings = {
        field.name: _plain(f"{kind.__name__}.{field.name}", getattr(encoder, field.name))
        for field in fields(encoder)
        if field.init and field.name != "inputs"
    }
    return {"name": plugin_name(kind, ENCODERS), **settings}


def _build(value: Mapping[str, Any]) -> SequenceEncoder | None:
    name = value.get("name")
    if not isinstance(name, str):
        raise ValueError(f'an encoder\'s table needs a name, {{"name": "gru"}} say, got {value!r}')
    settings = {key: _setting(one) for key, one in value.items() if key != "name"}
    if name.lower() == "none":
        if settings:
            raise ValueError(f"no encoder (none) has no settings, got {', '.join(settings)}")
        return None
    found = load_plugin(name, ENCODERS)
    if is_dataclass(found):
        known = {field.name for field in fields(found) if field.init} - {"inputs"}
        for key in settings:
            if key not in known:
                raise ValueError(f"encoder {name!r} has no setting {key!r}. {nearest(key, known)}")
    try:
        encoder: SequenceEncoder = found(**settings)
    except TypeError as error:
        raise ValueError(f"encoder {name!r} cannot be made of {settings}: {error}") from error
    return encoder


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
