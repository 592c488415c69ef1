"""The base class of our encoders, and layers that several of them use."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.networks import Parametric
from rlkit.networks.encoders.contract import HiddenState
from rlkit.networks.fields import require

Views = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
Randomness = torch.Generator | None
"""Source of dropout; None switches dropout off."""


class Encoder(Parametric):
    """What our encoders share: dataclasses with a width of features and one of inputs.

    `step` and `scan` are those of the contract. An encoder computes them in `_step` and `_scan`,
    which get the named parameters; the hidden state needs no detaching there.
    """

    hidden: int
    inputs: int

    @property
    def features(self) -> int:
        """D, the width of one output."""
        return self.hidden

    def with_inputs(self, inputs: int) -> Self:
        """The same encoder for inputs of a width."""
        changed: Self = replace(self, inputs=inputs)  # type: ignore[type-var]
        return changed

    def step(
        self, vector: Tensor, x: Tensor, hidden_state: HiddenState, is_first: Tensor
    ) -> tuple[Tensor, HiddenState]:
        """One step, for acting; see `SequenceEncoder.step`."""
        self._require_width(x)
        return self._step(self.views(vector), x, hidden_state, is_first)

    def scan(
        self,
        vector: Tensor,
        x: Tensor,
        hidden_state: HiddenState,
        is_first: Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, HiddenState]:
        """A window of steps, for learning; see `SequenceEncoder.scan`."""
        self._require_width(x)
        before = tuple(part.detach() for part in hidden_state)
        y, after = self._scan(self.views(vector), x, before, is_first, generator)
        return y, tuple(part.detach() for part in after)

    @abstractmethod
    def _step(
        self, p: Views, x: Tensor, before: HiddenState, is_first: Tensor
    ) -> tuple[Tensor, HiddenState]:
        """Features `(B, D)` of inputs `(B, I)`, and the hidden state after them."""

    @abstractmethod
    def _scan(
        self, p: Views, x: Tensor, before: HiddenState, is_first: Tensor, generator: Randomness
    ) -> tuple[Tensor, HiddenState]:
        """Features `(B, T, D)` of inputs `(B, T, I)`, and the hidden state after them."""

    def _require_width(self, x: Tensor) -> None:
        if x.shape[-1] != self.inputs:
            raise ValueError(
                f"inputs have width {x.shape[-1]}, {type(self).__name__} is configured for "
                f"{self.inputs}: use encoder.with_inputs({x.shape[-1]})"
            )


def residual_shapes(inputs: int, width: int) -> Shapes:
    """Shapes of the affine layer that leads inputs to the width of residual blocks."""
    return {"input.weight": (inputs, width), "input.bias": (width,)}


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


def require_dropout(owner: object, rate: float) -> None:
    """Raises a ValueError unless a dropout rate is in [0, 1)."""
    good = isinstance(rate, (int, float)) and 0 <= rate < 1
    require(owner, "dropout", good, "in [0, 1)")


def require_dropout_between(owner: object, rate: float, layers: int) -> None:
    """Raises a ValueError unless a dropout rate is in [0, 1) and has layers to act between."""
    require_dropout(owner, rate)
    if rate > 0 and layers == 1:
        raise ValueError(
            f"{type(owner).__name__}: dropout = {rate} acts between layers and there is only one; "
            f"set layers = 2 or more, or dropout = 0"
        )


def require_time_scale(owner: object, time_scale: float) -> None:
    """Raises a ValueError unless the longest time scale is more than 2 steps."""
    # A half-open gate keeps 2 steps.
    require(owner, "time_scale", time_scale > 2, "more than 2 steps")
