"""Columns of an environment's observations for world models, with images as latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.goals import ObservationLayout, is_image_space
from rlkit.latents import FittedLatent
from rlkit.world import Layout

OBSERVATION, ACHIEVED = "observation", "achieved_goal"
LATENT_COLUMN = "latent"  # begins the name of each column of a latent


@dataclass(frozen=True)
class Columns:
    """Makes flat observations `(..., F)`; a latent model encodes the images among them.

    An image of the achieved goal is the same as the observation and adds no column.

    Attributes:
        space: Of one observation.
        flat: The columns: those of the space with latents in the place of images.
        latent: Encodes images; None without images.
    """

    space: spaces.Space[Any]
    flat: ObservationLayout
    latent: FittedLatent | None = None

    @classmethod
    def of(cls, name: str, space: spaces.Space[Any], latent: FittedLatent | None = None) -> Columns:
        """The columns of a space.

        Args:
            name: Of the environment, for errors.
            space: Of one observation.
            latent: Encodes images.

        Raises:
            ValueError: If there are images and no latent model, or the other way round, or the
                images have another shape than the latent model's.
        """
        shapes = {key: part.shape for key, part in _images(space).items() if key != ACHIEVED}
        if shapes and latent is None:
            raise ValueError(
                f"{name} has images under {sorted(shapes)}: name a latent model that encodes "
                f"them, --latent FOLDER; `rlkit latent train` makes one"
            )
        if latent is not None and set(shapes.values()) != {latent.shape}:
            raise ValueError(
                f"the latent model reads images of shape {latent.shape}, {name} has "
                f"{shapes or 'none'}: give one that was trained on this environment"
            )
        without = {ACHIEVED} & set(_images(space))
        return cls(space, ObservationLayout.of(_encoded(space, latent), without=without), latent)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, such as `"observation 0"`."""
        images = _images(self.space)
        return tuple(
            f"{LATENT_COLUMN if key in images else key.replace('_', ' ')} {i}"
            for key, columns in self.flat.slices.items()
            for i in range(columns.stop - columns.start)
        )

    def layout(self, action_space: spaces.Space[Any], outcomes: Sequence[str]) -> Layout:
        """Which columns are what."""
        return Layout.of_columns(self.flat, action_space, outcomes)

    def __call__(self, observation: Any, lead: int = 1) -> NDArray[np.float32]:
        """Columns `(..., F)` of observations with `lead` leading axes.

        Images that are encoded already, as agents store them, stay as they are.
        """
        images = _images(self.space)
        if not isinstance(self.space, spaces.Dict):
            encoded = self._encode(observation) if images else observation
        else:
            encoded = {
                key: self._encode(observation[key]) if key in images else observation[key]
                for key in self.flat.slices
            }
        return self.flat.vector(encoded, lead)

    def _encode(self, value: Any) -> NDArray[Any]:
        image: NDArray[Any] = np.asarray(value)
        if self.latent is None or image.dtype != np.uint8:
            return image
        return np.asarray(self.latent.encode(image))


def _images(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """The parts of an observation that are images; a plain one has the key "observation"."""
    parts = space.spaces if isinstance(space, spaces.Dict) else {OBSERVATION: space}
    return {
        key: part for key, part in parts.items() if is_image_space(part) and key != "desired_goal"
    }


def _encoded(space: spaces.Space[Any], latent: FittedLatent | None) -> spaces.Space[Any]:
    """The space with latents in the place of images."""
    if latent is None:
        return space
    box = spaces.Box(-np.inf, np.inf, (latent.dims,), np.float32)
    if not isinstance(space, spaces.Dict):
        return box
    parts = [(key, box if is_image_space(part) else part) for key, part in space.spaces.items()]
    return spaces.Dict(parts)
