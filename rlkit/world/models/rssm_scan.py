"""The recurrence of a state-space model over whole windows, with its gradient written by hand.

A latent depends on the state and the next state on the latent, so a window is a loop, and autograd
over it makes dozens of calls per step and a product per step for every weight's gradient. Here a
step takes a dozen calls forwards and eight backwards; what does not depend on the step before is
computed for the whole window at once, as in `rlkit.networks.encoders.kernels`, whose GRU this is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlkit.networks.encoders.kernels import gru_derivatives, resets_of, weight_gradient
from rlkit.networks.gradient import small_products
from rlkit.world.models.rssm_latents import Latents


class Weights(NamedTuple):
    """What a scan multiplies by; gradients flow to all of it.

    Attributes:
        inputs: Of latent and action into the gates r, z, n, `(3H, Z + A)`.
        recurrent: Of the state into them, `(3H, H)`.
        bias: `(3H,)`.
        candidate: Bias of the candidate inside its gate, `(H,)`.
        state: Of the state into the posterior's hidden layer, `(H, M)`.
        posterior: From there to the posterior's outputs, `(M, O)`.
        posterior_bias: `(O,)`.
    """

    inputs: Tensor
    recurrent: Tensor
    bias: Tensor
    candidate: Tensor
    state: Tensor
    posterior: Tensor
    posterior_bias: Tensor


class RssmScan(torch.autograd.Function):
    """h' = GRU([z, a], h), then z' sampled from its posterior given h' and the observation."""

    @staticmethod
    def forward(
        ctx: Any,
        latents: Latents,
        read: Tensor,
        action: Tensor,
        h: Tensor,
        z: Tensor,
        first: Tensor,
        noise: Tensor | None,
        *parts: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """States, latents and outputs of the posterior after each step.

        Args:
            ctx: What the backward pass needs.
            latents: The distribution of latents.
            read: The observations' part of the posterior's hidden layer, `(T, B, M)`.
            action: The action before each, `(T, B, A)`, zero where an episode begins.
            h: State before the window, `(B, H)`.
            z: Latent before the window, `(B, Z)`.
            first: Where an episode begins, `(T, B)`.
            noise: From the latents' `noise`, `(T, B, ...)`; None for the most likely ones.
            *parts: The weights.

        Returns:
            `(T, B, H)`, `(T, B, Z)` and `(T, B, O)`.
        """
        w = Weights(*parts)
        size, width = h.shape[1], z.shape[1]
        gates, of_latent = _gates(w, action, width)
        of_state = w.recurrent.roll(size, 0).t().contiguous()
        wide, products = gates[..., size:].unbind(0), gates[..., : 3 * size].unbind(0)
        both = gates[..., size : 3 * size].unbind(0)
        inner, r, keep, n = (block.unbind(0) for block in gates.chunk(4, -1))
        hidden, minus_one = read.clone(), read.new_tensor(-1.0)
        resets = resets_of(first)
        resets[0] = first[0].unsqueeze(1)
        before, states, drawn, outputs = [], [], [], []
        with small_products(len(h) * w.recurrent.numel()):
            for t, layer in enumerate(hidden.unbind(0)):
                if (reset := resets[t]) is not None:
                    h, z = h.masked_fill(reset, 0.0), z.masked_fill(reset, 0.0)
                before.append((h, z))
                wide[t].addmm_(z, of_latent)
                products[t].addmm_(h, of_state)
                both[t].sigmoid_()
                candidate = n[t].addcmul_(r[t], inner[t], value=2).sigmoid_()
                torch.add(minus_one, candidate, alpha=2, out=candidate)
                h = torch.lerp(candidate, h, keep[t])
                layer.addmm_(h, w.state)
                outputs.append(torch.addmm(w.posterior_bias, F.silu(layer), w.posterior))
                z = latents.sample(outputs[-1], None if noise is None else noise[t])
                states.append(h)
                drawn.append(z)
        hs, zs, out = torch.stack(states), torch.stack(drawn), torch.stack(outputs)
        h_before, z_before = (torch.stack(part) for part in zip(*before, strict=True))
        ctx.save_for_backward(*w, action, gates, hidden, hs, out, h_before, z_before, noise)
        ctx.latents, ctx.resets = latents, resets
        return hs, zs, out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_h: Tensor, of_z: Tensor, of_out: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of observations, actions and weights; none of the hidden state before."""
        *parts, action, gates, hidden, hs, out, h_before, z_before, noise = ctx.saved_tensors
        w, latents = Weights(*parts), ctx.latents
        size, width = hs.shape[-1], z_before.shape[-1]
        # Each block holds a derivative first, and after its step the gradient.
        d, slopes = gru_derivatives(gates, h_before), latents.slopes(out, noise)
        sigmoid = hidden.sigmoid()
        layer = sigmoid * (1 + hidden * (1 - sigmoid))
        of_h, of_z, of_out = (
            grad.clone(memory_format=torch.contiguous_format) for grad in (of_h, of_z, of_out)
        )
        u, of_latent = w.recurrent.roll(size, 0), w.inputs[:, :width].contiguous()
        posterior, state = w.posterior.t().contiguous(), w.state.t().contiguous()
        ghs, gzs, gos, layers = (block.unbind(0) for block in (of_h, of_z, of_out, layer))
        ds, keep = (
            d.view(*d.shape[:2], 4, size).unbind(0),
            gates[..., 2 * size : 3 * size].unbind(0),
        )
        products, inputs = d[..., : 3 * size].unbind(0), d[..., size:].unbind(0)
        with small_products(hs.shape[1] * w.recurrent.numel()):
            for t in range(len(ghs) - 1, -1, -1):
                latents.pull(gos[t], slopes[t], gzs[t])
                layers[t].mul_(gos[t] @ posterior)
                g = ghs[t].addmm_(layers[t], state)
                ds[t].mul_(g.unsqueeze(1))
                if t == 0:
                    break
                reset = ctx.resets[t]
                if reset is None:
                    ghs[t - 1].addcmul_(keep[t], g).addmm_(products[t], u)
                    gzs[t - 1].addmm_(inputs[t], of_latent)
                else:
                    kept = torch.addmm(keep[t] * g, products[t], u)
                    ghs[t - 1].add_(kept.masked_fill_(reset, 0.0))
                    gzs[t - 1].add_((inputs[t] @ of_latent).masked_fill_(reset, 0.0))
        into, sums = d[..., size:], d.sum((0, 1))
        weights = Weights(
            inputs=weight_gradient(into, torch.cat([z_before, action], 2)),
            recurrent=weight_gradient(d[..., : 3 * size], h_before).roll(-size, 0),
            bias=sums[size:],
            candidate=sums[:size],
            state=hs.flatten(0, 1).t() @ layer.flatten(0, 1),
            posterior=F.silu(hidden).flatten(0, 1).t() @ of_out.flatten(0, 1),
            posterior_bias=of_out.sum((0, 1)),
        )
        actions = into @ w.inputs[:, width:] if ctx.needs_input_grad[2] else None
        return None, layer, actions, None, None, None, None, *weights


def _gates(w: Weights, action: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """What the actions bring into the gates, and the weight by which latents `(B, Z)` add to it.

    Columns are U h + c, r, z, n, `(T, B, 4H)`, the weight's the last three, `(Z, 3H)`. What goes
    into n is doubled: tanh(a) is 2 sigmoid(2a) - 1.
    """
    size = len(w.candidate)
    twice = torch.ones_like(w.bias)
    twice[2 * size :] = 2.0
    inputs = w.inputs * twice.unsqueeze(1)
    gates = action.new_empty(*action.shape[:2], 4 * size)
    gates[..., :size] = w.candidate
    gates[..., size:] = action @ inputs[:, width:].t() + w.bias * twice
    return gates, inputs[:, :width].t().contiguous()
