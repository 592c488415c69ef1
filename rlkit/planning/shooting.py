"""Random shooting, the baseline of other planners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from rlkit.planning.search import Proposal, Search


@dataclass(frozen=True)
class RandomShooting(Search):
    """Sequences drawn uniformly; the best is executed.

    One of them is the rest of the last plan (warm start). `deviation` and `momentum` are not used.

    Source: Nagabandi et al. 2018, section IV-C; there without a warm start.
    """

    iterations: int = 1

    executes_best: ClassVar[bool] = True

    def _draw(self, current: Proposal, size: int, step: int, generator: Generator) -> Tensor:
        actions, mean = self._known_actions(), current.mean
        if actions.discrete:
            even = torch.full_like(mean, 1 / actions.size)
            drawn = self._drawn_choices(even, size, generator)
        else:
            shape = (len(mean), size, *mean.shape[1:])
            drawn = 2 * torch.rand(shape, generator=generator, device=mean.device) - 1
        if step == 0:
            drawn[:, 0] = self._settled(mean)
        return drawn
