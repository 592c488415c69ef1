"""Recurrences over whole windows, with episodes that begin inside them.

On a CPU the calls per step cost as much as the arithmetic, and autograd over a loop makes dozens.
The simple cell, the GRU and the linear recurrence have their gradients written by hand, with one to
six calls per step: what does not depend on the step before is computed for the whole window at
once, in the forward pass the product with the inputs, in the backward pass the derivatives of the
gates and the gradients of the weights. The LSTM is PyTorch's, whose fused kernel is faster than any
loop; the window is cut where episodes begin.

Tensors of the cells are time-major, `(T, B, ...)`, and a gate is a block of columns. Weights are
laid out as in torch.nn, and the results are the same. tanh(a) is computed as 2 sigmoid(2a) - 1:
PyTorch's sigmoid is several times faster, and the absolute error stays that of float32.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Resets = list[Tensor | None]
Gradients = tuple[Tensor | None, ...]


class RnnScan(torch.autograd.Function):
    """h' = tanh(W x + b + U h) over a window."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        recurrent: Tensor,
        bias: Tensor,
        h: Tensor,
        first: Tensor,
    ) -> Tensor:
        """The states after each step.

        Args:
            ctx: What the backward pass needs.
            x: Inputs `(T, B, I)`.
            weight: Of the inputs, `(H, I)`.
            recurrent: Weight of the state, `(H, H)`.
            bias: `(H,)`.
            h: State before the window, `(B, H)`.
            first: Where an episode begins, `(T, B)`.

        Returns:
            `(T, B, H)`.
        """
        x, resets, hs = x.contiguous(), resets_of(first), _states(h, first)
        _project(x, 2 * weight, 2 * bias, hs[1:])
        u, minus_one = (2 * recurrent).t().contiguous(), x.new_tensor(-1.0)
        h, *outs = hs.unbind(0)
        for out, reset in zip(outs, resets, strict=True):
            if reset is not None:
                h = h.masked_fill(reset, 0.0)
            out.addmm_(h, u).sigmoid_()
            h = torch.add(minus_one, out, alpha=2, out=out)
        ctx.save_for_backward(x, weight, recurrent, hs)
        ctx.resets = resets
        return hs[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        """Gradients of the inputs and the weights; none of the state before the window."""
        x, weight, recurrent, hs = ctx.saved_tensors
        # Each block holds a derivative first, and after its step's product the gradient.
        d = torch.addcmul(x.new_tensor(1.0), hs[1:], hs[1:], value=-1)
        g = grad.clone(memory_format=torch.contiguous_format)
        gs, ds = g.unbind(0), d.unbind(0)
        for t in range(len(gs) - 1, 0, -1):
            _pass_on(gs[t - 1], ds[t].mul_(gs[t]), recurrent, ctx.resets[t])
        ds[0].mul_(gs[0])
        wanted = ctx.needs_input_grad[0]
        return (
            d @ weight if wanted else None,
            weight_gradient(d, x),
            weight_gradient(d, _before(hs, ctx.resets)),
            d.sum((0, 1)),
            *(None, None),
        )


class GruScan(torch.autograd.Function):
    """Gates r and z, candidate n = tanh(W x + b + r (U h + c)), h' = n + z (h - n), over a window.

    Source: Cho et al. 2014, in the variant of cuDNN and torch.nn.GRU: the reset gate acts after
    the product with the state.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        recurrent: Tensor,
        bias: Tensor,
        candidate_bias: Tensor,
        h: Tensor,
        first: Tensor,
    ) -> Tensor:
        """The states after each step, `(T, B, H)`.

        As of `RnnScan`, with weights and biases of r, z and n, 3H rows each, and c, `(H,)`.
        """
        size = h.shape[-1]
        x, resets, hs = x.contiguous(), resets_of(first), _states(h, first)
        # Columns U h + c, r, z, n: the state's product and the input's are both one block.
        gates = x.new_empty(*x.shape[:2], 4 * size)
        gates[..., :size] = candidate_bias
        twice = torch.ones_like(bias)
        twice[2 * size :] = 2.0
        _project(x, weight * twice.unsqueeze(1), bias * twice, gates[..., size:])
        u, minus_one = recurrent.roll(size, 0).t().contiguous(), x.new_tensor(-1.0)
        h, *outs = hs.unbind(0)
        products = gates[..., : 3 * size].unbind(0)
        both = gates[..., size : 3 * size].unbind(0)
        inner, r, z, n = (block.unbind(0) for block in gates.chunk(4, -1))
        for t, out in enumerate(outs):
            reset = resets[t]
            if reset is not None:
                h = h.masked_fill(reset, 0.0)
            products[t].addmm_(h, u)
            both[t].sigmoid_()
            candidate = n[t].addcmul_(r[t], inner[t], value=2).sigmoid_()
            torch.add(minus_one, candidate, alpha=2, out=candidate)
            h = torch.lerp(candidate, h, z[t], out=out)
        ctx.save_for_backward(x, weight, recurrent, hs, gates)
        ctx.resets = resets
        return hs[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        """Gradients of the inputs and the weights; none of the state before the window."""
        x, weight, recurrent, hs, gates = ctx.saved_tensors
        size, before = hs.shape[-1], _before(hs, ctx.resets)
        d = gru_derivatives(gates, before)
        u, zs = recurrent.roll(size, 0), gates[..., 2 * size : 3 * size].unbind(0)
        g = grad.clone(memory_format=torch.contiguous_format)
        gs, wide = g.unbind(0), g.unsqueeze(2).unbind(0)
        ds, products = d.view(*d.shape[:2], 4, size).unbind(0), d[..., : 3 * size].unbind(0)
        for t in range(len(gs) - 1, 0, -1):
            ds[t].mul_(wide[t])
            reset = ctx.resets[t]
            if reset is None:
                gs[t - 1].addcmul_(zs[t], gs[t]).addmm_(products[t], u)
            else:
                kept = torch.addmm(zs[t] * gs[t], products[t], u)
                gs[t - 1].add_(kept.masked_fill_(reset, 0.0))
        ds[0].mul_(wide[0])
        inputs, sums = d[..., size:], d.sum((0, 1))
        return (
            inputs @ weight if ctx.needs_input_grad[0] else None,
            weight_gradient(inputs, x),
            weight_gradient(d[..., : 3 * size], before).roll(-size, 0),
            sums[size:],
            sums[:size],
            *(None, None),
        )


def scan_lstm(
    x: Tensor, weights: list[Tensor], h: Tensor, c: Tensor, first: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gates i, f, g, o; c' = f c + i g, h' = o tanh(c'), over a window.

    Source: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.

    Args:
        x: Inputs `(T, B, I)`.
        weights: As torch.nn.LSTM's: of the inputs `(4H, I)`, of the state `(4H, H)`, two biases.
        h: State before the window, `(B, H)`.
        c: Cell state before the window, `(B, H)`.
        first: Where an episode begins, `(T, B)`.

    Returns:
        The states after each step `(T, B, H)`, and both states after the window.
    """
    train = torch.is_grad_enabled()
    h, c = h.unsqueeze(0), c.unsqueeze(0)
    cuts = [0, *(t for t, reset in enumerate(resets_of(first)) if reset is not None), len(first)]
    parts = []
    for start, end in pairwise(cuts):
        reset = first[start].unsqueeze(1)
        states = [h.masked_fill(reset, 0.0), c.masked_fill(reset, 0.0)]
        y, h, c = torch.lstm(x[start:end], states, weights, True, 1, 0.0, train, False, False)
        parts.append(y)
    return parts[0] if len(parts) == 1 else torch.cat(parts), h[0], c[0]


def gru_derivatives(gates: Tensor, before: Tensor) -> Tensor:
    """Derivatives of h' for U h + c, r, z, n before their activation, `(T, B, 4H)`."""
    inner, r, z, n = gates.chunk(4, -1)
    size = before.shape[-1]
    d = torch.empty_like(gates)
    d_inner, d_r, d_z, d_n = d.chunk(4, -1)
    both = gates[..., size : 3 * size]
    torch.addcmul(both, both, both, value=-1, out=d[..., size : 3 * size])
    torch.addcmul(gates.new_tensor(1.0), n, n, value=-1, out=d_n)
    d_n.addcmul_(d_n, z, value=-1)
    torch.mul(d_n, r, out=d_inner)
    d_r.mul_(d_n).mul_(inner)
    d_z.mul_(before - n)
    return d


def resets_of(first: Tensor) -> Resets:
    """Rows `(B, 1)` that begin an episode at each step but the first; None where no row does."""
    inside = first[1:].any(1).tolist()
    masks = first.unsqueeze(2)
    return [None, *(masks[t] if hit else None for t, hit in enumerate(inside, 1))]


def _states(state: Tensor, first: Tensor) -> Tensor:
    """An empty tensor for all states, `(T + 1, B, H)`, with the one before the first step set."""
    states = state.new_empty(len(first) + 1, *state.shape)
    states[0] = state.masked_fill(first[0].unsqueeze(1), 0.0)
    return states


def _before(states: Tensor, resets: Resets) -> Tensor:
    """The state that each step reads, `(T, B, H)`."""
    before = states[:-1]
    if any(reset is not None for reset in resets):
        before = before.clone()
        for t, reset in enumerate(resets):
            if reset is not None:
                before[t].masked_fill_(reset, 0.0)
    return before


def _project(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    """Writes W x + b, `(T, B, O)`, in one product."""
    torch.addmm(bias, x.flatten(0, 1), weight.t(), out=out.flatten(0, 1))


def _pass_on(earlier: Tensor, d: Tensor, recurrent: Tensor, reset: Tensor | None) -> None:
    """Adds a step's gradient for the state that it read to that of the step before."""
    if reset is None:
        earlier.addmm_(d, recurrent)
    else:
        earlier.add_((d @ recurrent).masked_fill_(reset, 0.0))


def weight_gradient(d: Tensor, x: Tensor) -> Tensor:
    """Gradient `(O, I)` of weights that made sums, whose gradient is `d`, of inputs `x`.

    Both are `(T, B, ...)`, of widths O and I.
    """
    # Transposed, because a product with few columns is several times slower than with few rows.
    return (x.flatten(0, 1).t() @ d.flatten(0, 1)).t()


def linear_scan(decay: Tensor, x: Tensor, start: Tensor) -> Tensor:
    """States of the linear recurrence `h[t] = decay[t] * h[t-1] + x[t]`, with `h[-1] = start`.

    Step by step, one fused operation each: on a CPU the 2 * log2(T) passes of a parallel scan over
    the whole window are slower from 32 rows of 32 steps on, and take more memory.

    Args:
        decay: `(B, T, H)`, real or complex.
        x: `(B, T, H)`.
        start: `(B, H)`.

    Returns:
        `(B, T, H)`. Gradients flow to all three arguments, once.
    """
    states: Tensor = _LinearScan.apply(decay, x, start)  # type: ignore[no-untyped-call]
    return states


class _LinearScan(torch.autograd.Function):
    """The gradient of a linear recurrence is the same recurrence, backward in time."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, x: Tensor, start: Tensor) -> Tensor:
        states = torch.empty_like(x)
        h = start
        for a, u, out in zip(decay.unbind(1), x.unbind(1), states.unbind(1), strict=True):
            h = torch.addcmul(u, a, h, out=out)
        ctx.save_for_backward(decay, start, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decay, start, states = ctx.saved_tensors
        decay, (grad,) = decay.conj(), grads
        flow = torch.empty_like(states)
        decays, outs, local = decay.unbind(1), flow.unbind(1), grad.unbind(1)
        last = len(outs) - 1
        g = outs[last].copy_(local[last])
        for t in range(last - 1, -1, -1):
            g = torch.addcmul(local[t], decays[t + 1], g, out=outs[t])
        to_decay = torch.empty_like(flow)
        torch.mul(flow[:, 0], start.conj(), out=to_decay[:, 0])
        torch.mul(flow[:, 1:], states[:, :-1].conj(), out=to_decay[:, 1:])
        return to_decay, flow, decays[0] * g
