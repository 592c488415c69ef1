"""Encoders by name or description, and back into plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlkit.networks.encoders.contract import SequenceEncoder
from rlkit.plugins import Kind, plugin_names

ENCODER = Kind(
    group="rlkit.encoders",
    called="sequence encoder",
    contract="rlkit.networks.encoders.SequenceEncoder",
    members=(
        *("inputs", "features", "size", "with_inputs", "views"),
        *("initial_parameters", "initial", "step", "scan"),
    ),
    example="gru",
    completed="inputs",
)


def encoder_names() -> list[str]:
    """Names of the installed encoders."""
    return plugin_names(ENCODER.group)


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
    encoder: SequenceEncoder | None = ENCODER.make(value)
    return encoder


def describe_encoder(encoder: SequenceEncoder | None) -> dict[str, Any] | None:
    """An encoder as plain data from which `make_encoder` makes an equal one; None for none.

    Raises:
        ValueError: If the encoder, or one of its settings, cannot be written down.
    """
    return ENCODER.describe(encoder)
