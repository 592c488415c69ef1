"""Model predictive path integral control: elites are weighted by their scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlkit.planning.search import Search


@dataclass(frozen=True)
class MPPI(Search):
    """A Gaussian per action, fitted to elites that are weighted by their scores.

    An elite of score s has the weight exp((s - best) / (temperature * (best - worst))), over the
    elites of an environment.

    Source: Williams et al. 2017, eq. 34; iterated, with elites and a deviation that is fitted too,
    Hansen et al. 2024 (TD-MPC2), section 3.2. Deviations: the temperature is relative to the range
    of the elites' scores, so that it means the same for rewards of any scale; the mean is executed,
    where TD-MPC2 draws one of the elites. The first paper's planner is `iterations=1` with as many
    elites as samples.

    Attributes:
        temperature: Of the weights, > 0; a large one makes all elites equal, as in CEM.
    """

    elites: int = 30
    temperature: float = 0.3

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: If a setting is out of range.
        """
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature!r}")

    def _weights(self, scores: Tensor) -> Tensor:
        finite = scores.isfinite()
        best = scores.amax(1, keepdim=True)
        worst = torch.where(finite, scores, torch.inf).amin(1, keepdim=True)
        scale = (self.temperature * (best - worst)).clamp(min=1e-12)
        # Where nothing is finite the exponent would be NaN; equal scores weigh the same.
        return torch.where(finite, ((scores - best) / scale).exp(), 0.0)
