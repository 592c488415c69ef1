"""What of a learner is saved, and restored."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rlkit.networks.gradient import State
from rlkit.offpolicy.contract import require_same_shapes
from rlkit.offpolicy.transitions import InputScaling
from rlkit.offpolicy.weight_average import WeightAverage


class SavedLearner:
    """`GradientLearner`'s part for files.

    Attributes:
        state: The learner's tensors.
        scaling: Of observations and goals.
        generator: Source of all its random numbers.
        device: Where everything lives.
        updates: Updates made.
        average: Of the acting network's weights, if there is one.
        acting: Name of the network that acts.
    """

    state: State
    scaling: InputScaling
    generator: torch.Generator
    device: torch.device
    updates: int
    average: WeightAverage | None
    acting: ClassVar[str | None]
    _functions: dict[str, Any]  # networks, and the latent model that learns with them
    _noise: Tensor

    def weights(self) -> dict[str, Tensor]:
        """Every network's parameters by name, and the input scaling; they share memory."""
        named: State = {
            f"{network}.{name}": view
            for network, function in self._functions.items()
            for name, view in function.views(self.state[network]).items()
        }
        return named | self.scaling.weights()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update and action depend on."""
        return {
            "weights": self.weights(),
            "optimiser": self._optimiser(),
            **self.scaling.state_dict(),
            "generator": self.generator.get_state().numpy(),
            "noise": self._noise.cpu().numpy(),
            "updates": self.updates,
            **({} if self.average is None else {"average": self.average.weights}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave; see `Learner.load_state_dict`."""
        parts = (self.weights(), state["weights"]), (self._optimiser(), state["optimiser"])
        for own, saved in parts:
            require_same_shapes(own, saved)
        for own, saved in parts:  # only now, so that a refused state changes nothing
            for name, tensor in own.items():
                tensor.copy_(saved[name])
        self.scaling.load_state_dict(state)
        self.generator.set_state(torch.from_numpy(np.array(state["generator"], np.uint8)))
        noise = np.array(state.get("noise", ()), np.float32)
        self._noise = torch.from_numpy(noise).to(self.device)
        self.updates = int(state["updates"])
        if self.average is not None:  # which begins with weights that were trained without one
            self.average.weights.copy_(state.get("average", self.state[str(self.acting)]))

    def _optimiser(self) -> State:
        return {k: v for k, v in self.state.items() if k not in self._functions}
