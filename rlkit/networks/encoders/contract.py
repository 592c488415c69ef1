"""The contract of sequence encoders: functions from a sequence of inputs to one of features.

Laws, checked for every encoder by `tests/networks/encoders/test_laws.py`: a scan equals repeated
steps; two chunks equal one whole; a reset inside a window equals a fresh start; the features at
time t depend on nothing after t.
"""

from __future__ import annotations

from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from rlkit.plugins import PluginGroup

HiddenState = tuple[Tensor, ...]
"""State between steps: tensors with a leading batch axis; empty without an encoder."""


@runtime_checkable
class SequenceEncoder(Protocol):
    """A recurrent, convolutional or attending network as a pure function of one flat vector.

    An encoder is configured without knowing the width of its inputs; `with_inputs` completes it.
    """

    @property
    def inputs(self) -> int:
        """I, the width of one input; 0 before `with_inputs`."""

    @property
    def features(self) -> int:
        """D, the width of one output."""

    @property
    def size(self) -> int:
        """P, the length of the parameter vector."""

    def with_inputs(self, inputs: int) -> Self:
        """The same encoder for inputs of a width."""

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """The named parameters inside a vector `(P,)`; they are views of it."""

    def initial_parameters(self, generator: torch.Generator) -> Tensor:
        """A fresh parameter vector `(P,)`."""

    def initial(self, count: int, device: torch.device | str = "cpu") -> HiddenState:
        """The hidden state at the start of `count` episodes."""

    def step(
        self, vector: Tensor, x: Tensor, hidden_state: HiddenState, is_first: Tensor
    ) -> tuple[Tensor, HiddenState]:
        """One step, for acting.

        Args:
            vector: Parameters `(P,)`.
            x: Inputs `(B, I)`.
            hidden_state: After the step before; never written to.
            is_first: Where an episode begins, `(B,)`: the hidden state is reset there before `x` is
                read.

        Returns:
            Features `(B, D)` and the hidden state after the step.
        """

    def scan(
        self,
        vector: Tensor,
        x: Tensor,
        hidden_state: HiddenState,
        is_first: Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, HiddenState]:
        """A window of steps, for learning.

        Args:
            vector: Parameters `(P,)`; gradients flow to it.
            x: Inputs `(B, T, I)`; gradients flow to it.
            hidden_state: Before the window; no gradient flows to it.
            is_first: Where an episode begins, `(B, T)`.
            generator: Source of dropout in training; None switches dropout off.

        Returns:
            Features `(B, T, D)` and the hidden state after the window.
        """


ENCODERS = PluginGroup[SequenceEncoder]("rlkit.encoders", "encoder", SequenceEncoder, "inputs")
