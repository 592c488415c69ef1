"""Recurrent encoders: simple, GRU and LSTM."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.networks.encoders.contract import HiddenState
from rlkit.networks.encoders.encoder import Encoder, Randomness, Shapes, Views
from rlkit.networks.encoders.kernels import GruScan, RnnScan, scan_lstm
from rlkit.networks.encoders.layers import dropout, layer_norm
from rlkit.networks.fields import require


@dataclass(frozen=True)
class Recurrent(Encoder):
    """Layers of a recurrent cell; what the three have in common.

    Recurrent weights start orthogonal, gate by gate, and biases at zero (Ni et al. 2022 find
    PyTorch's uniform start unsuitable for reinforcement learning); input weights are uniform
    within one over the root of the fan-in, so that a few inputs have a weight beside the state.

    Attributes:
        hidden: Width of the state and of the features, >= 1.
        layers: Cells stacked on each other, >= 1.
        layer_norm: Whether the features are normalised (Ba et al. 2016), with a learned scale and
            shift. The state itself is not.
        dropout: Share of the features between stacked layers that is dropped in training, in
            [0, 1).
        inputs: Width of one input; set by `with_inputs`.

    Raises:
        ValueError: If a field is out of its range, or `dropout` has no layers to act between.
    """

    hidden: int = 64
    layers: int = 1
    layer_norm: bool = False
    dropout: float = 0.0
    inputs: int = 0

    gates: ClassVar[int]
    states: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self._require_fields(between_layers=True)

    def shapes(self) -> Shapes:
        """Name and shape of every parameter, in the flat vector's order."""
        shapes: Shapes = {}
        width, rows = self.inputs, self.gates * self.hidden
        for i in range(self.layers):
            shapes[f"{i}.input.weight"] = (rows, width)
            shapes[f"{i}.recurrent.weight"] = (rows, self.hidden)
            shapes[f"{i}.bias"] = (rows,)
            shapes |= self._further_shapes(i)
            width = self.hidden
        if self.layer_norm:
            shapes["norm.scale"] = shapes["norm.shift"] = (self.hidden,)
        return shapes

    def fill(self, views: Views, generator: torch.Generator) -> None:
        """Fresh values: orthogonal recurrent weights, uniform input weights, zero biases."""
        for name, view in views.items():
            if name.endswith("recurrent.weight"):
                for gate in torch.split(view, self.hidden):
                    torch.nn.init.orthogonal_(gate, generator=generator)
            elif name.endswith("input.weight"):
                bound = 1 / math.sqrt(max(view.shape[1], 1))
                view.uniform_(-bound, bound, generator=generator)
            else:
                view.fill_(1.0 if name == "norm.scale" else 0.0)

    def initial(self, count: int, device: torch.device | str = "cpu") -> HiddenState:
        """Hidden state of `count` fresh episodes: states `(B, H)` of each layer in turn, zero."""
        number = self.layers * self.states
        return tuple(torch.zeros(count, self.hidden, device=device) for _ in range(number))

    def _step(
        self, p: Views, x: Tensor, before: HiddenState, is_first: Tensor
    ) -> tuple[Tensor, HiddenState]:
        fresh, after = is_first.unsqueeze(1), []
        for i in range(self.layers):
            states = before[i * self.states : (i + 1) * self.states]
            after += self._next(p, i, x, [state.masked_fill(fresh, 0.0) for state in states])
            x = after[-self.states]
        return self._normalise(p, x), tuple(after)

    def _scan(
        self, p: Views, x: Tensor, before: HiddenState, is_first: Tensor, generator: Randomness
    ) -> tuple[Tensor, HiddenState]:
        x, first, after = x.transpose(0, 1), is_first.t(), []
        for i in range(self.layers):
            if i > 0:
                x = dropout(x, self.dropout, generator)
            states = before[i * self.states : (i + 1) * self.states]
            x, states = self._window(p, i, x, states, first)
            after += [state.detach() for state in states]
        return self._normalise(p, x).transpose(0, 1), tuple(after)

    def _normalise(self, p: Views, x: Tensor) -> Tensor:
        return layer_norm(p, "norm", x) if self.layer_norm else x

    def _further_shapes(self, layer: int) -> Shapes:
        """Parameters of a layer that only this cell has."""
        return {}

    @abstractmethod
    def _next(self, p: Views, i: int, x: Tensor, before: list[Tensor]) -> list[Tensor]:
        """States of layer i `(B, H)` after inputs `(B, I)`; the first is the output."""

    @abstractmethod
    def _window(
        self, p: Views, i: int, x: Tensor, before: HiddenState, first: Tensor
    ) -> tuple[Tensor, HiddenState]:
        """Outputs of layer i `(T, B, H)` for inputs `(T, B, I)`, and the last states."""


@dataclass(frozen=True)
class RNN(Recurrent):
    """The simple recurrent network: h' = tanh(W x + b + U h).

    Source: Elman 1990.
    """

    gates: ClassVar[int] = 1

    def _next(self, p: Views, i: int, x: Tensor, before: list[Tensor]) -> list[Tensor]:
        weight, recurrent, bias = _weights(p, i)
        return [torch.addmm(F.linear(x, weight, bias), before[0], recurrent.t()).tanh()]

    def _window(
        self, p: Views, i: int, x: Tensor, before: HiddenState, first: Tensor
    ) -> tuple[Tensor, HiddenState]:
        y: Tensor = RnnScan.apply(x, *_weights(p, i), *before, first)  # type: ignore[no-untyped-call]
        return y, (y[-1].clone(),)


@dataclass(frozen=True)
class Gated(Recurrent):
    """A recurrent cell whose second gate keeps the state.

    Source: `time_scale` after Tallec and Ollivier 2018, section 2.2, with scales spread evenly over
    their logarithm.

    Attributes:
        time_scale: Longest time scale before training, in steps, > 2: the gates' biases spread the
            units' time scales from 2 steps up to it. None leaves the biases to the cell; states
            then decay within a few steps until training has opened the gates.
    """

    time_scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.time_scale is not None:
            require(self, "time_scale", self.time_scale > 2, "more than 2 steps")

    def fill(self, views: Views, generator: torch.Generator) -> None:
        """Fresh values, with gates opened according to `time_scale`."""
        super().fill(views, generator)
        for i in range(self.layers):
            first, keep, *_ = torch.split(views[f"{i}.bias"], self.hidden)
            if self.time_scale is not None:
                keep.uniform_(0.0, math.log(self.time_scale - 1), generator=generator)
            self._fill_gates(first, keep)

    def _fill_gates(self, first: Tensor, keep: Tensor) -> None:
        """Sets biases `(H,)` of the first gate and of the one that keeps, where a cell needs it."""


@dataclass(frozen=True)
class GRU(Gated):
    """Gated recurrent units, torch.nn.GRU's variant: h' = n + z (h - n).

    Beside the bias of r, z and n there is the candidate's own, inside the reset gate.

    Source: Cho et al. 2014.
    """

    gates: ClassVar[int] = 3

    def _further_shapes(self, layer: int) -> Shapes:
        return {f"{layer}.recurrent.bias": (self.hidden,)}

    def _next(self, p: Views, i: int, x: Tensor, before: list[Tensor]) -> list[Tensor]:
        weight, recurrent, bias = _weights(p, i)
        second = F.pad(p[f"{i}.recurrent.bias"], (2 * self.hidden, 0))
        return [torch.gru_cell(x, before[0], weight, recurrent, bias, second)]

    def _window(
        self, p: Views, i: int, x: Tensor, before: HiddenState, first: Tensor
    ) -> tuple[Tensor, HiddenState]:
        weights = *_weights(p, i), p[f"{i}.recurrent.bias"]
        y: Tensor = GruScan.apply(x, *weights, *before, first)  # type: ignore[no-untyped-call]
        return y, (y[-1].clone(),)


@dataclass(frozen=True)
class LSTM(Gated):
    """Long short-term memory, torch.nn.LSTM's variant; the hidden state is h and c of each layer.

    Without a `time_scale` the forget gate's bias starts at one instead of zero, so that a fresh
    network keeps its state (Jozefowicz et al. 2015, section 2.1). With one, units that keep their
    state longer read inputs more slowly: the input gate's bias is minus the forget gate's.

    Source: Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000.
    """

    gates: ClassVar[int] = 4
    states: ClassVar[int] = 2

    def _fill_gates(self, first: Tensor, keep: Tensor) -> None:
        if self.time_scale is None:
            keep.fill_(1.0)
        else:
            first.copy_(-keep)

    def _next(self, p: Views, i: int, x: Tensor, before: list[Tensor]) -> list[Tensor]:
        return list(torch.lstm_cell(x, before, *_weights(p, i)))

    def _window(
        self, p: Views, i: int, x: Tensor, before: HiddenState, first: Tensor
    ) -> tuple[Tensor, HiddenState]:
        weights = _weights(p, i)
        second = torch.zeros_like(weights[-1])
        y, h, c = scan_lstm(x, [*weights, second], before[0], before[1], first)
        return y, (h, c)


def _weights(p: Views, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    return p[f"{layer}.input.weight"], p[f"{layer}.recurrent.weight"], p[f"{layer}.bias"]
