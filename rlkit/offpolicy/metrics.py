"""Training metrics between two writings to the logger: losses, hindsight, goals reached."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.logger import Logger
from torch import Tensor

from rlkit.goals import GoalRule
from rlkit.networks import DivergenceError
from rlkit.networks.gradient import SKIPPED
from rlkit.replay import Batch

RECENT_GOALS = 2000
EXPLORER = "explorer_"
"""Begins the names of an explorer's metrics."""


class TrainingMetrics:
    """Sums of metrics; part of the exact state of a training."""

    def __init__(self) -> None:
        # Learners may have different metrics in different phases: sums by the joined names.
        self._sums: dict[str, tuple[Tensor, int]] = {}
        # Relabelled rows and their successes, rows with original goals and their successes.
        self._hindsight = np.zeros(4)
        # Weight of relabelled rows whose goal is achieved before the action, and of all of them.
        self._already = np.zeros(2)
        self._moved = np.zeros(2)  # episodes in which the achieved goal moved, and all
        self._goals: deque[tuple[NDArray[Any], bool]] = deque(maxlen=RECENT_GOALS)
        self._skipped = 0

    def add_update(self, names: list[str], values: Tensor) -> None:
        """Takes in the metrics of one update, `values (M,)`.

        `skipped_updates` among them is 1 where the update was skipped, and nothing else counts.
        """
        key = ",".join(names)
        if key in self._sums:
            total, count = self._sums[key]
            self._sums[key] = (total + values, count + 1)
        else:
            self._sums[key] = (values.clone(), 1)  # it may be a part of something larger

    def add_batch(self, batch: Batch, rule: GoalRule | None) -> None:
        """Counts how many of a batch's goals were relabelled, and which of them are reached."""
        if rule is None or batch.desired_goal is None:
            return
        learned = batch.mask
        observed, goal = batch.observation["achieved_goal"], batch.desired_goal[learned]
        success = rule.success(observed[:, 1 : learned.shape[1] + 1][learned], goal)
        rows = batch.relabelled[learned]
        hits = (success & rows).sum(), (success & ~rows).sum()
        self._hindsight += [rows.sum(), hits[0], (~rows).sum(), hits[1]]
        already = rule.success(observed[:, : learned.shape[1]][learned], goal)
        weight = batch.loss_weight()[learned] * rows
        self._already += [weight[already].sum(), weight.sum()]

    def add_step(
        self, reward: NDArray[Any], next_observation: Any, dones: NDArray[np.bool_], rule: Any
    ) -> None:
        """Takes in a step of training, for metrics that compare it with a prediction.

        Args:
            reward: `(n,)`, as the replay buffer stores it.
            next_observation: As the agent works with it, after the step; where an episode ended,
                its last observation.
            dones: Where it ended, `(n,)`.
            rule: The goal rule; None without goals.
        """

    def add_episodes(self, moved: NDArray[np.bool_]) -> None:
        """Takes in whether the achieved goal moved in episodes that ended, `(n,)`."""
        self._moved += [moved.sum(), len(moved)]

    def add_goal(self, goal: NDArray[Any], reached: bool) -> None:
        """Takes in the goal of an episode that ended, and whether it was reached."""
        self._goals.append((np.array(goal), reached))

    @property
    def goal_outcomes(self) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Goals `(N, *goal)` of recent episodes and whether each was reached `(N,)`."""
        if not self._goals:
            return np.zeros((0, 2)), np.zeros(0, np.bool_)
        goals, reached = zip(*self._goals, strict=True)
        return np.stack(goals), np.array(reached)

    @property
    def updates(self) -> int:
        """Updates since the last call of `write`, without those of an explorer."""
        return sum(count for key, (_, count) in self._sums.items() if EXPLORER not in key)

    def write(self, logger: Logger) -> None:
        """Records the means since the last call, and starts again.

        Raises:
            DivergenceError: If a metric is not finite.
        """
        for key, (total, count) in self._sums.items():
            names = key.split(",")
            skipped = round(float(total[names.index(SKIPPED)])) if SKIPPED in names else 0
            self._skipped += skipped
            if skipped == count:
                continue
            for name, value in zip(names, (total / (count - skipped)).tolist(), strict=True):
                if not np.isfinite(value):
                    raise DivergenceError(
                        f"{name} became {value}: training has diverged. Lower learning_rate, or "
                        f"resume from the last checkpoint with other settings."
                    )
                if name != SKIPPED:
                    logger.record(f"train/{name}", value)
        if self._skipped > 0:
            logger.record(f"train/{SKIPPED}", self._skipped)
        self._write_goals(logger)
        self._sums = {}
        self._hindsight, self._already, self._moved = np.zeros(4), np.zeros(2), np.zeros(2)

    def _write_goals(self, logger: Logger) -> None:
        relabelled, hits, original, original_hits = self._hindsight
        if relabelled + original > 0:
            logger.record("hindsight/relabelled", relabelled / (relabelled + original))
        if relabelled > 0:
            logger.record("hindsight/relabelled_success", hits / relabelled)
        if self._already[1] > 0:
            logger.record("hindsight/already_achieved", self._already[0] / self._already[1])
        if original > 0:
            logger.record("hindsight/original_success", original_hits / original)
        if self._moved[1] > 0:
            logger.record("rollout/goal_moved", self._moved[0] / self._moved[1])

    def state_dict(self) -> dict[str, Any]:
        """All sums and recent goals."""
        return {
            "sums": {key: [total, count] for key, (total, count) in self._sums.items()},
            "hindsight": self._hindsight.copy(),
            "already": self._already.copy(),
            "moved": self._moved.copy(),
            "goals": list(self.goal_outcomes),
            **({SKIPPED: self._skipped} if self._skipped > 0 else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self._sums = {key: (total, int(count)) for key, (total, count) in state["sums"].items()}
        self._hindsight = np.array(state["hindsight"])
        self._already = np.array(state.get("already", np.zeros(2)))
        self._moved = np.array(state.get("moved", np.zeros(2)))
        self._skipped = int(state.get(SKIPPED, 0))
        goals, reached = state["goals"]
        self._goals.clear()
        self._goals.extend(zip(goals, reached.tolist(), strict=True))
