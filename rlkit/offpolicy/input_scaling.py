"""Running moments by which a learner scales observations and goals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.networks import Normaliser, normalise
from rlkit.networks.gradient import State
from rlkit.offpolicy.settings import Sizes

SCALED = ("observation", "goal")


class InputScaling:
    """Scales observations and goals by the moments of what was collected.

    Args:
        sizes: Widths of observation and goal.
        device: Where they are scaled.
        enabled: If False they stay as they are.
    """

    def __init__(self, sizes: Sizes, device: torch.device | str, enabled: bool) -> None:
        self.enabled = enabled
        self._moments = {
            "observation": Normaliser(sizes.observation, device, enabled),
            "goal": Normaliser(sizes.goal, device, enabled),
        }

    def observe(self, observation: NDArray[Any], goals: NDArray[Any]) -> None:
        """Updates the moments with collected observations `(n, F)` and goals `(m, G)`."""
        self._moments["observation"].observe(observation)
        self._moments["goal"].observe(goals)

    def tensors(self) -> State:
        """Shift and scale of both, as `scaled` finds them in a batch."""
        found = {}
        for name, moments in self._moments.items():
            found[f"{name}_shift"], found[f"{name}_scale"] = moments.shift, moments.scale
        return found

    def scaled(self, tensors: State, name: str, x: Tensor) -> Tensor:
        """An `observation` or a `goal`, scaled.

        Args:
            tensors: What `tensors` gave, in a batch.
            name: Which of the two.
            x: `(..., F)` or `(..., G)`.
        """
        if not self.enabled:
            return x
        return normalise(x, tensors[f"{name}_shift"], tensors[f"{name}_scale"])

    def weights(self) -> State:
        """Shifts and scales under the names of a file of weights; they share memory."""
        return {
            f"{name}.{part}": getattr(moments, part)
            for name, moments in self._moments.items()
            for part in ("shift", "scale")
            if len(moments.shift) > 0
        }

    def state_dict(self) -> dict[str, Any]:
        """The moments."""
        return {f"{name}_moments": moments.state_dict() for name, moments in self._moments.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the moments; shifts and scales are part of the weights."""
        for name, moments in self._moments.items():
            moments.load_state_dict(state[f"{name}_moments"])
