"""An encoder with a fixed receptive field: causal dilated convolutions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlkit.networks.encoders.contract import HiddenState
from rlkit.networks.encoders.encoder import Encoder, Randomness, Shapes, Views
from rlkit.networks.encoders.layers import dropout, layer_norm, linear, steps_since_reset, tanh
from rlkit.networks.fields import require_whole


@dataclass(frozen=True)
class CausalConv(Encoder):
    """Gated residual blocks of causal convolutions, with the dilation doubling from block to block.

    A block adds `(tanh(f) * sigmoid(g)) W`, where f and g are convolutions of its input. Before an
    episode's first step every block reads zeros, inside a window as at its start.

    Source: van den Oord et al. 2016, "WaveNet: a generative model for raw audio", sections 2.1
    (dilation), 2.3 (gates) and 2.4 (residual blocks). Stepping with the past inputs of each block
    kept: Le Paine et al. 2016, "Fast WaveNet generation algorithm".

    Deviations: the output is the sum on the residual path; separate skip connections
    would double the products of a block for another projection of the same gates. It may be
    normalised at the end.

    Attributes:
        hidden: D, channels of each block and of the features.
        kernel: Taps of each convolution, 2 or more.
        layers: Number of blocks, with dilations 1, 2, 4 and so on.
        layer_norm: Whether the output is normalised.
        dropout: Share of a block's addition that is dropped in training.
        inputs: I, width of one input.
    """

    hidden: int = 64
    kernel: int = 2
    layers: int = 5
    layer_norm: bool = True
    dropout: float = 0.0
    inputs: int = 0

    def __post_init__(self) -> None:
        self._require_fields()
        require_whole(self, 2, "kernel")

    @property
    def receptive_field(self) -> int:
        """Number of steps, this one included, that an output depends on."""
        return 1 + sum(self._reach(i) for i in range(self.layers))

    def shapes(self) -> Shapes:
        """Name and shape of every parameter, in the flat vector's order."""
        d = self.hidden
        shapes = self._input_shapes()
        for i in range(self.layers):
            shapes |= {
                # The taps are stacked, the oldest first.
                f"{i}.filter_and_gate.weight": (self.kernel * d, 2 * d),
                f"{i}.filter_and_gate.bias": (2 * d,),
                f"{i}.residual.weight": (d, d),
                f"{i}.residual.bias": (d,),
            }
        if self.layer_norm:
            shapes["norm.scale"] = shapes["norm.shift"] = (d,)
        return shapes

    def initial(self, count: int, device: torch.device | str = "cpu") -> HiddenState:
        """The past inputs of each block that it reads, `(count, reach, D)`: zeros."""
        return tuple(
            torch.zeros(count, self._reach(i), self.hidden, device=device)
            for i in range(self.layers)
        )

    def _step(
        self, p: Views, x: Tensor, before: HiddenState, is_first: Tensor
    ) -> tuple[Tensor, HiddenState]:
        # Its cost grows with the layers, not with the receptive field.
        x = linear(p, "input", x)
        keep = is_first.logical_not().view(-1, 1, 1).to(x.dtype)
        after = []
        for i, entries in enumerate(before):
            past = torch.cat([entries * keep, x.unsqueeze(1)], dim=1)
            after.append(past[:, 1:])
            # Every dilation-th step, this one included: exactly the taps, the oldest first.
            x = x + self._block(p, i, past[:, :: 2**i].flatten(1))
        return self._output(p, x), tuple(after)

    def _scan(
        self, p: Views, x: Tensor, before: HiddenState, is_first: Tensor, generator: Randomness
    ) -> tuple[Tensor, HiddenState]:
        x = linear(p, "input", x)
        steps, age = x.shape[1], steps_since_reset(is_first).unsqueeze(-1)
        after = []
        for i, entries in enumerate(before):
            past = torch.cat([entries, x], dim=1)
            after.append(_last_of_episode(past.detach(), age[:, -1:], self._reach(i)))
            taps = [
                past[:, self._reach(i) - back :][:, :steps] * (age >= back)
                for back in range(self._reach(i), 0, -(2**i))
            ]
            change = self._block(p, i, torch.cat([*taps, x], dim=-1))
            x = x + dropout(change, self.dropout, generator)
        return self._output(p, x), tuple(after)

    def _reach(self, layer: int) -> int:
        """How many steps the oldest tap of a layer lies back."""
        return int((self.kernel - 1) * 2**layer)

    def _block(self, p: Views, i: int, taps: Tensor) -> Tensor:
        """What a block adds, `(..., kernel * D) -> (..., D)`."""
        filtered, gate = linear(p, f"{i}.filter_and_gate", taps).chunk(2, dim=-1)
        return linear(p, f"{i}.residual", tanh(filtered) * gate.sigmoid())

    def _output(self, p: Views, x: Tensor) -> Tensor:
        return layer_norm(p, "norm", x) if self.layer_norm else x


def _last_of_episode(past: Tensor, age: Tensor, count: int) -> Tensor:
    """The last `count` entries of `past (B, L, D)`, zero where an earlier episode left them.

    Args:
        past: Entries in the order of time, up to now.
        age: Steps since the episode's start, `(B, 1, 1)`.
        count: How many to keep.
    """
    back = torch.arange(count - 1, -1, -1, device=past.device).view(1, -1, 1)
    return past[:, past.shape[1] - count :] * (age >= back)
