"""Checks of the fields of configured parts; errors name the class, the field and its value."""

from __future__ import annotations

import math
from collections.abc import Sequence


def is_whole(value: object, least: int) -> bool:
    """Whether a value is a whole number of `least` or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object, least: float) -> bool:
    """Whether a value is a finite number of `least` or more."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= least  # type: ignore[arg-type, operator]


def require(owner: object, name: str, holds: bool, wanted: str) -> None:
    """Raises a ValueError with a field and its value unless a condition holds."""
    if not holds:
        value = getattr(owner, name)
        raise ValueError(f"{type(owner).__name__}: {name} must be {wanted}, got {value!r}")


def require_whole(owner: object, least: int, *names: str) -> None:
    """Raises a ValueError unless fields are whole numbers of `least` or more."""
    for name in names:
        require(owner, name, is_whole(getattr(owner, name), least), f"a whole number >= {least}")


def require_number(owner: object, least: float, *names: str, most: float = math.inf) -> None:
    """Raises a ValueError unless fields are finite numbers from `least` to `most`."""
    wanted = f"a number >= {least:g}" if most == math.inf else f"a number in [{least:g}, {most:g}]"
    for name in names:
        value = getattr(owner, name)
        require(owner, name, is_number(value, least) and value <= most, wanted)


def require_positive(owner: object, *names: str) -> None:
    """Raises a ValueError unless fields are finite numbers above 0."""
    for name in names:
        value = getattr(owner, name)
        require(owner, name, is_number(value, 0) and value > 0, "a number > 0")


def require_flag(owner: object, *names: str) -> None:
    """Raises a ValueError unless fields are true or false."""
    for name in names:
        require(owner, name, isinstance(getattr(owner, name), bool), "true or false")


def require_choice(owner: object, name: str, choices: Sequence[str]) -> None:
    """Raises a ValueError unless a field is one of several words."""
    require(owner, name, getattr(owner, name) in choices, " or ".join(choices))


def require_widths(owner: object, *names: str) -> None:
    """Raises a ValueError unless fields are tuples of whole numbers of 1 or more."""
    for name in names:
        widths = getattr(owner, name)
        good = isinstance(widths, tuple) and all(is_whole(width, 1) for width in widths)
        require(owner, name, good, "a sequence of whole numbers >= 1")
