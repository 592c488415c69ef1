"""Scaling of columns between raw units and a model, fitted to data in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.world.contract import Imagined, OpenLoop, Policy, Widths, Windows
from rlkit.world.data.windows import Episodes
from rlkit.world.layout import Layout


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation of columns.

    A constant column has a deviation of 0: a model reads 0 there, and the column is predicted to
    stay constant.

    Attributes:
        shift: Means `(D,)`.
        deviation: `(D,)`, 0 for constant columns.
    """

    shift: Tensor
    deviation: Tensor

    @classmethod
    def identity(cls, width: int) -> Standard:
        """The identity."""
        return cls(torch.zeros(width), torch.ones(width))

    @classmethod
    def of(cls, chunks: Iterable[NDArray[Any]], width: int) -> Standard:
        """The moments of rows in chunks `(n, D)`, computed in float64.

        Source: Chan, Golub and LeVeque 1983, for merging the moments of two sets.
        """
        count, mean, square = 0, np.zeros(width), np.zeros(width)
        for rows in chunks:
            one = rows.mean(0, dtype=np.float64)
            new, total = len(rows), count + len(rows)
            square += ((rows - one) ** 2).sum(0) + (one - mean) ** 2 * (count * new / total)
            mean += (one - mean) * (new / total)
            count = total
        deviation = np.sqrt(square / max(count, 1))
        # A constant's deviation is float32's rounding error; dividing by that would amplify it.
        deviation[deviation <= 1e-6 * np.abs(mean) + 1e-12] = 0.0
        return cls(torch.from_numpy(mean).float(), torch.from_numpy(deviation).float())

    def to(self, device: torch.device | str) -> Standard:
        """The same on a device."""
        return Standard(self.shift.to(device), self.deviation.to(device))

    def standardised(self, x: Tensor) -> Tensor:
        """Numbers around 1 `(..., D)` of raw ones; 0 in constant columns."""
        return (x - self.shift) * torch.where(self.deviation > 0, 1 / self.deviation, 0.0)

    def restored(self, x: Tensor) -> Tensor:
        """Raw numbers `(..., D)` of standardised ones; the constant in constant columns."""
        return x * self.deviation + self.shift


@dataclass(frozen=True)
class Scaling:
    """Converts between a model and raw units.

    Attributes:
        observation: Of the columns of an observation.
        action: Of an action's.
        outcome: Of the outcomes.
    """

    observation: Standard
    action: Standard
    outcome: Standard

    @classmethod
    def identity(cls, widths: Widths) -> Scaling:
        """The identity."""
        return cls(
            *(Standard.identity(n) for n in (widths.observation, widths.action, widths.outcome))
        )

    @classmethod
    def of(cls, data: Episodes, layout: Layout) -> Scaling:
        """The scaling of data, read in chunks.

        Raises:
            ValueError: If the data do not fit the layout, are too few, or are not finite.
        """
        for name in ("observation", "action"):
            found, wanted = getattr(data, name).shape[1], getattr(layout.widths, name)
            if found != wanted:
                raise ValueError(f"the data has {found} columns of {name}, the layout {wanted}")
        if data.steps < 2:
            raise ValueError(f"{data.steps} step is too little to fit to; record more")
        outcomes = [
            Standard.identity(1) if name in layout.binary else Standard.of(data.chunks(name), 1)
            for name in layout.outcomes
        ]
        observation = Standard.of(data.chunks("observation"), layout.observation)
        if not observation.deviation.any():
            raise ValueError(
                "all columns of the observations are constant; record data in which they vary"
            )
        nothing = torch.zeros(0)
        return cls(
            observation,
            Standard.of(data.chunks("action"), layout.action),
            Standard(
                torch.cat([nothing, *(one.shift for one in outcomes)]),
                torch.cat([nothing, *(one.deviation for one in outcomes)]),
            ),
        )

    def to(self, device: torch.device | str) -> Scaling:
        """The same on a device."""
        return Scaling(*(one.to(device) for one in self._parts().values()))

    def windows(self, raw: Windows) -> Windows:
        """Windows standardised for a model, on the scaling's device."""
        scaled = {
            name: part.standardised(getattr(raw, name).to(part.shift.device))
            for name, part in self._parts().items()
        }
        others = {
            name: getattr(raw, name).to(self.observation.shift.device)
            for name in ("is_first", "mask", "position")
        }
        return Windows(**scaled, **others)

    def policy(self, actions: Tensor | Policy) -> Policy:
        """The policy that a model calls, for actions `(n, H, A)` or a policy in raw units."""
        if isinstance(actions, Tensor):
            given = actions.to(self.action.shift.device)
            return OpenLoop(self.action.standardised(given))
        scale, restored = self.action.standardised, self.observation.restored
        return lambda x, hidden_state, t: scale(actions(restored(x), hidden_state, t))

    def imagined(self, made: Imagined) -> Imagined:
        """An imagined trajectory in raw units."""
        shift = torch.cat([self.observation.shift, self.outcome.shift])
        deviation = torch.cat([self.observation.deviation, self.outcome.deviation])
        return replace(
            made,
            observation=self.observation.restored(made.observation),
            outcome=self.outcome.restored(made.outcome),
            mean=None if made.mean is None else made.mean * deviation + shift,
            scale=None if made.scale is None else made.scale * deviation,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name, for a file."""
        parts = self._parts().items()
        return {f"{name}.shift": part.shift for name, part in parts} | {
            f"{name}.deviation": part.deviation for name, part in parts
        }

    @classmethod
    def of_tensors(cls, named: dict[str, Tensor]) -> Scaling:
        """The inverse of `tensors`; other names are ignored."""
        parts = ("observation", "action", "outcome")
        return cls(*(Standard(named[f"{p}.shift"], named[f"{p}.deviation"]) for p in parts))

    def _parts(self) -> dict[str, Standard]:
        return {"observation": self.observation, "action": self.action, "outcome": self.outcome}
