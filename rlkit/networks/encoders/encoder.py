"""The base class of our encoders."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from rlkit.networks import Parametric
from rlkit.networks.encoders.contract import HiddenState
from rlkit.networks.encoders.layers import Views as Views
from rlkit.networks.encoders.layers import fill_layers
from rlkit.networks.fields import require, require_whole

Shapes = dict[str, tuple[int, ...]]
Randomness = torch.Generator | None
"""Source of dropout; None switches dropout off."""

MOST_LAYERS = 1000  # far beyond what can be trained; more would only fill the memory


class Encoder(Parametric):
    """What our encoders share: dataclasses with these fields, for the features and the inputs.

    `step` and `scan` are those of the contract. An encoder computes them in `_step` and `_scan`,
    which get the named parameters; the hidden state needs no detaching there.
    """

    hidden: int
    layers: int
    dropout: float
    inputs: int

    @property
    def features(self) -> int:
        """D, the width of one output."""
        return self.hidden

    def with_inputs(self, inputs: int) -> Self:
        """The same encoder for inputs of a width."""
        changed: Self = replace(self, inputs=inputs)  # type: ignore[type-var]
        return changed

    def fill(self, views: Views, generator: torch.Generator) -> None:
        """Fresh values that keep the variance."""
        fill_layers(views, generator)

    def step(
        self, vector: Tensor, x: Tensor, hidden_state: HiddenState, is_first: Tensor
    ) -> tuple[Tensor, HiddenState]:
        """One step, for acting; see `SequenceEncoder.step`."""
        self._require_width(x)
        return self._step(self.views(vector), x, hidden_state, is_first)

    def scan(
        self,
        vector: Tensor,
        x: Tensor,
        hidden_state: HiddenState,
        is_first: Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, HiddenState]:
        """A window of steps, for learning; see `SequenceEncoder.scan`."""
        self._require_width(x)
        before = tuple(part.detach() for part in hidden_state)
        y, after = self._scan(self.views(vector), x, before, is_first, generator)
        return y, tuple(part.detach() for part in after)

    @abstractmethod
    def _step(
        self, p: Views, x: Tensor, before: HiddenState, is_first: Tensor
    ) -> tuple[Tensor, HiddenState]:
        """Features `(B, D)` of inputs `(B, I)`, and the hidden state after them."""

    @abstractmethod
    def _scan(
        self, p: Views, x: Tensor, before: HiddenState, is_first: Tensor, generator: Randomness
    ) -> tuple[Tensor, HiddenState]:
        """Features `(B, T, D)` of inputs `(B, T, I)`, and the hidden state after them."""

    def _input_shapes(self) -> Shapes:
        """Shapes of an affine layer from the inputs to the features' width."""
        return {"input.weight": (self.inputs, self.hidden), "input.bias": (self.hidden,)}

    def _require_fields(self, between_layers: bool = False) -> None:
        """Raises a ValueError unless the fields are in range.

        Args:
            between_layers: Whether dropout acts between layers, of which it needs two.
        """
        require_whole(self, 1, "hidden", "layers")
        require(self, "layers", self.layers <= MOST_LAYERS, f"at most {MOST_LAYERS}")
        require_whole(self, 0, "inputs")
        good = isinstance(self.dropout, (int, float)) and 0 <= self.dropout < 1
        require(self, "dropout", good, "in [0, 1)")
        if between_layers and self.dropout > 0 and self.layers == 1:
            raise ValueError(
                f"{type(self).__name__}: dropout = {self.dropout} acts between layers and there is "
                f"only one; set layers = 2 or more, or dropout = 0"
            )

    def _require_width(self, x: Tensor) -> None:
        if x.shape[-1] != self.inputs:
            raise ValueError(
                f"inputs have width {x.shape[-1]}, {type(self).__name__} is configured for "
                f"{self.inputs}: use encoder.with_inputs({x.shape[-1]})"
            )
