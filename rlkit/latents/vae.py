"""The variational autoencoder, with common variants of its two loss terms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.latents.contract import Metrics
from rlkit.latents.networks import (
    CHANNELS,
    EncoderDecoder,
    normal_like,
    squared_error,
)
from rlkit.networks.fields import (
    is_number,
    require,
    require_choice,
    require_number,
    require_positive,
    require_whole,
)

LEAST_SCALE = 1e-4
LEAST_VARIANCE = 1e-5  # of a learned likelihood, about one step of a byte: it could go to 0


@dataclass(frozen=True)
class VAE(EncoderDecoder):
    """Latents as normal distributions, regularised towards a standard normal prior.

    The loss is the negative evidence lower bound in nats, with its constants, where `beta` is 1 and
    nothing below changes it. With another `beta` it is the beta-VAE.

    Source: Kingma and Welling 2014, equation 10; `beta`: Higgins et al. 2017; `variance` learned:
    Rybkin et al. 2021, section 4.1; `annealing`: Bowman et al. 2016; `free_bits`: Kingma et al.
    2016, appendix C.8, per dimension; `capacity`: Burgess et al. 2018, equation 8, with `beta` for
    their gamma.

    Attributes:
        dims, hidden, channels, spatial: See `rlkit.latents.Autoencoder`.
        beta: Weight of the divergence from the prior, >= 0.
        likelihood: `"gaussian"`, squared error; `"bernoulli"`, cross-entropy, for images.
        variance: Of the Gaussian likelihood, > 0, shared by all numbers; the smaller, the more
            weight the details of an image have against the prior. None learns it.
        initial_scale: Standard deviation of every latent before training, > 0. Means differ little
            at first; with deviations of the prior, 1, noise hides the differences, and a model with
            many dimensions takes several times as long to train.
        annealing: Steps over which the weight of the divergence rises from 0 to `beta`.
        free_bits: Divergence in nats per dimension that costs nothing, >= 0.
        capacity: Target of the total divergence in nats; None minimises it.
        capacity_steps: Steps over which the target rises from 0 to `capacity`.
        shape: Of one observation; set by `with_shape`.

    Raises:
        ValueError: If a field is out of its range, settings exclude each other, or the shape is
            none that the networks have.
    """

    dims: int = 16
    hidden: tuple[int, ...] = (128,)
    channels: tuple[int, ...] = CHANNELS
    spatial: bool = False
    beta: float = 1.0
    likelihood: str = "gaussian"
    variance: float | None = None
    initial_scale: float = 0.1
    annealing: int = 0
    free_bits: float = 0.0
    capacity: float | None = None
    capacity_steps: int = 0
    shape: tuple[int, ...] = ()

    encoded: ClassVar[int] = 2

    def __post_init__(self) -> None:
        self._require_networks()
        require_number(self, 0, "beta", "free_bits")
        require_positive(self, "initial_scale")
        require_whole(self, 0, "annealing", "capacity_steps")
        self._require_likelihood()
        if self.capacity is not None:
            require(self, "capacity", is_number(self.capacity, 0), "a number of nats >= 0 or None")
            if self.annealing or self.free_bits:
                raise ValueError(
                    f"VAE: capacity = {self.capacity} sets how far latents are from the prior, and "
                    f"so do annealing = {self.annealing} and free_bits = {self.free_bits}; set "
                    f"one of them"
                )
        elif self.capacity_steps:
            raise ValueError(
                f"VAE: capacity_steps = {self.capacity_steps} without a capacity; set capacity"
            )

    def _require_likelihood(self) -> None:
        require_choice(self, "likelihood", ("gaussian", "bernoulli"))
        if self.bernoulli and len(self.shape) == 1:
            raise ValueError(
                f"VAE: likelihood = 'bernoulli' is for images, whose numbers are in [0, 1]; for "
                f"vectors of shape {self.shape} set likelihood = 'gaussian'"
            )
        if self.variance is not None:
            good = is_number(self.variance, 0) and self.variance > 0
            require(self, "variance", good, "a number > 0, or None to learn it")
            if self.bernoulli:
                raise ValueError(
                    f"VAE: variance = {self.variance} is of the Gaussian likelihood; set variance "
                    f"= None or likelihood = 'gaussian'"
                )

    @property
    def bernoulli(self) -> bool:
        """Whether the likelihood is Bernoulli's."""
        return self.likelihood == "bernoulli"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""
        learned = not self.bernoulli and self.variance is None
        return super().shapes() | ({"tenth_log_variance": ()} if learned else {})

    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """Fresh values of both networks; a learned variance starts at 0.1."""
        super().fill(views, generator)
        if "tenth_log_variance" in views:
            views["tenth_log_variance"].fill_(math.log(0.1) / 10)

    def encode(self, vector: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of latents; see `LatentModel.encode`."""
        mean, raw = self._encoded(vector, self.read(x)).chunk(2, dim=1)
        # Softplus of this offset is the initial scale.
        offset = math.log(math.expm1(self.initial_scale))
        return mean, F.softplus(raw + offset) + LEAST_SCALE

    def decode(self, vector: Tensor, z: Tensor) -> Tensor:
        """Mean of observations of latents; see `Decoder.decode`."""
        y = self._decoded(vector, z)
        return y.sigmoid() if self.of_images else y

    def loss(
        self, vector: Tensor, x: Tensor, generator: torch.Generator, step: int
    ) -> tuple[Tensor, Metrics]:
        """The weighted negative bound, from one sample per row; see `LatentModel.loss`."""
        x = self.read(x)
        mean, scale = self.encode(vector, x)
        z = mean + scale * normal_like(mean, generator)
        y = self._decoded(vector, z)
        bounded = y.sigmoid() if self.of_images else y
        error = squared_error(bounded, x)
        nats = self._cross_entropy(y, x) if self.bernoulli else self._density(vector, error)
        reconstruction, kl_per_dim = nats.mean(), divergence(mean, scale).mean(0)
        metrics = {
            "reconstruction": reconstruction.detach(),
            "kl": kl_per_dim.detach().sum(),
            "kl_per_dim": kl_per_dim.detach(),
            "error": error.detach().mean() / math.prod(self.shape),
        }
        if not self.bernoulli:
            metrics["variance"] = self._variance(vector).detach()
        return reconstruction + self._weighted(kl_per_dim, step), metrics

    def _weighted(self, kl_per_dim: Tensor, step: int) -> Tensor:
        if self.capacity is not None:
            given = self.capacity * _risen(step, self.capacity_steps)
            return self.beta * (kl_per_dim.sum() - given).abs()
        beta = self.beta * _risen(step, self.annealing)
        return beta * kl_per_dim.clamp(min=self.free_bits).sum()

    def _cross_entropy(self, y: Tensor, x: Tensor) -> Tensor:
        """Negative log-likelihood `(B,)` in nats of numbers in [0, 1], for log-odds `y`."""
        each = F.binary_cross_entropy_with_logits(y, x, reduction="none")
        return each.flatten(1).sum(1)

    def _density(self, vector: Tensor, error: Tensor) -> Tensor:
        """Negative log-likelihood `(B,)` in nats, for squared errors `(B,)`."""
        variance = self._variance(vector)
        constant = math.prod(self.shape) * torch.log(2 * math.pi * variance)
        return (error / variance + constant) / 2

    def _variance(self, vector: Tensor) -> Tensor:
        if self.variance is not None:
            return torch.tensor(float(self.variance), device=vector.device)
        # A tenth, because Adam changes every parameter by about its learning rate per step: the
        # logarithm itself would change too slowly.
        return (10 * self.views(vector)["tenth_log_variance"]).exp() + LEAST_VARIANCE


def divergence(mean: Tensor, scale: Tensor) -> Tensor:
    """Divergence KL(N(mean, scale^2) || N(0, 1)) in nats, each dimension by itself, `(B, D)`."""
    return (mean.square() + scale.square() - 1) / 2 - scale.log()


def _risen(step: int, steps: int) -> float:
    """A share that rises linearly from 0 to 1 over a number of steps; 1 for 0 steps."""
    return min(1.0, step / steps) if steps else 1.0
