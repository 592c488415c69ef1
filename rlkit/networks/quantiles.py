"""Distributions of returns as quantiles.

Source: Kuznetsov et al. 2020, "Controlling Overestimation Bias with Truncated Mixture of Continuous
Distributional Quantile Critics".
"""

from __future__ import annotations

import torch
from torch import Tensor


def lowest_quantiles(quantiles: Tensor, dropped: int) -> Tensor:
    """The quantiles of all critics in one distribution, without the highest ones (section 4.2).

    Args:
        quantiles: Of N critics, `(N, R, M)`.
        dropped: How many to drop per critic, less than M.

    Returns:
        `(R, N (M - dropped))`, ascending.
    """
    members, _, count = quantiles.shape
    pooled = quantiles.transpose(0, 1).flatten(1)
    return pooled.sort(dim=-1).values[:, : members * (count - dropped)]


def quantile_huber(quantiles: Tensor, target: Tensor) -> Tensor:
    """How far quantiles are from those of a sample of targets (equation 9).

    Args:
        quantiles: Of N critics, `(N, R, M)`; the i-th is of the fraction (i + 1/2) / M.
        target: K equally likely values `(R, K)`.

    Returns:
        The mean Huber error over all pairs, weighted by the fractions, `(N, R)`.
    """
    count = quantiles.shape[-1]
    fractions = (torch.arange(count, device=quantiles.device) + 0.5) / count
    error = target.unsqueeze(-2) - quantiles.unsqueeze(-1)
    size = error.abs()
    huber = torch.where(size > 1, size - 0.5, 0.5 * error**2)
    weight = (fractions.unsqueeze(-1) - (error < 0).to(error.dtype)).abs()
    return (weight * huber).mean((-2, -1))
