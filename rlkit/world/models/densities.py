"""Distributions of a prediction's columns: normal ones, and Bernoulli ones for binary outcomes.

A network gives a mean and a deviation of every column; of binary columns the mean is a logit and
the deviation is not read. `binary (F + K,)` marks these columns; None where there are none.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def normal(mean: Tensor, scale: Tensor, generator: torch.Generator, temperature: float) -> Tensor:
    """Samples of normal distributions; a temperature scales their deviation, 0 gives the mean."""
    if temperature == 0:
        return mean
    noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean.device)
    return torch.addcmul(mean, noise, scale, value=temperature)


def sample(
    mean: Tensor,
    scale: Tensor,
    binary: Tensor | None,
    generator: torch.Generator,
    temperature: float,
) -> Tensor:
    """Samples of all columns; binary ones are 0 or 1, their gradient that of the probability."""
    drawn = normal(mean, scale, generator, temperature)
    if binary is None:
        return drawn
    p = mean.sigmoid()
    if temperature == 0:
        one = p > 0.5
    else:
        draw = torch.rand(mean.shape, generator=generator, device=generator.device).to(mean.device)
        one = draw < (mean / temperature).sigmoid()
    return torch.where(binary, one.float() + (p - p.detach()), drawn)


def moments(mean: Tensor, scale: Tensor, binary: Tensor | None) -> tuple[Tensor, Tensor]:
    """Expectation and standard deviation of all columns."""
    if binary is None:
        return mean, scale
    p = mean.sigmoid()
    return torch.where(binary, p, mean), torch.where(binary, (p * (1 - p)).sqrt(), scale)


def negative_log_likelihood(
    y: Tensor, mean: Tensor, log_scale: Tensor, binary: Tensor | None = None
) -> Tensor:
    """Of each number, in nats; of the shape of its arguments."""
    nll = 0.5 * ((y - mean) * (-log_scale).exp()).square() + log_scale + HALF_LOG_2PI
    if binary is None:
        return nll
    logits, y = mean.expand_as(nll), y.expand_as(nll)
    bernoulli = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
    return torch.where(binary, bernoulli, nll)


def bounded(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Numbers drawn softly between two bounds, with a gradient everywhere.

    Source: Chua et al. 2018, appendix A.1, for the log-variance of a network's output.
    """
    x = high - F.softplus(high - x)
    return low + F.softplus(x - low)
