"""Weights that may be saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def require_finite(tensors: Any, name: str) -> None:
    """Refuses tensors that hold NaN or infinity: a file of them would be of no use.

    Args:
        tensors: By name, nested or not; anything else is left alone.
        name: What they are, for the message.

    Raises:
        FloatingPointError: If one does.
    """
    for key, value in tensors.items() if isinstance(tensors, Mapping) else ():
        if isinstance(value, Mapping):
            require_finite(value, f"{name}.{key}")
        elif value.dtype.is_floating_point and not bool(value.isfinite().all()):
            raise FloatingPointError(
                f"{name}.{key} holds numbers that are not finite: training has diverged, and "
                f"nothing is saved of it"
            )
