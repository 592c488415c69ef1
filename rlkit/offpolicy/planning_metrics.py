"""Metrics of agents that plan: their plans, their world model, and the imagination gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.logger import Logger

from rlkit.goals import GoalRule
from rlkit.networks.encoders import HiddenState
from rlkit.offpolicy.metrics import TrainingMetrics
from rlkit.planning import Plan, PredictedOutcome

COUNTED = ("world/nonfinite", "world/fallbacks")
CLOCK = "planner/milliseconds"


@dataclass(frozen=True)
class Decision:
    """Planned actions in n environments.

    Attributes:
        action: `(n, A)` in [-1, 1], or integers `(n,)`.
        hidden_state: After the action.
        plan: The plan; None before the world is fitted.
        predicted: The imagined outcome of the plan; None likewise.
        fallback: `(n,)`, where no roll-out was finite and the action is random.
    """

    action: NDArray[Any]
    hidden_state: HiddenState
    plan: Plan | None
    predicted: PredictedOutcome | None
    fallback: NDArray[np.bool_]


class PlanningMetrics(TrainingMetrics):
    """A report that also compares imagined with real outcomes.

    A segment begins with a plan and lasts for the planner's horizon, or until the episode ends; the
    next one begins with the next plan. `imagination/gap` is the imagined return of the plan minus
    the real one, over segments, without discount; `imagination/success_gap` the same for being at
    the goal at the segment's end. The agent plans anew in every step, so even with a perfect world
    model the real return may be higher. An overconfident agent has a gap > 0.

    Args:
        count: Environments that the agent trains in.
        horizon: H of its planner.

    Attributes:
        fitted: The replay buffer's cursor `(count,)` at the last fit.
    """

    def __init__(self, count: int, horizon: int) -> None:
        super().__init__()
        self._imagined = np.zeros((count, horizon))  # return up to each step of a segment
        self._success = np.zeros((count, horizon))
        self._real = np.zeros(count)
        self._age = np.full(count, -1)  # steps since the segment began, -1 without one
        self.fitted = np.zeros(count, np.int64)
        self._means: dict[str, tuple[float, int]] = {}
        self._counts = dict.fromkeys(COUNTED, 0)

    def add(self, name: str, values: Any) -> None:
        """Adds numbers `(n,)` to the mean that is logged under a name."""
        values = np.atleast_1d(np.asarray(values, np.float64))
        total, count = self._means.get(name, (0.0, 0))
        if len(values):
            self._means[name] = (total + float(values.sum()), count + len(values))

    def add_decision(self, decision: Decision, is_first: NDArray[Any]) -> None:
        """Counts a decision of training, and begins segments where there is none.

        Args:
            decision: One without a plan is not counted.
            is_first: Where an episode begins, `(n,)`.
        """
        plan, predicted, fallback = decision.plan, decision.predicted, decision.fallback
        if plan is None or predicted is None:
            return
        self._counts["world/nonfinite"] += int(plan.rejected.sum())
        self._counts["world/fallbacks"] += int(fallback.sum())
        good = ~fallback
        self.add(CLOCK, plan.milliseconds)
        self.add("planner/samples", plan.samples)
        for name, value in {
            "planner/score": plan.score,
            "planner/spread": plan.spread,
            "planner/uncertainty": predicted.uncertainty,
        }.items():
            self.add(name, value.numpy()[good])
        self._age[is_first] = -1  # an episode that was cut has no outcome
        begins = (self._age < 0) & good
        self._imagined[begins] = predicted.reward.numpy().cumsum(1)[begins]
        if predicted.success is not None:
            self._success[begins] = predicted.success.numpy()[begins]
        self._real[begins] = 0.0
        self._age[begins] = 0

    def add_step(
        self, reward: NDArray[Any], observed: Any, dones: NDArray[np.bool_], rule: GoalRule | None
    ) -> None:
        """Ends complete segments; see `TrainingMetrics.add_step`."""
        running = self._age >= 0
        self._real[running] += reward[running]
        self._age[running] += 1
        over = running & (dones | (self._age == self._imagined.shape[1]))
        rows = np.flatnonzero(over)
        last = self._age[rows] - 1
        self._compare("return", self._imagined[rows, last], self._real[rows])
        if rule is not None:
            real = rule.success(observed["achieved_goal"][rows], observed["desired_goal"][rows])
            self._compare("success", self._success[rows, last], np.asarray(real, np.float64))
        self._age[rows] = -1

    def _compare(self, what: str, imagined: NDArray[Any], real: NDArray[Any]) -> None:
        gap = "imagination/gap" if what == "return" else f"imagination/{what}_gap"
        self.add(gap, imagined - real)
        self.add(f"imagination/{what}_imagined", imagined)
        self.add(f"imagination/{what}_real", real)

    def write(self, logger: Logger) -> None:
        """Records the means since the last call and resets them; see `TrainingMetrics.write`."""
        super().write(logger)
        for name, (total, count) in self._means.items():
            logger.record(name, total / count)
        for name, number in self._counts.items():
            logger.record(name, number)
        self._means, self._counts = {}, dict.fromkeys(COUNTED, 0)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the milliseconds, which differ between equal runs."""
        means = {name: list(mean) for name, mean in self._means.items() if name != CLOCK}
        segments = (self._imagined, self._success, self._real, self._age)
        return super().state_dict() | {
            "means": means,
            "counts": dict(self._counts),
            "fitted": self.fitted.copy(),
            "segments": [array.copy() for array in segments],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        super().load_state_dict(state)
        self._means = {name: (total, int(n)) for name, (total, n) in state["means"].items()}
        self._counts = {name: int(number) for name, number in state["counts"].items()}
        self.fitted = np.array(state["fitted"])
        segments = (np.array(array) for array in state["segments"])
        self._imagined, self._success, self._real, self._age = segments


def metrics_of(metrics: dict[str, torch.Tensor]) -> tuple[list[str], torch.Tensor]:
    """Names and values `(M,)` of a step of fitting, as `TrainingMetrics.add_update` takes them."""
    return list(metrics), torch.stack([value.mean().cpu() for value in metrics.values()])
