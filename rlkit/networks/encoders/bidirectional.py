"""A recurrent encoder that reads past and future, for whole sequences; it cannot act."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NoReturn

import torch
from torch import Tensor

from rlkit.networks.encoders.contract import HiddenState
from rlkit.networks.encoders.encoder import Encoder, Randomness, Shapes, Views
from rlkit.networks.encoders.recurrent import GRU
from rlkit.networks.mlp import part_of


@dataclass(frozen=True)
class Bidirectional(Encoder):
    """Two GRUs, one forward and one backward in time; their features are concatenated.

    An episode's end resets the backward one as its start resets the forward one. The backward one
    starts at the end of each window, so its features depend on the window's length: of the laws of
    encoders, causality, stepping and chunking do not hold.

    Source: Schuster and Paliwal 1997, "Bidirectional recurrent neural networks", section II.

    Attributes:
        hidden: Width of each direction's hidden state; the features are twice as wide.
        layers: Layers of each direction; the directions meet after the last.
        layer_norm: Whether the features of each direction are normalised.
        dropout: Share of the features between layers that is dropped in training.
        inputs: I, width of one input.
    """

    hidden: int = 64
    layers: int = 1
    layer_norm: bool = False
    dropout: float = 0.0
    inputs: int = 0

    causal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        try:
            self._direction  # noqa: B018  # its settings are checked where they are defined
        except ValueError as error:
            raise ValueError(f"Bidirectional: each direction is a {error}") from error

    @property
    def features(self) -> int:
        """D, the width of one output."""
        return 2 * self.hidden

    @property
    def _direction(self) -> GRU:
        return GRU(self.hidden, self.layers, self.layer_norm, self.dropout, self.inputs)

    def shapes(self) -> Shapes:
        """Name and shape of every parameter, in the flat vector's order."""
        one = self._direction.shapes()
        return {f"{way}.{name}": one[name] for way in ("forward", "backward") for name in one}

    def fill(self, views: Views, generator: torch.Generator) -> None:
        """Fresh values, for each direction its own."""
        direction = self._direction
        for way in ("forward", "backward"):
            direction.fill(part_of(views, way), generator)

    def initial(self, count: int, device: torch.device | str = "cpu") -> HiddenState:
        """Hidden state of the forward direction; the backward one has none between windows."""
        return self._direction.initial(count, device)

    def _step(self, p: Views, x: Tensor, before: HiddenState, is_first: Tensor) -> NoReturn:
        raise TypeError(
            "Bidirectional cannot act: it reads the future, which an agent does not have; it "
            "is for learning from recorded sequences (scan). To act choose a causal encoder: gru, "
            "lstm, mingru, lru, conv or transformer"
        )

    def _scan(
        self, p: Views, x: Tensor, before: HiddenState, is_first: Tensor, generator: Randomness
    ) -> tuple[Tensor, HiddenState]:
        direction = self._direction
        past, future = (part_of(p, way) for way in ("forward", "backward"))
        # Backward in time an episode begins with its last step, which is the one before a start.
        is_last = torch.cat([is_first[:, 1:], torch.ones_like(is_first[:, :1])], dim=1)
        forward, after = direction._scan(past, x, before, is_first, generator)
        fresh = direction.initial(len(x), x.device)
        backward, _ = direction._scan(future, x.flip(1), fresh, is_last.flip(1), generator)
        return torch.cat([forward, backward.flip(1)], dim=-1), after
