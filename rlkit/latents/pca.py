"""Principal components as a latent model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rlkit.latents.contract import Metrics
from rlkit.latents.frames import chunks
from rlkit.latents.networks import Frames, ParametricLatent, squared_error

# Up to this many numbers an observation's covariance is small enough to be taken apart exactly.
EXACT_SIZE = 1024
EXTRA, PASSES = 16, 12


@dataclass(frozen=True)
class PCA(ParametricLatent):
    """Principal component analysis, fitted in closed form.

    Observations of more than 1024 numbers are too wide for their covariance; there the leading
    directions come from block power iteration, one pass over the frames each (Halko et al. 2011,
    algorithm 4.4), with more directions and passes than are needed.

    Attributes:
        dims: D, components that are kept, at most the numbers in an observation.
        whiten: Whether latents are divided by their standard deviation over the frames, so that all
            components count alike in a distance.
        shape: Of one observation, images of any size or vectors; set by `with_shape`.

    Raises:
        ValueError: If a field is out of its range.
    """

    dims: int = 16
    whiten: bool = True
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._require_dims_and_shape()
        if self.shape and self.dims > self.width:
            raise ValueError(
                f"PCA: observations of {self.width} numbers have at most {self.width} components, "
                f"got dims = {self.dims}; set dims <= {self.width}"
            )

    @property
    def width(self) -> int:
        """F, the numbers in one observation."""
        return math.prod(self.shape)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""
        width, dims = self.width, self.dims
        return {"mean": (width,), "components": (dims, width), "scales": (dims,)}

    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """A random projection: orthonormal components around the middle of an image's range."""
        views["mean"].fill_(0.5 if self.of_images else 0.0)
        torch.nn.init.orthogonal_(views["components"], generator=generator)
        views["scales"].fill_(1.0)

    def encode(self, vector: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of observations; see `LatentModel.encode`."""
        p = self.views(vector)
        mean = ((self.read(x).flatten(1) - p["mean"]) @ p["components"].T) / p["scales"]
        return mean, torch.zeros_like(mean)

    def decode(self, vector: Tensor, z: Tensor) -> Tensor:
        """Observations of latents; see `Decoder.decode`."""
        y = self._decoded(vector, z)
        return y.clamp(0, 1) if self.of_images else y

    def loss(
        self, vector: Tensor, x: Tensor, generator: torch.Generator, step: int
    ) -> tuple[Tensor, Metrics]:
        """Mean squared distance to the components; see `LatentModel.loss`."""
        z, _ = self.encode(vector, x)
        loss = squared_error(self._decoded(vector, z), self.read(x)).mean()
        return loss, {"reconstruction": loss.detach(), "error": loss.detach() / self.width}

    def solve(self, frames: Frames) -> Tensor:
        """The parameter vector `(size,)` of frames `(N, *shape)`, read in chunks."""
        mean = torch.zeros(self.width).double()
        for x in self._chunks(frames):
            mean += x.sum(0) / len(frames)

        def spread(directions: Tensor) -> Tensor:
            """Covariance of the frames times directions, `(F, K)`."""
            total = torch.zeros(directions.shape).double()
            for x in self._chunks(frames):
                centred = x - mean
                total += centred.T @ (centred @ directions)
            return total / len(frames)

        if self.width <= EXACT_SIZE:
            covariance = spread(torch.eye(self.width).double())
            variances, directions = torch.linalg.eigh(covariance)
        else:
            directions = self._start()
            for _ in range(PASSES):
                directions, _ = torch.linalg.qr(spread(directions))
            variances, turn = torch.linalg.eigh(directions.T @ spread(directions))
            directions = directions @ turn
        components = directions.flip(1)[:, : self.dims].T
        scales = variances.flip(0)[: self.dims].clamp(min=0).sqrt()
        return self._packed(mean, components, scales)

    def _packed(self, mean: Tensor, components: Tensor, scales: Tensor) -> Tensor:
        vector = torch.empty(self.size)
        p = self.views(vector)
        # An eigenvector's sign is arbitrary; this one does not depend on the machine.
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        p["mean"].copy_(mean)
        p["components"].copy_(components * largest.sign())
        # Bounded, because a direction without variance holds rounding noise alone.
        floor = (1e-4 * scales[0]).clamp(min=1e-12)
        p["scales"].copy_(scales.clamp(min=floor) if self.whiten else torch.ones(self.dims))
        return vector

    def _start(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        count = min(self.dims + EXTRA, self.width)
        return torch.randn(self.width, count, generator=generator, dtype=torch.float64)

    def _chunks(self, frames: Frames) -> Iterator[Tensor]:
        for x in chunks(frames, self.of_images):
            yield self.read(x.cpu()).flatten(1).double()

    def _decoded(self, vector: Tensor, z: Tensor) -> Tensor:
        p = self.views(vector)
        y = (z * p["scales"]) @ p["components"] + p["mean"]
        return y.view(len(z), *self.shape)
