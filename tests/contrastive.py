"""A latent model without a decoder, which learns from observations that follow each other."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from rlkit.latents.networks import EncoderDecoder
from rlkit.networks.mlp import part_of


@dataclass(frozen=True)
class Contrastive(EncoderDecoder):
    """Distinguishes the next observation from those of other rows; it has no decoder.

    Source: van den Oord et al. 2018, equation 4, with the negative squared distance as the score.
    """

    dims: int = 3
    hidden: tuple[int, ...] = (16,)
    channels: tuple[int, ...] = (4, 4, 4)
    spatial: bool = False
    shape: tuple[int, ...] = ()
    blind: bool = False

    reads_next: ClassVar[bool] = True

    def shapes(self):
        return {f"encoder.{name}": shape for name, shape in self.encoder.shapes().items()}

    def fill(self, views, generator):
        self.encoder.fill(part_of(views, "encoder"), generator)

    def encode(self, vector, x):
        z = self._encoded(vector, self.read(x))
        return z, torch.zeros_like(z)

    def loss(self, vector, x, generator, step, next_x):
        z, later = self.encode(vector, x)[0], self.encode(vector, x if self.blind else next_x)[0]
        scores = -torch.cdist(z, later).square()
        loss = F.cross_entropy(scores, torch.arange(len(z)))
        return loss, {"contrast": loss.detach()}
