"""Latent models by name or description, and back into plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlkit.latents.contract import LatentModel
from rlkit.plugins import Kind, plugin_names

LATENT = Kind(
    group="rlkit.latents",
    called="latent model",
    contract="rlkit.latents.LatentModel",
    members=(
        *("shape", "dims", "size", "with_shape", "shapes", "views"),
        *("initial_parameters", "encode", "decode", "loss"),
    ),
    example="vae",
    completed="shape",
)


def latent_names() -> list[str]:
    """Names of the installed latent models."""
    return plugin_names(LATENT.group)


def make_latent(value: str | Mapping[str, Any] | LatentModel | None) -> LatentModel | None:
    """A latent model of what a user writes.

    Args:
        value: A name (`"vae"`), a class of the user's own (`"package.module:Class"`), a name with
            settings (`{"name": "vae", "dims": 8}`), or a configured model, which is returned as it
            is. None and `"none"` stand for no latent model.

    Raises:
        ValueError: If the name or a setting is unknown or wrong, or the object is no latent model.
    """
    model: LatentModel | None = LATENT.make(value)
    return model


def describe_latent(model: LatentModel | None) -> dict[str, Any] | None:
    """A latent model as plain data from which `make_latent` makes an equal one, without its shape.

    Raises:
        ValueError: If the model, or one of its settings, cannot be written down.
    """
    return LATENT.describe(model)
