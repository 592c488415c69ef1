"""The stochastic part of a recurrent state-space model: normal or categorical latents.

A network's outputs are the parameters of a latent's distribution; `noise` holds the random numbers
that select its value, drawn for a whole window. Without them it takes its most likely value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NARROWEST = 0.1  # smallest deviation of a normal latent
UNIFORM = 0.01  # weight of a uniform distribution in a categorical latent (DreamerV3)


class Latents(Protocol):
    """A distribution of latents, whose parameters are outputs of a network."""

    @property
    def width(self) -> int:
        """Z, numbers in a latent."""

    @property
    def outputs(self) -> int:
        """Numbers per distribution."""

    def noise(self, lead: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Random numbers for `sample` of latents `(*lead, Z)`, on the generator's device."""

    def sample(self, outputs: Tensor, noise: Tensor | None, temperature: float = 1.0) -> Tensor:
        """Latents `(..., Z)`, the most likely ones without noise; gradients flow to outputs.

        Args:
            outputs: Of a network.
            noise: From `noise`, or None.
            temperature: 1 draws from the distribution, 0 takes the most likely.
        """

    def slopes(self, outputs: Tensor, noise: Tensor | None) -> Tensor:
        """What `pull` needs of a window's outputs `(T, ...)`, step by step."""

    def pull(self, grad: Tensor, slope: Tensor, of_sample: Tensor) -> None:
        """Adds the gradient of a step's sample, propagated to its outputs, to `grad`."""

    def divergence(self, outputs: Tensor, others: Tensor) -> Tensor:
        """Kullback-Leibler divergence of a first distribution from a second, in nats, `(...)`."""


@dataclass(frozen=True)
class Gaussian:
    """Independent normal latents.

    Source: Hafner et al. 2019 (PlaNet); their deviation is a stretched sigmoid, as in DreamerV2.

    Attributes:
        dims: Z, >= 1.
    """

    dims: int

    @property
    def width(self) -> int:
        """Z, numbers in a latent."""
        return self.dims

    @property
    def outputs(self) -> int:
        """A mean and a deviation each."""
        return 2 * self.dims

    def noise(self, lead: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Normal numbers `(*lead, Z)`; see `Latents.noise`."""
        return torch.randn((*lead, self.dims), generator=generator, device=generator.device)

    def sample(self, outputs: Tensor, noise: Tensor | None, temperature: float = 1.0) -> Tensor:
        """Means and so many deviations more; see `Latents.sample`."""
        mean, deviation = self.moments(outputs)
        if noise is None or temperature == 0:
            return mean
        return torch.addcmul(mean, noise, deviation, value=temperature)

    def slopes(self, outputs: Tensor, noise: Tensor | None) -> Tensor:
        """Slopes of mean and deviation, `(T, B, 2, Z)`; see `Latents.slopes`."""
        share = outputs[..., self.dims :].sigmoid()
        spread = torch.zeros_like(share) if noise is None else 2 * noise * share * (1 - share)
        return torch.stack([torch.ones_like(share), spread], -2)

    def pull(self, grad: Tensor, slope: Tensor, of_sample: Tensor) -> None:
        """By the chain rule; see `Latents.pull`."""
        grad.view(slope.shape).addcmul_(slope, of_sample.unsqueeze(1))

    def divergence(self, outputs: Tensor, others: Tensor) -> Tensor:
        """A sum over latents; see `Latents.divergence`."""
        (mean, deviation), (mean2, deviation2) = self.moments(outputs), self.moments(others)
        ratio = deviation / deviation2
        apart = (mean - mean2) / deviation2
        return (0.5 * (ratio.square() + apart.square() - 1) - ratio.log()).sum(-1)

    def moments(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation `(..., Z)`, which is within `NARROWEST` and 2 more."""
        mean, spread = outputs.chunk(2, -1)
        return mean, 2 * spread.sigmoid() + NARROWEST


@dataclass(frozen=True)
class Categorical:
    """Groups of classes, one of each group at a time.

    Source: Hafner et al. 2021 (DreamerV2), straight-through gradients; 2023 (DreamerV3), a
    uniform share in every distribution.

    Attributes:
        groups: >= 1.
        classes: In each group, >= 2.
    """

    groups: int
    classes: int

    @property
    def width(self) -> int:
        """Z, numbers in a latent."""
        return self.groups * self.classes

    @property
    def outputs(self) -> int:
        """A logit per class."""
        return self.width

    def noise(self, lead: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Thresholds `(*lead, groups, classes - 1)`; see `Latents.noise`.

        A class is skipped where the distribution function without the uniform share is below.
        """
        draw = torch.rand((*lead, self.groups), generator=generator, device=generator.device)
        even = torch.arange(1, self.classes, device=draw.device) * (UNIFORM / self.classes)
        return (draw.unsqueeze(-1) - even) / (1 - UNIFORM)

    def sample(self, outputs: Tensor, noise: Tensor | None, temperature: float = 1.0) -> Tensor:
        """One-hot groups side by side, each of a class's probability to 1 / temperature.

        Gradients pass as if they were the probabilities; see `Latents.sample`.
        """
        logits = self._grouped(outputs)
        if torch.is_grad_enabled():
            hot: Tensor = _Choice.apply(logits, noise, temperature)  # type: ignore[no-untyped-call]
        else:
            hot = _chosen(logits, noise, temperature)
        return hot.flatten(-2)

    def slopes(self, outputs: Tensor, noise: Tensor | None) -> Tensor:
        """Probabilities `(T, B, groups, classes)`; see `Latents.slopes`."""
        return _softmax(self._grouped(outputs))

    def pull(self, grad: Tensor, slope: Tensor, of_sample: Tensor) -> None:
        """As if the sample were the probabilities; see `Latents.pull`."""
        grad.view(slope.shape).add_(_through(slope, of_sample.view(slope.shape)))

    def divergence(self, outputs: Tensor, others: Tensor) -> Tensor:
        """A sum over groups; see `Latents.divergence`."""
        logits = self._grouped(outputs), self._grouped(others)
        found: Tensor = _Divergence.apply(*logits)  # type: ignore[no-untyped-call]
        return found

    def probabilities(self, outputs: Tensor) -> Tensor:
        """`(..., groups, classes)`."""
        return _mixed(_softmax(self._grouped(outputs)))

    def _grouped(self, outputs: Tensor) -> Tensor:
        return outputs.view(*outputs.shape[:-1], self.groups, self.classes)


class _Choice(torch.autograd.Function):
    """One-hot classes, with the gradient of their probabilities."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, noise: Tensor | None, temperature: float) -> Tensor:
        ctx.save_for_backward(logits)
        return _chosen(logits, noise, temperature)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (logits,) = ctx.saved_tensors
        return _through(_softmax(logits), grad), None, None


class _Divergence(torch.autograd.Function):
    """Divergence between mixed distributions: autograd is far slower."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, others: Tensor) -> Tensor:
        p, q = _softmax(logits), _softmax(others)
        mixed, mixed_q = _mixed(p), _mixed(q)
        ratio = mixed / mixed_q
        apart = ratio.log()
        ctx.save_for_backward(p, q, ratio, apart)
        return (mixed * apart).sum((-2, -1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        p, q, ratio, apart = ctx.saved_tensors
        grad = grad[..., None, None]
        # The derivative for a probability is apart + 1; constants do not affect logits.
        return _through(p, grad * apart), _through(q, -grad * ratio)


def _chosen(logits: Tensor, noise: Tensor | None, temperature: float) -> Tensor:
    """Classes, one-hot, `(..., groups, classes)`."""
    if noise is None or temperature == 0:
        likeliest = logits.max(-1, keepdim=True).indices  # argmax takes twice as long
        return torch.zeros_like(logits).scatter_(-1, likeliest, 1.0)
    weights = (logits - logits.amax(-1, keepdim=True)).exp_()
    if temperature != 1:
        q = _mixed(weights / weights.sum(-1, keepdim=True))
        weights = (q / q.amax(-1, keepdim=True)) ** (1 / temperature)
        noise = noise[..., :1] * (1 - UNIFORM) + UNIFORM / logits.shape[-1]  # the draw itself
    # The inverse of the distribution function; the last class takes the rest up to 1.
    reached = weights.cumsum(-1)
    passed = logits.new_zeros(*logits.shape[:-1], logits.shape[-1] + 1)
    passed[..., 0] = 1.0
    torch.le(reached[..., :-1], noise * reached[..., -1:], out=passed[..., 1:-1])
    return passed[..., :-1] - passed[..., 1:]


def _softmax(logits: Tensor) -> Tensor:
    """Over the last axis; PyTorch's own takes five times as long where classes are few."""
    e = (logits - logits.detach().amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


def _mixed(p: Tensor) -> Tensor:
    """Probabilities of classes, mixed with a uniform distribution."""
    return p * (1 - UNIFORM) + UNIFORM / p.shape[-1]


def _through(p: Tensor, grad: Tensor) -> Tensor:
    """The logits' gradient of that for the mixed probabilities, given the ones before mixing."""
    part = p * ((1 - UNIFORM) * grad)
    return torch.addcmul(part, p, part.sum(-1, keepdim=True), value=-1)
