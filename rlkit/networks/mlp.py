"""Named parameters in one flat vector, multi-layer perceptrons of them, and input normalisation."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rlkit.networks.torch_classes import activation_function

# Columns below which MKL is up to four times faster at the transposed product.
NARROW = 16


class Parametric(ABC):
    """A function of one flat parameter vector; holds shapes, never the parameters.

    One contiguous vector per network makes the optimiser, the target average and a checkpoint one
    operation each, whatever the depth. What follows from the shapes is computed once per object,
    so that an object's fields must not change.
    """

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""

    @abstractmethod
    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """Writes fresh values into the named parameters."""

    @cached_property
    def _parts(self) -> tuple[list[int], list[tuple[str, tuple[int, ...]]]]:
        """Length of each parameter in the vector, and its name and shape."""
        shapes = self.shapes()
        return [math.prod(shape) for shape in shapes.values()], list(shapes.items())

    @cached_property
    def size(self) -> int:
        """Length of the flat vector."""
        return sum(self._parts[0])

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """The named parameters inside a flat vector `(size,)`; they are views of it."""
        lengths, named = self._parts
        parts = torch.split(vector, lengths)
        return {name: part.view(shape) for (name, shape), part in zip(named, parts, strict=True)}

    def initial_parameters(self, generator: torch.Generator) -> Tensor:
        """A fresh parameter vector `(size,)`."""
        vector = torch.empty(self.size)
        self.fill(self.views(vector), generator)
        return vector


def part_of(views: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """The parameters whose names begin with a part's, without it."""
    return {
        name.removeprefix(f"{part}."): view
        for name, view in views.items()
        if name.startswith(f"{part}.")
    }


@dataclass(frozen=True)
class Mlp(Parametric):
    """Perceptrons that share their inputs.

    The inputs stay separate, because a product per part is cheaper than concatenating them, and
    the gradient for an action then costs nothing for the observation beside it.

    Attributes:
        inputs: Width of each input part.
        hidden: Width of each hidden layer.
        outputs: Width of the output.
        members: Perceptrons in the ensemble, N.
        layer_norm: Whether each hidden layer is normalised before its activation (Ba et al. 2016).
        activation: A class of `torch.nn`, see `rlkit.networks.torch_classes`.
        fourier: Width of learned Fourier features of all inputs together, sines and cosines, which
            the first layer reads beside the inputs; 0 for none. Each member has its own (Li and
            Pathak 2021, "Functional Regularization for Reinforcement Learning via Learned Fourier
            Features", section 3).
        fourier_scale: Deviation of their frequencies to start from, in turns per unit of an input.
    """

    inputs: tuple[int, ...]
    hidden: tuple[int, ...]
    outputs: int
    members: int = 1
    layer_norm: bool = False
    activation: str | type[Any] = "relu"
    fourier: int = 0
    fourier_scale: float = 0.001

    def __post_init__(self) -> None:
        """Finds the activation, which a compiled graph could not."""
        _ = self.activate

    @cached_property
    def activate(self) -> Any:
        """The activation, a function of a tensor."""
        return F.relu if self.activation == "relu" else activation_function(self.activation)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""
        n, width = self.members, sum(self.inputs)
        shapes: dict[str, tuple[int, ...]] = {}
        if self.fourier:
            shapes["fourier.frequencies"] = (width, n * self.fourier // 2)
            shapes["fourier.weight"] = (n, self.fourier, (*self.hidden, self.outputs)[0])
        for i, out in enumerate((*self.hidden, self.outputs)):
            # The first layer of all members is one wide product: they read the same input.
            shapes[f"{i}.weight"] = (width, n * out) if i == 0 else (n, width, out)
            shapes[f"{i}.bias"] = (n, 1, out)
            if self.layer_norm and i < len(self.hidden):
                shapes[f"{i}.norm_scale"] = shapes[f"{i}.norm_shift"] = (n, 1, out)
            width = out
        return shapes

    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """Fresh values, uniform within one over the root of the fan-in; normal frequencies."""
        width = sum(self.inputs) + self.fourier
        for name, view in views.items():
            if name.endswith("frequencies"):
                view.normal_(0, self.fourier_scale, generator=generator)
            elif name.endswith("norm_scale"):
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
            x = self.activate(x).contiguous()
        if not self.hidden:
            return x
        last = len(self.hidden)
        return _product(x, p[f"{last}.weight"]) + p[f"{last}.bias"]

    def _first(self, p: dict[str, Tensor], parts: Sequence[Tensor]) -> Tensor:
        x = self._by_member(p["0.weight"], parts) + p["0.bias"]
        if self.fourier:
            angle = 2 * math.pi * self._by_member(p["fourier.frequencies"], parts)
            features = torch.cat([angle.sin(), angle.cos()], dim=-1)
            x = x + _product(features, p["fourier.weight"])
        return x

    def _by_member(self, weight: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Products `(N, B, O)` of all inputs with one weight `(I, N O)` for all members."""
        weights = torch.split(weight, list(self.inputs))
        x: Tensor | None = None
        for part, own, width in zip(parts, weights, self.inputs, strict=True):
            if width > 0:
                x = part @ own if x is None else x + part @ own
        if x is None:
            raise ValueError(f"a network needs an input of positive width, got {self.inputs}")
        # Not by the number of rows, which a traced network must leave open.
        return x.view(-1, self.members, weight.shape[-1] // self.members).transpose(0, 1)


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


class Normaliser:
    """Scales a vector by its running mean and standard deviation, clipped.

    The moments are kept in float64. They follow the data as collected, not relabelled goals.

    Source: Chan, Golub and LeVeque 1983 for merging moments; clipping at 5 deviations as in the
    HER baselines (Plappert et al. 2018, appendix).

    Args:
        size: Width of the vector.
        device: Where `scale` is computed.
        enabled: If False the scaling stays the identity.
    """

    CLIP = 5.0

    def __init__(self, size: int, device: torch.device | str = "cpu", enabled: bool = True) -> None:
        self.enabled = enabled
        self.count = 0.0
        self._mean = np.zeros(size)
        self._square = np.zeros(size)  # sum of squared deviations
        self.shift = torch.zeros(size, device=device)
        self.scale = torch.ones(size, device=device)

    def observe(self, rows: NDArray[np.floating[Any]]) -> None:
        """Includes rows `(N, size)` in the moments."""
        if not self.enabled or self._mean.size == 0:
            return
        count = len(rows)
        mean = rows.mean(axis=0, dtype=np.float64)
        difference = mean - self._mean
        total = self.count + count
        self._mean = self._mean + difference * (count / total)
        self._square = (
            self._square
            + ((rows - mean) ** 2).sum(axis=0)
            + difference**2 * (self.count * count / total)
        )
        self.count = total
        self._publish()

    def _publish(self) -> None:
        deviation = np.sqrt(self._square / max(self.count, 1.0))
        # Bounded, because dividing a constant input by its rounding noise would blow it up.
        scale = 1.0 / np.maximum(deviation, 1e-2)
        self.shift.copy_(torch.from_numpy(self._mean))
        self.scale.copy_(torch.from_numpy(scale))

    def state_dict(self) -> dict[str, Any]:
        """The moments."""
        return {"count": self.count, "mean": self._mean.copy(), "square": self._square.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the moments; `shift` and `scale` are part of the weights."""
        self.count = float(state["count"])
        self._mean = np.array(state["mean"], np.float64)
        self._square = np.array(state["square"], np.float64)


def normalise(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """`x` in deviations from its mean, `(..., size)`, clipped."""
    return ((x - shift) * scale).clamp(-Normaliser.CLIP, Normaliser.CLIP)
