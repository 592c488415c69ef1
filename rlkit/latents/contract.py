"""The contract of latent models: observations as small vectors, and back.

Laws, checked for every model by `tests/latents/test_latent_laws.py`: rows are separate; a latent is
the same every time; decoded observations have the shape and range of the observations; all
randomness comes from the given generator; training lowers the loss.
"""

from __future__ import annotations

from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from rlkit.plugins import PluginGroup

Metrics = dict[str, Tensor]


@runtime_checkable
class LatentModel(Protocol):
    """A model that encodes observations, as a pure function of one flat vector.

    Observations are images `(H, W, C)`, channels last as in Gymnasium, or vectors `(F,)`. Images
    are bytes or floats in [0, 1]; decoded ones are floats in [0, 1].

    A model is configured without knowing its observations; `with_shape` completes it. Further
    members are optional:

    - `decode(vector, z)`: observations `(B, *shape)` float32 of latents `(B, D)`, see `Decoder`.
      Without it nothing is reconstructed or shown.
    - `reads_next = True`: the loss compares neighbours in time, and gets one more argument, the
      observations that follow `x` in their episodes, `(B, *shape)`.
    - `solve(frames) -> vector`: a closed form for frames `(N, *shape)`, an array or a memory map;
      the model is fitted by that and not by gradients.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one observation; `()` before `with_shape`."""

    @property
    def dims(self) -> int:
        """D, the width of a latent."""

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
        """Latents of observations.

        Args:
            vector: Parameters `(P,)`; gradients flow to it.
            x: Observations `(B, *shape)`, uint8 or float32.

        Returns:
            Mean and standard deviation of the latents, `(B, D)` each; deviations of 0 for models
            without one.
        """

    def loss(
        self, vector: Tensor, x: Tensor, generator: torch.Generator, step: int
    ) -> tuple[Tensor, Metrics]:
        """The training loss: a sum over numbers and dimensions, a mean over rows.

        Args:
            vector: Parameters `(P,)`; gradients flow to it.
            x: Observations `(B, *shape)`, uint8 or float32.
            generator: The only source of randomness.
            step: Gradient steps taken so far, for schedules.

        Returns:
            The loss and its parts, detached: `reconstruction` in models with a decoder, and `kl`
            and `kl_per_dim (D,)` in those that have them.
        """


@runtime_checkable
class Decoder(Protocol):
    """The optional part of a latent model that leads back to observations."""

    def decode(self, vector: Tensor, z: Tensor) -> Tensor:
        """Observations `(B, *shape)` float32 of latents `(B, D)`; images in [0, 1].

        Args:
            vector: The model's parameters `(P,)`; gradients flow to it.
            z: Latents; gradients flow to them.
        """


LATENTS = PluginGroup[LatentModel]("rlkit.latents", "latent model", LatentModel, "shape")
