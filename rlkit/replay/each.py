"""Records of windows taken one by one, each with a goal of its own, and put back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlkit.replay.batch import Batch

Places = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Rows and columns of records in `(B, T)`."""


def split_steps(batch: Batch, steps: int) -> tuple[Batch, Places]:
    """Every record that counts as a window of its own, with all that its n-step sum needs.

    Observations but the achieved goal are left out.

    Args:
        batch: B windows of T + steps - 1 records.
        steps: n of the n-step sums.

    Returns:
        Windows of n records, and where in `(B, T)` their first records come from.
    """
    width = batch.mask.shape[1]
    rows, columns = np.nonzero(batch.mask[:, : width - steps + 1])
    ahead = (rows * width + columns)[:, None] + np.arange(steps)
    seen = (rows * (width + 1) + columns)[:, None] + np.arange(steps + 1)
    achieved = batch.observation["achieved_goal"]
    goal = batch.desired_goal
    assert goal is not None
    alone = Batch(
        observation={"achieved_goal": achieved.reshape(-1, *achieved.shape[2:]).take(seen, axis=0)},
        desired_goal=goal.reshape(-1, *goal.shape[2:]).take(ahead, axis=0),
        action=batch.action.reshape(-1, *batch.action.shape[2:]).take(ahead, axis=0),
        reward=batch.reward.take(ahead),
        terminated=batch.terminated.take(ahead),
        truncated=batch.truncated.take(ahead),
        is_first=batch.is_first.take(seen),
        mask=batch.mask.take(ahead),
        relabelled=batch.relabelled.take(ahead),
        position=batch.position.take(rows) + columns - batch.burn_in,
    )
    return alone, (rows, columns)


def join_steps(batch: Batch, alone: Batch, places: Places) -> Batch:
    """The windows again, with goals, rewards and ends as their records now have them.

    Args:
        batch: The B windows, summed over n steps, whose other records stay.
        alone: Their records, summed over n steps.
        places: Where these go.
    """
    changed = {}
    for name in ("desired_goal", "reward", "terminated", "relabelled", "discount"):
        changed[name] = getattr(batch, name).copy()
        changed[name][places] = getattr(alone, name)[:, 0]
    assert batch.bootstrap is not None
    assert alone.bootstrap is not None
    bootstrap = batch.bootstrap.copy()
    bootstrap[places] = alone.bootstrap[:, 0] + places[1]
    return batch.replace(bootstrap=bootstrap, **changed)
