"""A multi-layer perceptron, or an ensemble of them, as a pure function of one flat vector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.networks.parameters import Parametric

# Columns below which MKL is up to four times faster at the transposed product.
NARROW = 16


@dataclass(frozen=True)
class Mlp(Parametric):
    """ReLU perceptrons that share their inputs.

    The inputs stay separate, because a product per part is cheaper than concatenating them, and
    the gradient for an action then costs nothing for the observation beside it.

    Attributes:
        inputs: Width of each input part.
        hidden: Width of each hidden layer.
        outputs: Width of the output.
        members: Perceptrons in the ensemble, N.
        layer_norm: Whether each hidden layer is normalised before its ReLU (Ba et al. 2016).
    """

    inputs: tuple[int, ...]
    hidden: tuple[int, ...]
    outputs: int
    members: int = 1
    layer_norm: bool = False

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""
        n, width = self.members, sum(self.inputs)
        shapes: dict[str, tuple[int, ...]] = {}
        for i, out in enumerate((*self.hidden, self.outputs)):
            # The first layer of all members is one wide product: they see the same input.
            shapes[f"{i}.weight"] = (width, n * out) if i == 0 else (n, width, out)
            shapes[f"{i}.bias"] = (n, 1, out)
            if self.layer_norm and i < len(self.hidden):
                shapes[f"{i}.norm_scale"] = shapes[f"{i}.norm_shift"] = (n, 1, out)
            width = out
        return shapes

    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """Fresh values, uniform within one over the root of the fan-in."""
        width = sum(self.inputs)
        for name, view in views.items():
            if name.endswith("norm_scale"):
                view.fill_(1.0)
            elif name.endswith("norm_shift"):
                view.zero_()
            else:
                bound = 1 / math.sqrt(max(width, 1))
                view.uniform_(-bound, bound, generator=generator)
            if name.endswith("bias"):
                width = view.shape[-1]

    def __call__(self, vector: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Outputs of every member.

        Args:
            vector: Parameters `(size,)`.
            parts: Inputs `(B, inputs[i])` each; parts of width 0 are skipped.

        Returns:
            `(N, B, outputs)`.
        """
        p = self.views(vector)
        x = self._first(p, parts)
        for i in range(len(self.hidden)):
            if i > 0:
                x = _product(x, p[f"{i}.weight"]) + p[f"{i}.bias"]
            if self.layer_norm:
                x = F.layer_norm(x, x.shape[-1:]) * p[f"{i}.norm_scale"] + p[f"{i}.norm_shift"]
            x = F.relu(x).contiguous()
        if not self.hidden:
            return x
        last = len(self.hidden)
        return _product(x, p[f"{last}.weight"]) + p[f"{last}.bias"]

    def _first(self, p: dict[str, Tensor], parts: Sequence[Tensor]) -> Tensor:
        weights = torch.split(p["0.weight"], list(self.inputs))
        x: Tensor | None = None
        for part, weight in zip(parts, weights, strict=True):
            if part.shape[-1] > 0:
                x = part @ weight if x is None else x + part @ weight
        if x is None:
            raise ValueError(f"a network needs an input of positive width, got {self.inputs}")
        return x.view(len(x), self.members, -1).transpose(0, 1) + p["0.bias"]


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """Batched product `(N, B, I), (N, I, O) -> (N, B, O)`, by the fastest route for the shape."""
    if weight.shape[-1] == 1:
        # A batched matrix-vector product is several times slower than multiplying and summing.
        return (x * weight.transpose(1, 2)).sum(-1, keepdim=True)
    if len(x) == 1 and weight.shape[-1] < NARROW:
        return (weight[0].T @ x[0].T).T.unsqueeze(0)
    if len(x) == 1:
        return (x[0] @ weight[0]).unsqueeze(0)
    return torch.bmm(x, weight)
