"""Deterministic autoencoders."""

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
    """An undercomplete autoencoder, which compresses through a small latent.

    Its latents have no prior and no fixed scale: distances between them mean less than those of a
    VAE. A linear one learns the subspace of the principal components (Baldi and Hornik 1989).

    Attributes:
        dims: D, width of a latent.
        hidden: Widths of hidden layers, between convolutions and latent for images.
        channels: Widths of the three convolutions, for images.
        spatial: Whether an image is encoded by the positions of its features (Finn et al. 2016),
            which makes latents nearly linear in the positions of moving objects.
        linear: One affine map each way instead, `hidden` and `channels` unused; images of any size.
        noise: Standard deviation of the normal noise on what is encoded in training, while the
            clean observation is to be decoded (Vincent et al. 2010); 0 is none. In shares of an
            image's range, or in deviations of standardised vectors.
        squash: Whether latents are normalised and bounded, which keeps their scale where an agent
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
        """Latents of observations; see `LatentModel.encode`."""
        mean = self._encoded(vector, self.read(x))
        return mean, torch.zeros_like(mean)

    def decode(self, vector: Tensor, z: Tensor) -> Tensor:
        """Observations of latents; see `Decoder.decode`."""
        y = self._bounded(self._decoded(vector, z))
        return y.clamp(0, 1) if self.of_images else y

    def loss(
        self, vector: Tensor, x: Tensor, generator: torch.Generator, step: int
    ) -> tuple[Tensor, Metrics]:
        """Squared reconstruction error; see `LatentModel.loss`."""
        clean = self.read(x)
        noisy = clean
        if self.noise > 0:
            noisy = clean + self.noise * normal_like(clean, generator)
        loss = self.errors(vector, self._encoded(vector, noisy), clean).mean()
        error = loss.detach() / math.prod(self.shape)
        return loss, {"reconstruction": loss.detach(), "error": error}

    def _encoded(self, vector: Tensor, x: Tensor) -> Tensor:
        z = super()._encoded(vector, x)
        return layer_norm(z, (self.dims,)).tanh() if self.squash else z

    def errors(self, vector: Tensor, z: Tensor, x: Tensor) -> Tensor:
        """Squared error `(B,)` of the reconstructions of observations `x` from latents `(B, D)`."""
        return squared_error(self._bounded(self._decoded(vector, z)), self.read(x))

    def _bounded(self, y: Tensor) -> Tensor:
        # Not for the affine one, which is to learn the subspace of PCA.
        return y.sigmoid() if self.of_images and not self.linear else y


@dataclass(frozen=True)
class Denoising(Autoencoder):
    """The autoencoder with noise on its observations (Vincent et al. 2010)."""

    noise: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "noise", self.noise > 0, "a number > 0, or the model an Autoencoder")
