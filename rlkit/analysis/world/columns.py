"""Observations of an environment as columns: vectors as they are, pictures as a latent's codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.goals import is_image_space, vector_size, vectorise
from rlkit.latents import FittedLatent
from rlkit.world import Layout

SEEN, ACHIEVED, DESIRED = "observation", "achieved_goal", "desired_goal"


@dataclass(frozen=True)
class Columns:
    """Makes `(..., F)` of observations, as `rlkit.world.joined` does, pictures through a latent.

    The desired goal is left out, the achieved goal comes last. A picture of the achieved goal is
    what is seen, so that it adds no column.

    Attributes:
        parts: Key and space of what is joined, in this order; a plain observation has no key.
        latent: Makes codes of pictures; None where there are none.
    """

    parts: tuple[tuple[str, spaces.Space[Any]], ...]
    latent: FittedLatent | None = None

    @classmethod
    def of(cls, name: str, space: spaces.Space[Any], latent: FittedLatent | None = None) -> Columns:
        """The columns of a space.

        Args:
            name: Of the environment, for errors.
            space: Of one observation.
            latent: Makes codes of pictures.

        Raises:
            ValueError: If there are pictures and no latent, or the other way round, or the
                pictures are of another shape than the latent's.
        """
        found = dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}
        found.pop(DESIRED, None)
        goal = found.pop(ACHIEVED, None)
        if goal is not None and not is_image_space(goal):
            found[ACHIEVED] = goal
        shown = {key or SEEN: part.shape for key, part in found.items() if is_image_space(part)}
        if shown and latent is None:
            raise ValueError(
                f"{name} shows pictures under {sorted(shown)}: name a latent model that makes "
                f"codes of them, --latent FOLDER; `rlkit latent train` makes one"
            )
        if latent is not None and set(shown.values()) != {latent.shape}:
            raise ValueError(
                f"the latent model reads pictures of shape {latent.shape}, {name} has "
                f"{shown or 'none'}: give one that was trained on this environment"
            )
        return cls(tuple(found.items()), latent)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns, `"observation 0"` say."""
        return tuple(
            f"{'code' if is_image_space(space) else (key or SEEN).replace('_', ' ')} {i}"
            for key, space in self.parts
            for i in range(self._width(space))
        )

    def layout(self, action_space: spaces.Space[Any], outcomes: Sequence[str]) -> Layout:
        """Which columns are what."""
        widths = {key: self._width(space) for key, space in self.parts}
        total, goal = sum(widths.values()), widths.get(ACHIEVED, 0)
        achieved = tuple(range(total - goal, total))
        return Layout(total, vector_size(action_space), achieved, tuple(outcomes))

    def __call__(self, observation: Any, lead: int = 1) -> NDArray[np.float32]:
        """Columns `(..., F)` of observations with `lead` leading axes."""
        found = [
            self._column(
                space, observation[key] if isinstance(observation, Mapping) else observation, lead
            )
            for key, space in self.parts
        ]
        return np.concatenate(found, axis=-1)

    def _column(self, space: spaces.Space[Any], value: Any, lead: int) -> NDArray[np.float32]:
        if self.latent is not None and is_image_space(space):
            return self.latent.encode(np.asarray(value))
        return vectorise(space, value, lead)

    def _width(self, space: spaces.Space[Any]) -> int:
        if self.latent is not None and is_image_space(space):
            return self.latent.dims
        return vector_size(space)
