"""Encoders whose hidden state is a linear recurrence: minGRU and the linear recurrent unit.

The products with the weights are done for all steps at once; what is left to do step by step is
`h = decay * h + x`, one operation each.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.networks.encoders.contract import HiddenState
from rlkit.networks.encoders.encoder import Encoder, Randomness, Shapes, Views
from rlkit.networks.encoders.kernels import linear_scan
from rlkit.networks.encoders.layers import dropout, layer_norm, linear, tanh
from rlkit.networks.fields import require

Recurrence = Callable[[Tensor, Tensor, Tensor], Tensor]
"""States for decays, inputs and the state before; episodes that begin reset it."""


def _keep(x: Tensor, is_first: Tensor) -> Tensor:
    """0 where an episode begins and 1 elsewhere, `(B, ..., 1)`."""
    return is_first.logical_not().unsqueeze(-1).to(x.dtype)


class LinearRecurrent(Encoder):
    """An encoder of layers whose states follow a linear recurrence."""

    def _step(
        self, p: Views, x: Tensor, before: HiddenState, is_first: Tensor
    ) -> tuple[Tensor, HiddenState]:
        keep = _keep(x, is_first)

        def recur(decay: Tensor, x: Tensor, start: Tensor) -> Tensor:
            return torch.addcmul(x, decay * keep, start)

        y, states = self._layers(p, x, before, recur, None)
        return y, self._stored(states)

    def _scan(
        self, p: Views, x: Tensor, before: HiddenState, is_first: Tensor, generator: Randomness
    ) -> tuple[Tensor, HiddenState]:
        keep = _keep(x, is_first)

        def recur(decay: Tensor, x: Tensor, start: Tensor) -> Tensor:
            return linear_scan(decay * keep, x, start)

        y, states = self._layers(p, x, before, recur, generator)
        return y, self._stored([h[:, -1] for h in states])

    @abstractmethod
    def _layers(
        self, p: Views, x: Tensor, before: HiddenState, recur: Recurrence, generator: Randomness
    ) -> tuple[Tensor, list[Tensor]]:
        """Features `(B, ..., D)` of inputs `(B, ..., I)`, and each layer's states `(B, ..., D)`."""

    def _stored(self, states: list[Tensor]) -> HiddenState:
        """The hidden state that keeps the last states `(B, D)` of the layers."""
        return tuple(h.clone() for h in states)


@dataclass(frozen=True)
class MinGRU(LinearRecurrent):
    """A GRU whose gate and candidate read the input only, so that its recurrence is linear.

    `h = (1 - z) * h + z * tanh(c)` with `z = sigmoid(x W_z + b_z)` and `c = x W_c + b_c`. Layers
    after the first read the features of the one before and add to them: the state of one layer
    controls the gates of the next.

    Source: Feng et al. 2024, "Were RNNs all we needed?", section 3.1.

    Deviations: the candidate passes tanh, which bounds the state (the paper has it linear, or
    positive for its scan in logarithms, which this one does without); gates start with the time
    scales of Tallec and Ollivier 2018, "Can recurrent neural networks warp time?", section 2,
    spread evenly over their logarithm.

    Attributes:
        hidden: D, width of hidden state and features.
        layers: Number of layers.
        layer_norm: Whether each layer's state is normalised before it is read.
        dropout: Share of a layer's features that is dropped for the next layer in training.
        time_scale: Longest time scale before training, in steps.
        inputs: I, width of one input.
    """

    hidden: int = 64
    layers: int = 2
    layer_norm: bool = True
    dropout: float = 0.0
    time_scale: float = 64.0
    inputs: int = 0

    def __post_init__(self) -> None:
        self._require_fields(between_layers=True)
        # A half-open gate keeps 2 steps.
        require(self, "time_scale", self.time_scale > 2, "more than 2 steps")

    def shapes(self) -> Shapes:
        """Name and shape of every parameter, in the flat vector's order."""
        shapes: Shapes = {}
        for i in range(self.layers):
            width = self.inputs if i == 0 else self.hidden
            shapes[f"{i}.gate_and_candidate.weight"] = (width, 2 * self.hidden)
            shapes[f"{i}.gate_and_candidate.bias"] = (2 * self.hidden,)
            if self.layer_norm:
                shapes[f"{i}.norm.scale"] = shapes[f"{i}.norm.shift"] = (self.hidden,)
        return shapes

    def fill(self, views: Views, generator: torch.Generator) -> None:
        """Fresh values; a gate of 1 / (1 + s) has a time scale of 1 + s steps."""
        super().fill(views, generator)
        for i in range(self.layers):
            gate = views[f"{i}.gate_and_candidate.bias"][: self.hidden]
            gate.uniform_(-math.log(self.time_scale - 1), 0.0, generator=generator)

    def initial(self, count: int, device: torch.device | str = "cpu") -> HiddenState:
        """The state of each layer, `(count, D)`, at zero."""
        return tuple(torch.zeros(count, self.hidden, device=device) for _ in range(self.layers))

    def _layers(
        self, p: Views, x: Tensor, before: HiddenState, recur: Recurrence, generator: Randomness
    ) -> tuple[Tensor, list[Tensor]]:
        states = []
        for i, start in enumerate(before):
            gate, candidate = linear(p, f"{i}.gate_and_candidate", x).chunk(2, dim=-1)
            z = gate.sigmoid()
            h = recur(1 - z, z * tanh(candidate), start)
            states.append(h)
            y = layer_norm(p, f"{i}.norm", h) if self.layer_norm else h
            y = y if i == 0 else x + y
            x = dropout(y, self.dropout, generator) if i < self.layers - 1 else y
        return x, states


@dataclass(frozen=True)
class LRU(LinearRecurrent):
    """Linear recurrent units: diagonal complex recurrences, then gated layers, in residual blocks.

    `h = lambda * h + gamma * B u` with `lambda = exp(-exp(nu) + i exp(theta))`, read out as
    `Re(C h) + d * u`. The modulus of lambda stays below 1 whatever the parameters are, so that no
    state can explode.

    Source: Orvieto et al. 2023, "Resurrecting recurrent neural networks for long sequences":
    figure 1 (blocks), lemma 3.2 (ring), section 3.3 (exponential form), equation 7 (gamma).

    Deviations: none in the unit; blocks normalise each step by itself (layer norm, not batch norm,
    which would mix rows and read the future).

    Attributes:
        hidden: D, width of the features, and number of complex states per layer.
        layers: Number of blocks.
        slowest: Largest modulus of lambda at the start, in (0, 1), for a time scale of about
            `1 / (1 - slowest)` steps.
        fastest: Smallest modulus of lambda at the start, in [0, slowest).
        phase: Largest angle of lambda at the start, in radians per step.
        dropout: Share of a block's output that is dropped in training.
        inputs: I, width of one input.
    """

    hidden: int = 64
    layers: int = 1
    slowest: float = 0.99
    fastest: float = 0.5
    phase: float = math.pi / 10
    dropout: float = 0.0
    inputs: int = 0

    def __post_init__(self) -> None:
        self._require_fields()
        if not 0 <= self.fastest < self.slowest < 1:
            raise ValueError(
                "LRU: moduli must satisfy 0 <= fastest < slowest < 1, got "
                f"fastest = {self.fastest!r} and slowest = {self.slowest!r}"
            )
        if not 0 < self.phase <= 2 * math.pi:
            raise ValueError(
                f"LRU: phase must be in (0, 2 pi] radians per step, got {self.phase!r}"
            )

    def shapes(self) -> Shapes:
        """Name and shape of every parameter, in the flat vector's order."""
        d = self.hidden
        shapes = self._input_shapes()
        for i in range(self.layers):
            shapes |= {
                f"{i}.norm.scale": (d,),
                f"{i}.norm.shift": (d,),
                f"{i}.nu": (d,),
                f"{i}.theta": (d,),
                f"{i}.log_gamma": (d,),
                # Real and imaginary parts alternate: products yield complex numbers as they are.
                f"{i}.write.weight": (d, 2 * d),
                f"{i}.read.weight": (2 * d, d),
                f"{i}.skip": (d,),
                f"{i}.gate.weight": (d, 2 * d),
                f"{i}.gate.bias": (2 * d,),
            }
        return shapes

    def fill(self, views: Views, generator: torch.Generator) -> None:
        """Fresh values; lambda is uniform on a sector of a ring (lemma 3.2)."""
        super().fill(views, generator)
        low, high = self.fastest**2, self.slowest**2
        for i in range(self.layers):
            area, angle = torch.rand(2, self.hidden, generator=generator).clamp_(min=1e-6)
            squared = area * (high - low) + low
            views[f"{i}.nu"].copy_((-0.5 * squared.log()).log())
            views[f"{i}.theta"].copy_((angle * self.phase).log())
            views[f"{i}.log_gamma"].copy_(0.5 * (1 - squared).log())
            views[f"{i}.write.weight"].mul_(math.sqrt(0.5))
            views[f"{i}.skip"].normal_(generator=generator)

    def initial(self, count: int, device: torch.device | str = "cpu") -> HiddenState:
        """Real and imaginary state of each layer in turn, `(count, D)`, at zero."""
        return tuple(torch.zeros(count, self.hidden, device=device) for _ in range(2 * self.layers))

    def _stored(self, states: list[Tensor]) -> HiddenState:
        return tuple(part.clone() for h in states for part in (h.real, h.imag))

    def _layers(
        self, p: Views, x: Tensor, before: HiddenState, recur: Recurrence, generator: Randomness
    ) -> tuple[Tensor, list[Tensor]]:
        x = linear(p, "input", x)
        states = []
        for i in range(self.layers):
            u = layer_norm(p, f"{i}.norm", x)
            decay = torch.polar((-p[f"{i}.nu"].exp()).exp(), p[f"{i}.theta"].exp())
            gain = p[f"{i}.log_gamma"].exp().repeat_interleave(2)
            written = (u @ (p[f"{i}.write.weight"] * gain)).view(*u.shape, 2)
            start = torch.complex(before[2 * i], before[2 * i + 1])
            h = recur(decay, torch.view_as_complex(written), start)
            states.append(h)
            y = torch.view_as_real(h).flatten(-2) @ p[f"{i}.read.weight"] + p[f"{i}.skip"] * u
            y = F.glu(linear(p, f"{i}.gate", F.gelu(y)))
            x = x + dropout(y, self.dropout, generator)
        return x, states
