"""A perceptron behind a memory, as one pure function of one flat vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlkit.networks import Mlp
from rlkit.networks.encoders.contract import SequenceEncoder


@dataclass(frozen=True)
class Network:
    """An encoder and the head that reads it; without an encoder just the head.

    One vector for both: one gradient, one target average, one norm to clip.

    Attributes:
        head: Its first input part is the memory, of width 0 for networks without.
        encoder: The network's own memory, None where it has none or reads another network's.
    """

    head: Mlp
    encoder: SequenceEncoder | None = None

    @property
    def memory_size(self) -> int:
        """Length of the encoder's part, which comes first in the vector."""
        return 0 if self.encoder is None else self.encoder.size

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return self.memory_size + self.head.size

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """The named parameters inside a vector `(size,)`; they share its memory."""
        named = self.head.views(vector[self.memory_size :])
        if self.encoder is None:
            return named
        remembering = self.encoder.views(vector[: self.memory_size])
        return {f"encoder.{name}": view for name, view in remembering.items()} | named

    def initial_parameters(self, generator: torch.Generator) -> Tensor:
        """A fresh parameter vector `(size,)`."""
        head = self.head.initial_parameters(generator)
        if self.encoder is None:
            return head
        return torch.cat([self.encoder.initial_parameters(generator), head])

    def __call__(self, vector: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Outputs `(N, B, outputs)` of the head for its input parts, memory first."""
        return self.head(vector[self.memory_size :], parts)
