"""Autoencoders without chance in their codes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from rlkit.latents.contract import Metrics
from rlkit.latents.networks import CHANNELS, EncoderDecoder, normal_like, squared_error
from rlkit.networks.fields import require, require_flag, require_number


@dataclass(frozen=True)
class Autoencoder(EncoderDecoder):
    """An undercomplete autoencoder: a code so small that it must keep what matters.

    Nothing gives its codes a scale or a shape; distances between them mean less than those of a
    VAE. A linear one learns the subspace of the principal components (Baldi and Hornik 1989).

    Attributes:
        dims: D, width of a code.
        hidden: Widths of hidden layers, between convolutions and code for images.
        channels: Widths of the three convolutions, for images.
        spatial: Whether an image is encoded by where its features are (Finn et al. 2016), which
            makes codes of things that move nearly linear in their places.
        linear: One affine map each way instead, `hidden` and `channels` unused; images of any size.
        noise: Standard deviation of the normal noise on what is encoded in training, while the
            clean observation is to be decoded (Vincent et al. 2010); 0 is none. In shares of an
            image's range, or in deviations of standardised vectors.
        squash: Whether codes are normalised and bounded, which keeps them in scale where an agent
            trains them (Yarats et al. 2021, appendix B.1; without the affine part of layer norm).
        shape: Of one observation; set by `with_shape`.

    Raises:
        ValueError: If a field is out of its range, or the shape is none that the networks have.
    """

    dims: int = 16
    hidden: tuple[int, ...] = (128,)
    channels: tuple[int, ...] = CHANNELS
    spatial: bool = False
    linear: bool = False
    noise: float = 0.0
    squash: bool = False
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._require_networks()
        require_flag(self, "linear", "squash")
        require_number(self, 0, "noise")

    @property
    def affine(self) -> bool:
        """Whether the networks are one affine map each."""
        return self.linear

    def encode(self, vector: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of observations; see `LatentModel.encode`."""
        mean = self._encoded(vector, self.read(x))
        return mean, torch.zeros_like(mean)

    def decode(self, vector: Tensor, z: Tensor) -> Tensor:
        """Observations of codes; see `LatentModel.decode`."""
        y = self._shown(self._decoded(vector, z))
        return y.clamp(0, 1) if self.of_images else y

    def loss(
        self, vector: Tensor, x: Tensor, generator: torch.Generator, step: int
    ) -> tuple[Tensor, Metrics]:
        """Squared error of what is decoded; see `LatentModel.loss`."""
        clean = self.read(x)
        seen = clean
        if self.noise > 0:
            seen = clean + self.noise * normal_like(clean, generator)
        loss = self.errors(vector, self._encoded(vector, seen), clean).mean()
        error = loss.detach() / math.prod(self.shape)
        return loss, {"reconstruction": loss.detach(), "error": error}

    def _encoded(self, vector: Tensor, x: Tensor) -> Tensor:
        z = super()._encoded(vector, x)
        return layer_norm(z, (self.dims,)).tanh() if self.squash else z

    def errors(self, vector: Tensor, z: Tensor, x: Tensor) -> Tensor:
        """Squared error `(B,)` of what codes `(B, D)` are decoded to, for observations `x`."""
        return squared_error(self._shown(self._decoded(vector, z)), self.read(x))

    def _shown(self, y: Tensor) -> Tensor:
        # Not for the affine one, which would not be PCA's equal with a sigmoid at its end.
        return y.sigmoid() if self.of_images and not self.linear else y


@dataclass(frozen=True)
class Denoising(Autoencoder):
    """The autoencoder with noise on its observations (Vincent et al. 2010)."""

    noise: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "noise", self.noise > 0, "a number > 0, or the model an Autoencoder")
