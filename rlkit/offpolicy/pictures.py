"""Which parts of an observation are pictures, of which a latent model makes codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from rlkit.goals import is_goal_space, is_image_space

SEEN, ACHIEVED, DESIRED = "observation", "achieved_goal", "desired_goal"


def vectors(width: int) -> spaces.Box:
    """The space of codes of a width."""
    return spaces.Box(-np.inf, np.inf, (width,), np.float32)


def pictures_of(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """The parts of an observation that become codes, by key.

    Raises:
        ValueError: If there are none, or only one of achieved and desired goals are pictures.
    """
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {SEEN: space}
    found = {key: part for key, part in parts.items() if is_image_space(part)}
    if not found and isinstance(parts.get(SEEN), spaces.Box) and len(parts[SEEN].shape or ()) == 1:
        found = {SEEN: parts[SEEN]}  # a wide vector
    allowed = [{SEEN}] + ([{SEEN, ACHIEVED, DESIRED}] if is_goal_space(space) else [])
    if set(found) not in allowed:
        raise ValueError(
            f"a latent model needs pictures, uint8 of shape (height, width, channels), under "
            f"'observation', or under all of 'observation', 'achieved_goal' and 'desired_goal'; "
            f"found them under {sorted(found)} of {space}. Set latent = none, or wrap the "
            f"environment in rlkit.envs.wrappers.pixel_observation.PixelObservation"
        )
    return found


def common_shape(parts: Mapping[str, spaces.Space[Any]]) -> tuple[int, ...]:
    """The shape of all parts; raises a ValueError if they have several."""
    shapes = {key: tuple(part.shape or ()) for key, part in parts.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"pictures of one size are needed, so that one model fits; got {shapes}")
    return next(iter(shapes.values()))
