"""The base of settings: every field's type and range, checked by name."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any


@dataclass(frozen=True)
class Settings:
    """Base of every group: checks types and ranges of all fields of the composed configuration."""

    def __post_init__(self) -> None:
        """Refuses values out of range, by name."""
        check_types(self)
        for name, (allowed, fine) in self.ranges().items():
            if not fine:
                raise ValueError(f"{name} = {getattr(self, name)!r} must be {allowed}")

    def ranges(self) -> dict[str, tuple[str, bool]]:
        """By field: which values are allowed, in words, and whether this one is."""
        return {}


def check_types(config: Any) -> None:
    """Refuses booleans and numbers of a configuration that have another type, by name."""
    # A string is true and 1.5 is >= 1: a misspelt recipe would be accepted.
    kinds = {
        "bool": ("true or false", bool),
        "int": ("a whole number", Integral),
        "float": ("a number", Real),
    }
    for field in fields(config):
        value: Any = getattr(config, field.name)
        kind, or_none, _ = str(field.type).partition(" | None")
        if kind not in kinds or callable(value) or (value is None and or_none):
            continue
        allowed, kept = kinds[kind]
        if not isinstance(value, kept) or isinstance(value, bool) != (kind == "bool"):
            raise ValueError(f"{field.name} = {value!r} must be {allowed}")
        if kind == "float" and not math.isfinite(getattr(config, field.name)):
            raise ValueError(f"{field.name} = {value!r} must be a finite number")


def one_of(value: Any, *allowed: Any) -> tuple[str, bool]:
    """A choice in the form that `Settings.ranges` gives."""
    return f"one of {list(allowed)}", value in allowed
