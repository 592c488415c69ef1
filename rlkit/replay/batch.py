"""Batches of experience: their shapes and conventions, and n-step returns inside them.

Conventions:

- Batch first: `(B, T, ...)`. Record t of a window holds `observation_t, action_t, reward_t,
  terminated_t, truncated_t, is_first_t`; `reward_t` is caused by `action_t`.
- A window of T records carries T + 1 observations, so the last next observation always exists.
- A window lies inside one episode. Where the episode is shorter, the rest is padding under `mask`;
  a loss divides by `mask.sum()`. Padding repeats the last valid observation.
- The first `burn_in` of the T records are context for a recurrent encoder, and `mask` is False on
  them. Those before the episode's start are padding that repeats the first observation with
  `is_first` set, so the hidden state is reset until the episode truly starts.
- In windows for recurrent encoders an episode whose beginning is overwritten starts with the oldest
  observation that is left: `is_first` is True there, as no hidden state reaches further back.
- `previous_action_t` and `previous_reward_t` led to `observation_t`; zero where `is_first_t`.
- `hidden_state` is the one that the agent had when the step was taken. Relabelling does not
  recompute it: where goals or rewards enter the encoder, it still reflects the original ones.
- Only `terminated` stops a bootstrap; `truncated` never does.
- Reward and termination of step t are those of the achieved goal after the action, at t + 1.
- Steps after a relabelled goal's termination did not happen under that goal: `mask` is False.
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
        mask: `(B, T)`, whether a record counts: False on padding and burn-in.
        relabelled: `(B, T)`, whether hindsight replaced the goal; False on padding.
        env: `(B,)` environments that the windows come from.
        position: `(B,)` storage positions of the windows' first records after the burn-in; record t
            is at `position + t - burn_in`.
        bootstrap: `(B, T)` integers: which of the T + 1 observations the value follows from.
        discount: `(B, T)` weight of that value: gamma to the number of summed steps, 0 where
            `terminated`. None until n-step summing has set both.
        burn_in: K, how many of the T records only prepare the hidden state.
        previous_action: `(B, T + 1, *action)`; None unless requested.
        previous_reward: `(B, T + 1)`, of one step and under the window's goal; None unless
            requested.
        hidden_state: Hidden state before the window's first observation, `(B, *shape)` each, zero
            where that observation is an episode's first; None unless stored.
        weight: `(B, T)`, what a record counts in losses beside `mask`, by its relabelled goal; None
            where all count alike.
        steps_to_goal: `(B, T)`, steps until the stored episode achieved the relabelled goal, at
            least 1; 0 where the goal is not one that it achieved later, and where it is achieved
            before the action. None unless requested.
        importance: `(B,)`, what a window counts in losses because of how often it is drawn; None
            where all are drawn alike.
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
    env: NDArray[np.int64]
    position: NDArray[np.int64]
    bootstrap: NDArray[np.int64] | None = None
    discount: NDArray[np.float32] | None = None
    burn_in: int = 0
    previous_action: Array | None = None
    previous_reward: NDArray[np.float32] | None = None
    hidden_state: tuple[Array, ...] | None = None
    weight: NDArray[np.float32] | None = None
    steps_to_goal: NDArray[np.int32] | None = None
    importance: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.action)

    @property
    def observation_count(self) -> int:
        """Observations per window: T + 1, or more where n-step sums look further ahead."""
        return int(self.is_first.shape[1])

    def loss_weight(self) -> NDArray[np.float32]:
        """What losses weight records by, before they are normalised: `mask` times `weight`."""
        mask = self.mask.astype(np.float32)
        return mask if self.weight is None else mask * self.weight

    def part(self, rows: slice) -> Batch:
        """Some of the windows."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Batch(**{name: _rows(value, rows) for name, value in values.items()})

    def replace(self, **changes: Any) -> Batch:
        """A copy with some fields exchanged."""
        return replace(self, **changes)


def _rows(value: Any, rows: slice) -> Any:
    if isinstance(value, dict):
        return {key: part[rows] for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(part[rows] for part in value)
    return value[rows] if isinstance(value, np.ndarray) else value


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
        weight=None if batch.weight is None else batch.weight[:, keep],
        steps_to_goal=None if batch.steps_to_goal is None else batch.steps_to_goal[:, keep],
        bootstrap=bootstrap,
        discount=np.where(terminated, 0.0, weight).astype(np.float32),
    )
