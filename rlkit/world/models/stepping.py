"""Single steps of encoders in imagination, with all weights prepared once."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.networks.encoders import GRU, HiddenState, SequenceEncoder

Stepper = Callable[..., tuple[Tensor, HiddenState]]
"""`(hidden_state, *inputs) -> (features, hidden_state)` of n rows; inputs are concatenated."""


def stepper(encoder: SequenceEncoder, vector: Tensor) -> Stepper:
    """Steps of an encoder within an episode; of a single GRU by `gru_stepper`.

    Args:
        encoder: Complete.
        vector: Its parameters.
    """
    if type(encoder) is GRU and encoder.layers == 1 and not encoder.layer_norm:
        p = encoder.views(vector)
        names = ("input.weight", "recurrent.weight", "bias", "recurrent.bias")
        advance = gru_stepper(*(p[f"0.{name}"] for name in names))

        def step(state: HiddenState, *inputs: Tensor) -> tuple[Tensor, HiddenState]:
            h = advance(state[0], *inputs)
            return h, (h,)

        return step

    def any_step(state: HiddenState, *inputs: Tensor) -> tuple[Tensor, HiddenState]:
        x = torch.cat(inputs, 1)
        return encoder.step(vector, x, state, torch.zeros(len(x), dtype=torch.bool).to(x.device))

    return any_step


def gru_stepper(
    weight: Tensor, recurrent: Tensor, bias: Tensor, candidate: Tensor
) -> Callable[..., Tensor]:
    """`(h, *inputs) -> h'` of a GRU, faster than `torch.gru_cell`.

    Gates are one product of inputs and state side by side, and tanh(a) is 2 sigmoid(2a) - 1; many
    rows then need half the memory traffic, which limits the speed.

    Args:
        weight: Of the inputs `(3H, I)`: r, z, n.
        recurrent: Of the state, `(3H, H)`.
        bias: `(3H,)`.
        candidate: The candidate's own bias, inside the reset gate, `(H,)`.
    """
    size, width = len(candidate), weight.shape[1]
    gates, gate_bias = torch.cat([weight, recurrent], 1)[: 2 * size], bias[: 2 * size]
    of_inputs, of_state = 2 * weight[2 * size :], recurrent[2 * size :]
    twice, minus_one = 2 * bias[2 * size :], bias.new_tensor(-1.0)

    def advance(h: Tensor, *inputs: Tensor) -> Tensor:
        joined = torch.cat([*inputs, h], 1)
        r, z = F.linear(joined, gates, gate_bias).sigmoid_().chunk(2, 1)
        inner = F.linear(h, of_state, candidate)
        n = F.linear(joined[:, :width], of_inputs, twice)
        n = torch.addcmul(n, r, inner, value=2).sigmoid_()
        return torch.lerp(torch.add(minus_one, n, alpha=2), h, z)

    return advance
