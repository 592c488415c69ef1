"""Running mean and deviation of inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Normaliser:
    """Scales a vector by its running mean and standard deviation, clipped.

    The moments are kept in float64 and follow the data as it is collected, never what hindsight
    makes of it.

    Source: Chan, Golub and LeVeque 1983 for merging moments; clipping at 5 deviations as in the
    HER baselines (Plappert et al. 2018, appendix).

    Args:
        size: Width of the vector.
        device: Where `scale` is computed.
        enabled: If False the scaling stays the identity.
    """

    CLIP = 5.0

    def __init__(self, size: int, device: torch.device | str = "cpu", enabled: bool = True) -> None:
        self.enabled = enabled
        self.count = 0.0
        self._mean = np.zeros(size)
        self._square = np.zeros(size)  # sum of squared deviations
        self.shift = torch.zeros(size, device=device)
        self.scale = torch.ones(size, device=device)

    def observe(self, rows: NDArray[np.floating[Any]]) -> None:
        """Takes rows `(N, size)` into the moments."""
        if not self.enabled or self._mean.size == 0:
            return
        count = len(rows)
        mean = rows.mean(axis=0, dtype=np.float64)
        difference = mean - self._mean
        total = self.count + count
        self._mean = self._mean + difference * (count / total)
        self._square = (
            self._square
            + ((rows - mean) ** 2).sum(axis=0)
            + difference**2 * (self.count * count / total)
        )
        self.count = total
        self._publish()

    def _publish(self) -> None:
        deviation = np.sqrt(self._square / max(self.count, 1.0))
        # A constant input carries nothing; dividing by its rounding noise would blow it up.
        scale = 1.0 / np.maximum(deviation, 1e-2)
        self.shift.copy_(torch.from_numpy(self._mean))
        self.scale.copy_(torch.from_numpy(scale))

    def state_dict(self) -> dict[str, Any]:
        """The moments."""
        return {"count": self.count, "mean": self._mean.copy(), "square": self._square.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave; `shift` and `scale` belong to the weights."""
        self.count = float(state["count"])
        self._mean = np.array(state["mean"], np.float64)
        self._square = np.array(state["square"], np.float64)


def normalise(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """`x` in deviations from its mean, `(..., size)`, clipped."""
    return ((x - shift) * scale).clamp(-Normaliser.CLIP, Normaliser.CLIP)
