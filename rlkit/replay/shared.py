"""Achieved goals that are the observation itself, so that each picture is stored once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from rlkit.goals.env import is_image_space

Share = bool | Literal["auto"]
GOAL, SEEN = "achieved_goal", "observation"


def parts_of(
    space: spaces.Space[Any],
) -> tuple[dict[str, spaces.Space[Any]], spaces.Space[Any] | None]:
    """What of an observation is kept per step, by key; and the goal, kept once, None for none."""
    keyed = dict(space.spaces) if isinstance(space, spaces.Dict) else {SEEN: space}
    return keyed, keyed.pop("desired_goal", None)


def shared_keys(keyed: Mapping[str, spaces.Space[Any]], share: Share) -> dict[str, str]:
    """Keys that are not stored, and the key that holds the same.

    Args:
        keyed: Spaces of the observation by key.
        share: True to store the achieved goal and the observation as one, False to store both,
            "auto" to store them as one where both are pictures: the same space of uint8 with at
            least 3 axes.

    Raises:
        ValueError: If they are to be one, and their spaces differ.
    """
    if share not in (True, False, "auto"):
        raise ValueError(f'share must be "auto", true or false, got {share!r}')
    goal, seen = keyed.get(GOAL), keyed.get(SEEN)
    same = goal is not None and goal == seen
    if share is True and not same:
        raise ValueError(
            f"share=True stores {GOAL!r} and {SEEN!r} as one, but their spaces are {goal} and "
            f"{seen}: set share=False"
        )
    if share is False or not same or (share == "auto" and not is_image_space(goal, stacks=True)):
        return {}
    return {GOAL: SEEN}


def check_shared(observation: Mapping[str, Any], shared: Mapping[str, str]) -> None:
    """Raises ValueError if what is stored as one differs."""
    for key, source in shared.items():
        one, other = observation[key], observation[source]
        if one is not other and not np.array_equal(one, other):
            raise ValueError(
                f"{key!r} and {source!r} are stored as one, but this step's differ: set "
                f"share=False to store both"
            )
