"""The shape of experience, written once here and relied upon everywhere.

Conventions:

- Batch first: `(B, T, ...)`. Record t of a window holds `observation_t, action_t, reward_t,
  terminated_t, truncated_t, is_first_t`; `reward_t` is caused by `action_t`.
- A window of T records carries T + 1 observations, so the last next-observation always exists.
- A window lies inside one episode. Where the episode is shorter, the rest is padding under `mask`;
  a loss divides by `mask.sum()`. Padding repeats the last valid observation.
- Only `terminated` stops a bootstrap; `truncated` never does.
- Reward and termination of step t are those of the achieved goal after the action, at t + 1.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """B windows of T records. See the module for the conventions.

    Attributes:
        observation: Every observation key but the desired goal, `(B, T + 1, ...)` each.
        desired_goal: Goal pursued in each step, `(B, T, *goal)`; None without goals.
        action: `(B, T, *action)`.
        reward: `(B, T)`; after n-step summing, the discounted sum until `bootstrap`.
        terminated: `(B, T)`, whether no value follows (within the summed steps).
        truncated: `(B, T)`.
        is_first: `(B, T + 1)`, whether an observation is its episode's first.
        mask: `(B, T)`, False on padding.
        relabelled: `(B, T)`, whether hindsight replaced the goal.
        bootstrap: `(B, T)` integers: which of the T + 1 observations the value follows from.
        discount: `(B, T)` weight of that value: gamma to the number of summed steps, 0 where
            `terminated`. None until n-step summing has set both.
        position: `(B,)` storage positions of the windows' first records.
    """

    observation: dict[str, Array]
    desired_goal: Array | None
    action: Array
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    is_first: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    relabelled: NDArray[np.bool_]
    position: NDArray[np.int64]
    bootstrap: NDArray[np.int64] | None = None
    discount: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.action)

    @property
    def observation_count(self) -> int:
        """Observations per window: T + 1, or more where n-step sums look further ahead."""
        return int(self.is_first.shape[1])

    def split(self, count: int) -> list[Batch]:
        """Batches of `count` windows each, in order; B must be a multiple of `count`."""
        arrays = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name != "observation" and getattr(self, field.name) is not None
        }

        def part(rows: slice) -> Batch:
            return self.replace(
                observation={key: value[rows] for key, value in self.observation.items()},
                **{name: array[rows] for name, array in arrays.items()},
            )

        return [part(slice(i, i + count)) for i in range(0, len(self), count)]

    def replace(self, **changes: Any) -> Batch:
        """A copy with some fields exchanged."""
        return replace(self, **changes)
