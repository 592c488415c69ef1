"""When and how a latent model is fitted to an agent's observations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from rlkit.names import require_known

LEAST = {"frames": 2, "refresh_every": 0}


@dataclass(frozen=True)
class Pretraining:
    """How a latent model is fitted before the training; afterwards it is frozen or fitted again.

    Frames come from random actions in short episodes: initial states and desired goals vary more
    than what random actions reach. They do not count as steps of the training.
    """

    frames: int = 6_000
    """Images to fit to, >= 2."""
    stay: int = 10
    """Random actions between two resets, >= 1."""
    steps: int = 3_000
    """Gradient steps, >= 1."""
    batch_size: int = 64
    """Images per step, >= 1."""
    learning_rate: float = 1e-3
    """Adam's step size, > 0."""
    near: int = 3
    """Random actions within which images count as near each other, >= 1 and at most `stay`; with
    `reward_source = "latent"`, the threshold is what separates these from other pairs."""
    refresh_every: int = 0
    """Steps of the training until the model is fitted again, to the replay buffer's contents, >= 0;
    0 is never."""
    refresh_steps: int = 500
    """Gradient steps of such a fit, >= 1."""
    refresh_growth: float = 1.0
    """What `refresh_every` is multiplied by after each of them, >= 1: above 1 the first ones, when
    most is new, are close together."""

    def __post_init__(self) -> None:
        """Refuses values out of range, by name."""
        for field in fields(self):
            value, least = getattr(self, field.name), LEAST.get(field.name, 1)
            if field.name == "learning_rate":
                if not value > 0:
                    raise ValueError(f"pretraining: learning_rate = {value!r} must be > 0")
            elif field.name == "refresh_growth":
                if not 1 <= value < math.inf:
                    raise ValueError(f"pretraining: refresh_growth = {value!r} must be >= 1")
            elif not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(
                    f"pretraining: {field.name} = {value!r} must be a whole number >= {least}"
                )
        if self.near > self.stay:
            raise ValueError(
                f"pretraining: near = {self.near} must be at most stay = {self.stay}, the random "
                f"actions between two resets"
            )

    def interval(self, refreshes: int) -> float:
        """Steps of the training between a fit and the next, after so many since the first."""
        return self.refresh_every * self.refresh_growth**refreshes


def pretraining_of(options: Mapping[str, Any] | None) -> Pretraining:
    """Settings by name.

    Raises:
        ValueError: If one is unknown or out of range.
    """
    options = options or {}
    require_known("pretraining", options, {field.name for field in fields(Pretraining)})
    return Pretraining(**options)
