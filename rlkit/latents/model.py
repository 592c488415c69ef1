"""What several latent models are built of: reading and showing observations, plain networks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from rlkit.latents.images import ImageDecoder, ImageEncoder, require_image
from rlkit.networks import Mlp, Parametric
from rlkit.networks.fields import is_whole, require, require_flag, require_whole, require_widths
from rlkit.networks.mlp import part_of

CHANNELS = (16, 32, 32)
"""Default widths of the convolutions."""


class ParametricLatent(Parametric):
    """What our models share: dataclasses with a width of codes and a shape of observations."""

    dims: int
    shape: tuple[int, ...]

    @property
    def of_images(self) -> bool:
        """Whether observations are images."""
        return len(self.shape) == 3

    def with_shape(self, shape: tuple[int, ...]) -> Self:
        """The same model for observations of a shape, `(H, W, C)` or `(F,)`.

        Raises:
            ValueError: If the shape is neither.
        """
        changed: Self = replace(self, shape=tuple(int(n) for n in shape))  # type: ignore[type-var]
        return changed

    def read(self, x: Tensor) -> Tensor:
        """Observations as the networks see them, `(B, *shape)` float32; images in [0, 1].

        Raises:
            ValueError: If the model has no shape yet, or another one.
        """
        # Images of floats are believed to be in [0, 1]: looking would halt a GPU at every batch.
        if not self.shape:
            raise ValueError(
                f"{type(self).__name__} does not know its observations: use "
                f"model.with_shape({tuple(x.shape[1:])})"
            )
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"observations have shape {tuple(x.shape[1:])}, {type(self).__name__} is "
                f"configured for {self.shape}: use model.with_shape({tuple(x.shape[1:])})"
            )
        if x.dtype == torch.uint8 and self.of_images:
            return x.float().mul_(1 / 255)
        return x.float()

    def _require_dims_and_shape(self) -> None:
        require_whole(self, 1, "dims")
        if len(self.shape) not in (0, 1, 3) or any(not is_whole(n, 1) for n in self.shape):
            advice = ""
            if len(self.shape) == 2:
                advice = f"; a grey image has one channel, {(*self.shape, 1)}"
            raise ValueError(
                f"{type(self).__name__}: observations are vectors (F,) or images (H, W, C), got "
                f"shape {self.shape}{advice}"
            )


class EncoderDecoder(ParametricLatent):
    """A model with one network to encode and one to decode, side by side in the flat vector."""

    hidden: tuple[int, ...]
    channels: tuple[int, ...]
    spatial: bool

    encoded: ClassVar[int] = 1  # numbers per dimension that come out of the encoder

    @property
    def affine(self) -> bool:
        """Whether the networks are one affine map each."""
        return False

    @property
    def encoder(self) -> Dense | ImageEncoder:
        """From `(B, *shape)` to `(B, encoded * D)`."""
        outputs = self.encoded * self.dims
        if self.of_images and not self.affine:
            return ImageEncoder(self.shape, self.channels, self.hidden, outputs, self.spatial)
        return Dense(self.shape, () if self.affine else self.hidden, (outputs,))

    @property
    def decoder(self) -> Dense | ImageDecoder:
        """From `(B, D)` to `(B, *shape)`; what comes out of it is unbounded."""
        if self.of_images and not self.affine:
            return ImageDecoder(self.shape, self.channels, self.hidden, self.dims)
        return Dense((self.dims,), () if self.affine else self.hidden[::-1], self.shape)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""
        parts = {"encoder": self.encoder.shapes(), "decoder": self.decoder.shapes()}
        return {
            f"{part}.{name}": shape
            for part, named in parts.items()
            for name, shape in named.items()
        }

    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """Fresh values of both networks."""
        self.encoder.fill(part_of(views, "encoder"), generator)
        self.decoder.fill(part_of(views, "decoder"), generator)

    def _encoded(self, vector: Tensor, x: Tensor) -> Tensor:
        encoder = self.encoder
        return encoder(vector[: encoder.size], x)

    def _decoded(self, vector: Tensor, z: Tensor) -> Tensor:
        start, decoder = self.encoder.size, self.decoder
        return decoder(vector[start : start + decoder.size], z)

    def _require_networks(self) -> None:
        self._require_dims_and_shape()
        require_widths(self, "hidden", "channels")
        require(self, "channels", len(self.channels) == 3, "three widths, one per convolution")
        require_flag(self, "spatial")
        if self.of_images and not self.affine:
            require_image(type(self).__name__, self.shape)


@dataclass(frozen=True)
class Dense(Parametric):
    """A perceptron from arrays of one shape to arrays of another.

    Attributes:
        before: Shape of one input.
        hidden: Width of each hidden layer.
        after: Shape of one output.
    """

    before: tuple[int, ...]
    hidden: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def mlp(self) -> Mlp:
        """The perceptron between the flattened arrays."""
        return Mlp((math.prod(self.before),), self.hidden, math.prod(self.after))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""
        return self.mlp.shapes()

    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """Fresh values; see `Mlp.fill`."""
        self.mlp.fill(views, generator)

    def __call__(self, vector: Tensor, x: Tensor) -> Tensor:
        """Outputs `(B, *after)` for inputs `(B, *before)`."""
        return self.mlp(vector, [x.flatten(1)])[0].view(len(x), *self.after)


def normal_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of a tensor's shape, drawn where the generator lives."""
    return torch.randn(x.shape, generator=generator, device=generator.device).to(x.device)


def squared_error(y: Tensor, x: Tensor) -> Tensor:
    """Squared differences, summed over each row: `(B, ...), (B, ...) -> (B,)`."""
    return (y - x).square().flatten(1).sum(1)
