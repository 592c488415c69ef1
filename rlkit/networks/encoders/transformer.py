"""A causal Transformer encoder with a sliding window and a cache for stepping."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.networks.encoders.contract import HiddenState
from rlkit.networks.encoders.encoder import Encoder, Randomness, Shapes, Views
from rlkit.networks.encoders.layers import dropout, layer_norm, linear, steps_since_reset
from rlkit.networks.fields import require_whole


@dataclass(frozen=True)
class CausalTransformer(Encoder):
    """Each layer attends to the last `context` steps of the same episode, this one included.

    Attention depends on distances only (a penalty per step, different for each head), so that
    cached keys stay valid however long an episode lasts. The hidden state holds, per layer, keys
    and values of the last `context - 1` steps, the newest at the end, and for every row how many of
    them are valid: rows may be at different points of their episodes.

    Source: Vaswani et al. 2017, "Attention is all you need", section 3.2; Xiong et al. 2020, "On
    layer normalization in the Transformer architecture", figure 1b (norm first); Press et al. 2022,
    "Train short, test long", section 3 (ALiBi: the penalties and their slopes).

    Deviations: keys have no bias, which has no effect on a softmax; layers that add to the residual
    path start smaller, by the root of their number (Radford et al. 2019, section 2.3).

    Attributes:
        hidden: D, width of the features, a multiple of `heads`.
        heads: Attention heads per layer.
        layers: Number of layers.
        context: Steps that a layer attends to, this one included.
        dropout: Share of a layer's additions that is dropped in training.
        inputs: I, width of one input.
    """

    hidden: int = 64
    heads: int = 4
    layers: int = 2
    context: int = 64
    dropout: float = 0.0
    inputs: int = 0

    def __post_init__(self) -> None:
        self._require_fields()
        require_whole(self, 1, "heads")
        require_whole(self, 2, "context")
        if self.hidden % self.heads:
            raise ValueError(
                f"hidden must be a multiple of heads, got hidden = {self.hidden} and heads = "
                f"{self.heads}; the nearest is {-(-self.hidden // self.heads) * self.heads}"
            )

    @property
    def receptive_field(self) -> int:
        """Steps, this one included, that an output depends on: every layer adds a context."""
        return 1 + self.layers * (self.context - 1)

    def shapes(self) -> Shapes:
        """Name and shape of every parameter, in the flat vector's order."""
        d = self.hidden
        shapes = self._input_shapes()
        for i in range(self.layers):
            shapes |= {
                f"{i}.attention_norm.scale": (d,),
                f"{i}.attention_norm.shift": (d,),
                f"{i}.query_key_value.weight": (d, 3 * d),
                f"{i}.attended.weight": (d, d),
                f"{i}.attended.bias": (d,),
                f"{i}.mlp_norm.scale": (d,),
                f"{i}.mlp_norm.shift": (d,),
                f"{i}.widen.weight": (d, 4 * d),
                f"{i}.widen.bias": (4 * d,),
                f"{i}.narrow.weight": (4 * d, d),
                f"{i}.narrow.bias": (d,),
            }
        return shapes | {"norm.scale": (d,), "norm.shift": (d,)}

    def fill(self, views: Views, generator: torch.Generator) -> None:
        """Fresh values that keep the variance, along the residual path too."""
        super().fill(views, generator)
        for i in range(self.layers):
            for name in ("attended", "narrow"):
                views[f"{i}.{name}.weight"].div_(math.sqrt(2 * self.layers))

    def initial(self, count: int, device: torch.device | str = "cpu") -> HiddenState:
        """Empty keys and values per layer, `(count, context - 1, 2 D)`, and how many are valid."""
        size = (count, self.context - 1, 2 * self.hidden)
        caches = (torch.zeros(size, device=device) for _ in range(self.layers))
        return (*caches, torch.zeros(count, device=device))

    def _step(
        self, p: Views, x: Tensor, before: HiddenState, is_first: Tensor
    ) -> tuple[Tensor, HiddenState]:
        y, after = self._window(p, x.unsqueeze(1), before, is_first.unsqueeze(1), None)
        return y.squeeze(1), after

    def _scan(
        self, p: Views, x: Tensor, before: HiddenState, is_first: Tensor, generator: Randomness
    ) -> tuple[Tensor, HiddenState]:
        # In pieces: most of one mask over a long window would be masked out.
        length = max(self.context, 32)
        pieces = []
        for part, first in zip(
            torch.split(x, length, 1), torch.split(is_first, length, 1), strict=True
        ):
            y, before = self._window(p, part, before, first, generator)
            pieces.append(y)
        return torch.cat(pieces, dim=1), before

    def _window(
        self, p: Views, x: Tensor, before: HiddenState, is_first: Tensor, generator: Randomness
    ) -> tuple[Tensor, HiddenState]:
        *caches, valid = before
        # The most valid entries of any row: the empty part of the cache is left out.
        known = int(valid.masked_fill(is_first[:, 0], 0).max())
        age = steps_since_reset(is_first)
        age = torch.minimum(age, torch.arange(x.shape[1], device=x.device) + valid.unsqueeze(1))
        valid = (age[:, -1] + 1).clamp(max=self.context - 1)
        back = torch.arange(self.context - 2, -1, -1, device=x.device)
        keep = (back < valid.unsqueeze(1)).unsqueeze(-1)
        bias = self._bias(age, known)
        x = linear(p, "input", x)
        after = []
        for i, cache in enumerate(caches):
            attended, entries = self._attend(p, i, x, cache, bias)
            after.append(entries[:, x.shape[1] :] * keep)
            x = x + dropout(attended, self.dropout, generator)
            wide = F.gelu(linear(p, f"{i}.widen", layer_norm(p, f"{i}.mlp_norm", x)))
            x = x + dropout(linear(p, f"{i}.narrow", wide), self.dropout, generator)
        return layer_norm(p, "norm", x), (*after, valid)

    def _bias(self, age: Tensor, known: int) -> Tensor:
        """The bias of each head's scores, `(B, T) -> (B * heads, T, known + T)`.

        Args:
            age: Number of earlier steps of the same episode, as far as they are known.
            known: How many of the newest cached steps are attended to.
        """
        steps, device = age.shape[1], age.device
        now = torch.arange(steps, device=device).unsqueeze(1) + known
        distance = now - torch.arange(known + steps, device=device)
        farthest = age.clamp(max=self.context - 1).unsqueeze(-1)
        visible = (distance >= 0) & (distance <= farthest)
        order = torch.arange(1, self.heads + 1, device=device)
        penalty = -(2.0 ** (-8 * order / self.heads)).view(-1, 1, 1) * distance
        return torch.where(visible.unsqueeze(1), penalty, -math.inf).flatten(0, 1)

    def _attend(
        self, p: Views, i: int, x: Tensor, cache: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The output of a layer's attention, and its keys and values."""
        x = layer_norm(p, f"{i}.attention_norm", x) @ p[f"{i}.query_key_value.weight"]
        query, new = torch.split(x, [self.hidden, 2 * self.hidden], dim=-1)
        entries = torch.cat([cache, new], dim=1)
        query, key, value = (
            part.view(*part.shape[:2], self.heads, -1).transpose(1, 2).flatten(0, 1)
            for part in (query, *entries[:, -bias.shape[-1] :].chunk(2, dim=-1))
        )
        # Written out: torch's fused attention is no faster here, and ten times slower where oneDNN
        # is allowed to multiply (`rlkit.networks.gradient.fast_float32`).
        scale = 1 / math.sqrt(query.shape[-1])
        scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=scale)
        y = scores.softmax(dim=-1) @ value
        y = y.view(len(x), self.heads, x.shape[1], -1).transpose(1, 2).flatten(2)
        return linear(p, f"{i}.attended", y), entries
