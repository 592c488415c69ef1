"""A latent model: features that change slowly. It has no decoder."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from rlkit.latents import ParametricLatent
from rlkit.networks import Mlp


@dataclass(frozen=True)
class SlowFeatures(ParametricLatent):
    """Latents of neighbouring observations are close; each dimension varies, and on its own.

    Source: Bardes et al. 2022 (VICReg), with the next observation as the second view.
    """

    dims: int = 8
    hidden: int = 64
    """Width of the hidden layer."""
    shape: tuple[int, ...] = ()

    reads_next: ClassVar[bool] = True

    @property
    def network(self):
        """A perceptron from an observation to its latent."""
        return Mlp((math.prod(self.shape),), (self.hidden,), self.dims)

    def shapes(self):
        """Name and shape of every parameter."""
        return self.network.shapes()

    def fill(self, views, generator):
        """Fresh parameters."""
        self.network.fill(views, generator)

    def encode(self, vector, x):
        """Latents `(B, D)`, without deviations."""
        z = self.network(vector, [self.read(x).flatten(1)])[0]
        return z, torch.zeros_like(z)

    def loss(self, vector, x, generator, step, next_x):
        """Distance of neighbours, and penalties on low variances and on covariances."""
        z, later = self.encode(vector, x)[0], self.encode(vector, next_x)[0]
        slowness = (z - later).square().sum(1).mean()
        covariance = torch.atleast_2d(torch.cov(z.T))
        variance = covariance.diagonal()
        collapse = (1 - (variance + 1e-4).sqrt()).relu().sum()
        redundancy = (covariance.square().sum() - variance.square().sum()) / self.dims
        loss = 25 * slowness + 25 * collapse + redundancy
        return loss, {"slowness": slowness.detach(), "collapse": collapse.detach()}
