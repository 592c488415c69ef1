"""What a latent model is to an agent: a code for an observation, and a picture of a code.

Laws, checked for every model by `tests/latents/test_latent_laws.py`: rows are separate; a code is
the same every time; pictures have the observations' shape and range; chance comes from the
generator that is handed in; training lowers the loss.
"""

from __future__ import annotations

from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from rlkit.plugins import PluginGroup

Metrics = dict[str, Tensor]


@runtime_checkable
class LatentModel(Protocol):
    """An autoencoder of any kind as a pure function of one flat vector.

    Observations are images `(H, W, C)`, channels last as in Gymnasium, or vectors `(F,)`. Images
    come as bytes, or as floats in [0, 1]; they leave as floats in [0, 1].

    A model is configured without knowing what it will see; `with_shape` completes it. One that has
    a closed form also has `solve(frames) -> vector`, for frames `(N, *shape)` as an array or a
    memory map; it is fitted by that and not by gradients.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one observation; `()` before `with_shape`."""

    @property
    def dims(self) -> int:
        """D, the width of a code."""

    @property
    def size(self) -> int:
        """P, the length of the parameter vector."""

    def with_shape(self, shape: tuple[int, ...]) -> Self:
        """The same model for observations of a shape."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """The named parameters inside a vector `(P,)`; they share its memory."""

    def initial_parameters(self, generator: torch.Generator) -> Tensor:
        """A fresh parameter vector `(P,)`."""

    def encode(self, vector: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of observations.

        Args:
            vector: Parameters `(P,)`; gradients flow to it.
            x: Observations `(B, *shape)`, uint8 or float32.

        Returns:
            Mean and standard deviation of the code, `(B, D)` each; a deviation of 0 throughout for
            models without one.
        """

    def decode(self, vector: Tensor, z: Tensor) -> Tensor:
        """Observations `(B, *shape)` of codes `(B, D)`, float32; images in [0, 1]."""

    def loss(
        self, vector: Tensor, x: Tensor, generator: torch.Generator, step: int
    ) -> tuple[Tensor, Metrics]:
        """What training lowers: a sum over numbers and dimensions, a mean over rows.

        Args:
            vector: Parameters `(P,)`; gradients flow to it.
            x: Observations `(B, *shape)`, uint8 or float32.
            generator: The only source of chance.
            step: Gradient steps taken so far, for schedules.

        Returns:
            The loss and what it is made of, detached: `reconstruction` in every model, and `kl`
            and `kl_per_dim (D,)` in those that have them.
        """


LATENTS = PluginGroup[LatentModel]("rlkit.latents", "latent model", LatentModel, "shape")
