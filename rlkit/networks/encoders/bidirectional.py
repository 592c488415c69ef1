"""Memory of the past and the future, for learning from whole sequences; it cannot act."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NoReturn

import torch
from torch import Tensor

from rlkit.networks.encoders.contract import HiddenState
from rlkit.networks.encoders.layers import Encoder, Views
from rlkit.networks.encoders.recurrent import GRU


@dataclass(frozen=True)
class Bidirectional(Encoder):
    """Two GRUs, one forward and one backward in time; their features lie side by side.

    An episode's end blocks the backward one as its start blocks the forward one. The backward one
    starts at the end of each window, so that windows joined know more than each alone: of the laws
    of encoders, causality, stepping and chunking do not hold.

    Source: Schuster and Paliwal 1997, "Bidirectional recurrent neural networks", section II.

    Attributes:
        hidden: Width of each direction's memory; the features are twice as wide.
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

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""
        one = self._direction.shapes()
        return {f"{way}.{name}": one[name] for way in ("forward", "backward") for name in one}

    def fill(self, views: Views, generator: torch.Generator) -> None:
        """Fresh values, for each direction its own."""
        direction = self._direction
        for way in ("forward", "backward"):
            direction.fill({name: views[f"{way}.{name}"] for name in direction.shapes()}, generator)

    def initial(self, count: int, device: torch.device | str = "cpu") -> HiddenState:
        """Memory of the forward direction; the backward one has none between windows."""
        return self._direction.initial(count, device)

    def step(
        self, vector: Tensor, x: Tensor, hidden_state: HiddenState, is_first: Tensor
    ) -> NoReturn:
        """Never possible: the backward direction reads the future.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            "Bidirectional cannot act: it reads the future, which an agent does not have yet; it "
            "is for learning from recorded sequences (scan). To act choose a causal encoder: gru, "
            "lstm, mingru, lru, conv or transformer"
        )

    def scan(
        self,
        vector: Tensor,
        x: Tensor,
        hidden_state: HiddenState,
        is_first: Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, HiddenState]:
        """A window of steps, for learning; every output has read the window's whole episode.

        Args:
            vector: Parameters `(P,)`; gradients flow to it.
            x: Inputs `(B, T, I)`; gradients flow to it.
            hidden_state: Forward memory before the window; no gradient flows to it.
            is_first: Where an episode begins, `(B, T)`.
            generator: Source of dropout in training; None switches dropout off.

        Returns:
            Features `(B, T, D)`, forward before backward, and the forward memory after the window.
        """
        direction = self._direction
        past, future = vector.chunk(2)
        # Backward in time an episode begins with its last step, which is the one before a start.
        is_last = torch.cat([is_first[:, 1:], torch.ones_like(is_first[:, :1])], dim=1)
        forward, hidden_state = direction.scan(past, x, hidden_state, is_first, generator)
        fresh = direction.initial(len(x), x.device)
        backward, _ = direction.scan(future, x.flip(1), fresh, is_last.flip(1), generator)
        return torch.cat([forward, backward.flip(1)], dim=-1), hidden_state
