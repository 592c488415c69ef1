"""Where windows lie in stored episodes, and what recurrent encoders read of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlkit.replay.batch import Array, Batch
from rlkit.replay.storage import EpisodeStorage, Positions

Bounds = tuple[Positions, Positions]
"""First and last stored observation positions of episodes, see `EpisodeStorage.episode_bounds`."""


def choose_windows(
    step: Positions, bounds: Bounds, window: int | None, rng: np.random.Generator
) -> tuple[Positions, int]:
    """Where the windows begin that contain the given steps, and how many records they have.

    A window lies anywhere around its step, moved so far into the episode that it is full if the
    episode is long enough.

    Args:
        step: Positions of steps, `(B,)`.
        bounds: Those of their episodes.
        window: T; None for whole episodes, as long as the longest of them. Nothing is drawn for
            None and 1.
        rng: The source of randomness.
    """
    first, last = bounds
    if window is None:
        return first, int((last - first).max())
    if window == 1:
        return step, 1
    start = step - rng.integers(0, window, size=len(step))
    return np.clip(start, first, np.maximum(first, last - window)), window


def read_sequences(
    storage: EpisodeStorage,
    env: NDArray[np.int64],
    start: Positions,
    bounds: Bounds,
    length: int,
    *,
    burn_in: int = 0,
    previous_action: bool = False,
    previous_reward: bool = False,
) -> Batch:
    """Windows of `burn_in + length` records with the inputs of recurrent encoders.

    See `rlkit.replay.batch` for the conventions.

    Args:
        storage: Where the episodes are.
        env: Environments `(B,)`.
        start: Positions `(B,)` of the first records after the burn-in; each holds a step.
        bounds: Those of their episodes.
        length: Records after the burn-in, at least 1.
        burn_in: Records before, at least 0.
        previous_action: Whether to add the actions that led to the observations.
        previous_reward: Whether to add the rewards that came with them.
    """
    first, last = (bound[:, None] for bound in bounds)
    index = (start - burn_in)[:, None] + np.arange(burn_in + length + 1)
    step = index[:, :-1]
    valid = (step >= first) & (step < last)
    index = np.clip(index, first, last)
    observed = storage.flat(env[:, None], index)
    taken = storage.flat(env[:, None], np.minimum(index[:, :-1], last - 1))
    batch = storage.read_windows(observed, taken, valid, env, start)
    mask = valid.copy()
    mask[:, :burn_in] = False
    is_first = index == first
    earlier = None
    if previous_action or previous_reward:
        earlier = storage.flat(env[:, None], index - 1)
    return batch.replace(
        mask=mask,
        is_first=is_first,
        burn_in=burn_in,
        previous_action=_zeroed(is_first, storage.action, earlier if previous_action else None),
        previous_reward=_zeroed(is_first, storage.reward, earlier if previous_reward else None),
        hidden_state=tuple(
            _zeroed(is_first[:, 0], part, observed[:, 0]) for part in storage.hidden_state
        )
        or None,
    )


def _zeroed(blank: NDArray[np.bool_], column: Array, index: Array | None) -> Array | None:
    """The rows of a column, zero where `blank`; None without an index."""
    if index is None:
        return None
    taken = column.take(index, axis=0)
    taken[blank] = 0
    return taken
