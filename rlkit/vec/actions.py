"""What environments may be given as actions."""

from __future__ import annotations

from typing import Any

import numpy as np


def require_finite_actions(actions: Any) -> None:
    """Raises an error if an action is NaN or infinite, so that no environment ever gets it.

    Args:
        actions: `(N, *action)`.

    Raises:
        FloatingPointError: If one is.
    """
    array = np.asarray(actions)
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    raise FloatingPointError(
        f"the agent's action for environment {place[0]} is {array[place]}: its weights have "
        f"diverged, or an observation is too large for them. Lower learning_rate, scale "
        f"observations and rewards, or load an earlier checkpoint"
    )
