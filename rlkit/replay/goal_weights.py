"""Weights of relabelled steps whose new goal teaches little.

Most goals that hindsight draws on manipulation tasks are where the object already lies: the step
succeeds whatever is done. Others lie where no episode is ever asked to go, such as under the table.

Steps of feed-forward agents are chosen by their weights among `CANDIDATES` times as many. Windows
of recurrent agents hold steps of all weights, so there the weights multiply the losses, which
divide by their sum. Both give a step the same share of the expected gradient; but a choice is
filled up with steps of low weight where too few candidates have a high one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.goals.rule import GoalRule
from rlkit.replay.batch import Array

CANDIDATES = 3
"""Steps drawn for each that is chosen."""


class GoalWeights:
    """What relabelled steps count by the goal that they got.

    Args:
        already_achieved: Weight, in (0, 1], where the goal is satisfied before the action.
        out_of_range: Weight, in (0, 1], where the goal lies outside the range of goals asked so
            far: where it would not satisfy the rule for the nearest point of their bounding box.
            The rule's own tolerance widens the box. Where both weights apply, the lower counts.
        space: Space of a goal as it is stored.

    Attributes:
        low: Lower corner of the box of all goals asked so far, `(*goal)`; infinite before any.
        high: Its upper corner.

    Raises:
        ValueError: If a weight is out of range, or goals have no box.
    """

    def __init__(
        self,
        already_achieved: float = 1.0,
        out_of_range: float = 1.0,
        space: spaces.Space[Any] | None = None,
    ) -> None:
        for name, value in (
            ("already_achieved_weight", already_achieved),
            ("out_of_range_weight", out_of_range),
        ):
            if not 0 < value <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {value}")
            if value < 1 and space is None:
                raise ValueError(
                    f"{name} = {value} weights relabelled goals, and observations have none: leave "
                    f"it out"
                )
        self.already_achieved, self.out_of_range = already_achieved, out_of_range
        self.keeps_range = out_of_range < 1
        if not self.keeps_range:
            return
        if not isinstance(space, spaces.Box) or space.dtype == np.uint8:
            raise ValueError(
                f"out_of_range_weight = {out_of_range} needs goals that are vectors of a Box, and "
                f"they are of {space}: leave it out"
            )
        self.low, self.high = np.empty(space.shape), np.empty(space.shape)
        self.forget()

    @property
    def is_on(self) -> bool:
        """Whether any goal counts less than 1."""
        return self.already_achieved < 1 or self.keeps_range

    def observe(self, asked: Array) -> None:
        """Widens the range by goals `(N, *goal)` that episodes are asked for."""
        if self.keeps_range:
            np.minimum(self.low, asked.min(axis=0), out=self.low)
            np.maximum(self.high, asked.max(axis=0), out=self.high)

    def forget(self) -> None:
        """Makes the range empty."""
        if self.keeps_range:
            self.low[...], self.high[...] = np.inf, -np.inf

    def weigh(self, rule: GoalRule, achieved: Array, goal: Array) -> NDArray[np.float32]:
        """Weights `(N,)` of relabelled steps.

        Args:
            rule: Says whether a goal is satisfied.
            achieved: Goals achieved before the action, `(N, *goal)`.
            goal: The new goals, `(N, *goal)`.
        """
        weight = np.ones(len(goal), np.float32)
        if self.already_achieved < 1:
            weight[rule.success(achieved, goal)] = self.already_achieved
        if self.keeps_range:
            nearest = goal.clip(self.low, self.high).astype(goal.dtype, copy=False)
            beyond = np.flatnonzero((nearest != goal).reshape(len(goal), -1).any(axis=1))
            if len(beyond):
                beyond = beyond[~rule.success(goal[beyond], nearest[beyond])]
                weight[beyond] = np.minimum(weight[beyond], self.out_of_range)
        return weight

    def state_dict(self) -> dict[str, Array]:
        """The range; empty where none is kept."""
        return {"low": self.low.copy(), "high": self.high.copy()} if self.keeps_range else {}

    def load_state_dict(self, state: Mapping[str, Array], asked: Array) -> None:
        """Restores what `state_dict` gave.

        Args:
            state: It; empty if it was saved where no range was kept.
            asked: Goals `(N, *goal)` that are left of that time, and make the range then.
        """
        if not self.keeps_range:
            return
        if state:
            self.low, self.high = (np.array(state[name], np.float64) for name in ("low", "high"))
            return
        self.forget()
        if len(asked):
            self.observe(asked)


def choose(
    weight: NDArray[np.floating[Any]], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """`count` of N candidates without replacement, by their weights `(N,)` > 0, in their order.

    Candidates that are drawn alike stay so: any part of the result is such a choice, too.

    Source: Efraimidis and Spirakis 2006, algorithm A: those of the largest keys u^(1/w), u uniform.
    Here the smallest -log(u) / w, which orders them alike and cannot underflow.
    """
    key = rng.standard_exponential(len(weight)) / weight
    chosen = np.zeros(len(weight), np.bool_)
    chosen[np.argpartition(key, count - 1)[:count]] = True
    return np.flatnonzero(chosen)
