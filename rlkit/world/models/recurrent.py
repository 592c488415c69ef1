"""World models with sequence encoders, and the scale of their predictions."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.networks.encoders import (
    ENCODERS,
    HiddenState,
    SequenceEncoder,
    complete_encoder,
)
from rlkit.networks.fields import require
from rlkit.world.contract import Windows
from rlkit.world.models.parametric import ParametricWorldModel

Core = str | tuple[tuple[str, Any], ...] | Mapping[str, Any] | SequenceEncoder
"""A sequence encoder as a user writes it: a name, a table of a name and settings, or an object."""

# Bounds of a log-deviation: the lower one in units of a typical change, so that a column without
# errors does not dominate the loss; the upper one in deviations of the column.
LOW, HIGH = -7.0, 2.0


class RecurrentWorldModel(ParametricWorldModel):
    """A model of sequence encoders and a head; the encoders come first in its flat vector.

    The field `core` is kept as a name or as the pairs of a table, so that models can be compared,
    hashed and written to a file.
    """

    core: Core
    delta: bool

    @cached_property
    @abstractmethod
    def encoders(self) -> dict[str, SequenceEncoder]:
        """The encoders by name, complete, in the vector's order."""

    @abstractmethod
    def head_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of the parameters after the encoders."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""
        shapes: dict[str, tuple[int, ...]] = {}
        for part, encoder in self.encoders.items():
            views = encoder.views(torch.empty(encoder.size))
            shapes |= {f"{part}.{name}": tuple(view.shape) for name, view in views.items()}
        shapes |= self.head_shapes()
        # The change in one step is small compared with the range of an observation.
        return shapes | {"log_change": (self.known.observation,)} if self.delta else shapes

    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """Fresh values of the head: weights uniform within 1 / sqrt(fan-in)."""
        for name, view in views.items():
            if name.endswith("weight"):
                bound = 1 / math.sqrt(len(view))
                view.uniform_(-bound, bound, generator=generator)
            else:
                view.zero_()

    def initial_parameters(self, generator: torch.Generator) -> Tensor:
        """A fresh parameter vector `(P,)`, initialised by each encoder."""
        vector = super().initial_parameters(generator)
        for part, encoder in self.encoders.items():
            self.part(vector, part).copy_(encoder.initial_parameters(generator))
        return vector

    def part(self, vector: Tensor, name: str) -> Tensor:
        """The parameters of the encoder of a name; they share the vector's memory."""
        start = 0
        for part, encoder in self.encoders.items():
            if part == name:
                break
            start += encoder.size
        return vector[start : start + self.encoders[name].size]

    def adapt(self, vector: Tensor, windows: Windows) -> Tensor:
        """The vector with the scale of changes in windows of data."""
        adapted = vector.clone()
        if self.delta:
            change = (windows.observation[:, 1:] - windows.observation[:, :-1]).square()
            size = torch.stack([windows.mean(column) for column in change.unbind(2)]).sqrt()
            self.views(adapted)["log_change"].copy_(size.clamp(min=1e-3).log())
        return adapted

    def prediction(
        self, p: dict[str, Tensor], x: Tensor, raw: Tensor, raw_scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and log-deviation of a head's outputs.

        Args:
            p: The named parameters.
            x: Observations before the predicted ones, `(..., F)`.
            raw: Means, `(..., F + K)`; where `delta`, of changes in units of a typical one.
            raw_scale: Log-deviations, likewise, not bounded yet.
        """
        if not self.delta:
            log_unit, mean = raw.new_zeros(self.known.target), raw
        else:
            # Outcomes are no changes: their unit is their deviation.
            log_unit = F.pad(p["log_change"], (0, self.known.outcome)).clamp(max=HIGH - 1)
            mean = torch.addcmul(F.pad(x, (0, self.known.outcome)), raw, log_unit.exp())
        # A scaled sigmoid, in which an output of 0 means a typical change: on a CPU several times
        # faster than two softplus.
        span = HIGH - LOW - log_unit
        share = (raw_scale + (-LOW / (HIGH - log_unit)).log()).sigmoid()
        return mean, torch.addcmul(log_unit + LOW, span, share)

    def _encoder(self, inputs: int) -> SequenceEncoder:
        """The core for inputs of a width."""
        return complete_encoder(_forward(self), inputs)

    def _keep_core(self) -> None:
        """Checks the shared fields, and keeps the core as plain data."""
        require(self, "delta", isinstance(self.delta, bool), "true or false")
        encoder = _forward(self)
        if not isinstance(self.core, (str, tuple)):
            table = self.core if isinstance(self.core, Mapping) else ENCODERS.describe(encoder)
            object.__setattr__(self, "core", tuple((table or {}).items()))


def _forward(owner: RecurrentWorldModel) -> SequenceEncoder:
    """The encoder of the core, which must be causal."""
    core = owner.core
    encoder = ENCODERS.make_optional(dict(core) if isinstance(core, tuple) else core)
    if encoder is None or not getattr(encoder, "causal", True):
        raise ValueError(
            f"{type(owner).__name__}: core must be an encoder that goes forward in time, got "
            f"{core!r}; use gru, lstm or rnn"
        )
    return encoder


def fresh_where(is_first: Tensor, fresh: HiddenState, hidden_state: HiddenState) -> HiddenState:
    """The hidden state, fresh in rows that begin an episode, `is_first (B,)`."""
    pairs = zip(fresh, hidden_state, strict=True)
    return tuple(torch.where(is_first.view(-1, *[1] * (b.ndim - 1)), a, b) for a, b in pairs)
