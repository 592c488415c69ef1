"""n-step returns inside windows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlkit.replay.batch import Batch


def sum_steps(
    batch: Batch, gamma: float, steps: int, stop: NDArray[np.bool_] | None = None
) -> Batch:
    """Discounted sums over up to `steps` rewards, and where the value continues from.

    The sum from t ends early after a termination, a success (`stop`) and the window's valid part:
    a shorter sum is always a valid target, and a longer one would mix in what was done after the
    goal. A truncation ends it too, but its value still bootstraps.

    Source: Sutton 1988; for hindsight the goal's own end is known only after relabelling, so this
    runs last.

    Args:
        batch: B windows of T + steps - 1 records.
        gamma: Discount of one step, in [0, 1].
        steps: n, at least 1.
        stop: Additional places to end a sum after, `(B, T + steps - 1)`.

    Returns:
        The first T records of each window, all T + steps observations, with `reward`, `bootstrap`,
        `discount` and `terminated` of the sums.
    """
    records = batch.mask.shape[1] - steps + 1
    end = batch.terminated if stop is None else batch.terminated | stop  # the mask ends the rest
    total = np.zeros((len(batch), records), np.float64)
    weight = np.ones((len(batch), records), np.float64)
    bootstrap = np.broadcast_to(np.arange(records), total.shape).copy()
    terminated = np.zeros(total.shape, np.bool_)
    running = batch.mask[:, :records].copy()
    for k in range(steps):
        part = slice(k, k + records)
        running = running & batch.mask[:, part]
        total += np.where(running, weight * batch.reward[:, part], 0.0)
        weight = np.where(running, weight * gamma, weight)
        bootstrap += running
        terminated |= running & batch.terminated[:, part]
        running = running & ~end[:, part]
    keep = slice(0, records)
    return batch.replace(
        desired_goal=None if batch.desired_goal is None else batch.desired_goal[:, keep],
        action=batch.action[:, keep],
        reward=total.astype(np.float32),
        terminated=terminated,
        truncated=batch.truncated[:, keep],
        mask=batch.mask[:, keep],
        relabelled=batch.relabelled[:, keep],
        bootstrap=bootstrap,
        discount=np.where(terminated, 0.0, weight).astype(np.float32),
    )
