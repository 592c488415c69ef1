"""Layers that several encoders use."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Views = dict[str, Tensor]


def fill_layers(views: Views, generator: torch.Generator) -> None:
    """Fresh values by name: weights `(in, out)` keep the variance, scales are 1, the rest is 0.

    Source: LeCun et al. 1998, "Efficient BackProp", section 4.6 (variance of one over the fan-in).
    """
    for name, view in views.items():
        if name.endswith("weight"):
            bound = math.sqrt(3 / max(view.shape[0], 1))
            view.uniform_(-bound, bound, generator=generator)
        elif name.endswith("scale"):
            view.fill_(1.0)
        else:
            view.zero_()


def linear(p: Views, name: str, x: Tensor) -> Tensor:
    """`x @ weight + bias` of the layer of a name, `(..., in) -> (..., out)`."""
    return F.linear(x, p[f"{name}.weight"].T, p[f"{name}.bias"])


def layer_norm(p: Views, name: str, x: Tensor) -> Tensor:
    """Normalises the last axis, then scales and shifts it (Ba et al. 2016)."""
    return F.layer_norm(x, x.shape[-1:], p[f"{name}.scale"], p[f"{name}.shift"])


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent, computed from the sigmoid.

    PyTorch's own takes ten times as long as its sigmoid on a CPU. The absolute error stays within
    float32's of 1.
    """
    return 2 * (2 * x).sigmoid() - 1


def dropout(x: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    """Zeroes a share of the entries and scales up the others; nothing without a generator."""
    if generator is None or rate == 0:
        return x
    kept = torch.empty_like(x).bernoulli_(1 - rate, generator=generator)
    return x * kept.div_(1 - rate)


def steps_since_reset(is_first: Tensor) -> Tensor:
    """Steps since the last start of an episode in the window, `(B, T)`; huge before the first."""
    time = torch.arange(is_first.shape[1], device=is_first.device)
    starts = torch.where(is_first.bool(), time, -(2**40))
    return time - starts.cummax(dim=1).values
