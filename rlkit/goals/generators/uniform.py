"""Goals drawn uniformly from a box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces

from rlkit.goals.env import is_image_space
from rlkit.goals.generators.contract import GoalContext, check_number
from rlkit.goals.rule import Array, BoolArray


@dataclass
class Uniform:
    """Draws goals uniformly from the goal space, or from the box of the goals achieved so far.

    A component whose bounds in the goal space are infinite is drawn between the lowest and the
    highest value that finished episodes achieved in the end. Until one has finished, the
    environment's goals stay.
    """

    share: float = 1.0
    """Share of training episodes that pursue a drawn goal, in [0, 1]."""
    _low: Array = field(init=False, repr=False, compare=False)
    _high: Array = field(init=False, repr=False, compare=False)
    _bounded: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuses values out of range, by name."""
        check_number("uniform", "share", self.share, 0, 1)

    def attach(self, context: GoalContext) -> None:
        """Takes the goal space; refuses one that is no box of floats, or one of images."""
        space = context.space
        if not isinstance(space, spaces.Box) or is_image_space(space, stacks=True):
            raise ValueError(
                f"uniform: goals of {space} cannot be drawn from a box; set goal_generator = "
                f'"imagined", which draws achieved goals'
            )
        self._low, self._high = space.low.astype(np.float64), space.high.astype(np.float64)
        self._bounded = np.isfinite(self._low) & np.isfinite(self._high)
        self._low[~self._bounded], self._high[~self._bounded] = np.inf, -np.inf

    def propose(self, desired: Array, rng: np.random.Generator) -> Array:
        """Drawn goals `(n, *goal)`; the given ones while the box is not known."""
        if (self._low > self._high).any():
            return desired
        return rng.uniform(self._low, self._high, desired.shape).astype(desired.dtype)

    def observe(self, goals: Array, achieved: Array, success: BoolArray) -> None:
        """Extends the box of components without bounds."""
        low, high = achieved.min(axis=0), achieved.max(axis=0)
        self._low = np.where(self._bounded, self._low, np.minimum(self._low, low))
        self._high = np.where(self._bounded, self._high, np.maximum(self._high, high))

    def state_dict(self) -> dict[str, Any]:
        """The box."""
        return {"low": self._low, "high": self._high}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self._low, self._high = np.array(state["low"]), np.array(state["high"])
