"""What a learned world says of sequences of actions: the scores that a planner asks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.goals import GoalRule
from rlkit.networks.encoders import HiddenState
from rlkit.world import Imagined, World, goal_outcomes, repeat

ROWS = 4096  # rows that are imagined at a time; more do not stay in the cache


@dataclass(frozen=True)
class PlanningObjective:
    """What is worth something in imagination.

    An imagined step earns the reward, the goal rule's or the learned one, minus `shaping` times the
    Euclidean distance to the goal, in the goal's own units. Sparse rewards alone say nothing until
    some sequence reaches the goal; then they outweigh the distance, and whoever earns the distance
    already is ranked as before. What comes after a termination earns nothing.

    Attributes:
        rule: Judges imagined goals; None without goals.
        goal: The desired goal, `(E, G)`; None without goals.
        gamma: Discount of one step.
        shaping: Weight of the distance, >= 0.
        uncertainty_penalty: Weight of how far a sequence's futures differ in return.
    """

    rule: GoalRule | None
    goal: NDArray[np.float32] | None
    gamma: float
    shaping: float
    uncertainty_penalty: float


@dataclass(frozen=True)
class PredictedOutcome:
    """What was imagined of the best sequence for each of E environments.

    Attributes:
        reward: `(E, H)`, expected, 0 after a termination, without shaping and discount.
        success: `(E, H)`, the chance of having reached the goal at each step; None without goals.
        uncertainty: `(E,)`, standard deviation of the return over its futures.
    """

    reward: Tensor
    success: Tensor | None
    uncertainty: Tensor


class Rollouts:
    """Scores sequences of actions by imagining each of them several times; `Evaluate` to a planner.

    Args:
        world: What imagines.
        hidden_state: What it remembers of E environments.
        objective: What is maximised.
        particles: Futures per sequence, >= 1. As many as an ensemble has members: one of each.
        generator: Source of the futures.
        temperature: How much chance there is within a prediction: 1 as it was learned, 0 none.
    """

    def __init__(
        self,
        world: World,
        hidden_state: HiddenState,
        objective: PlanningObjective,
        particles: int,
        generator: torch.Generator,
        temperature: float = 1.0,
    ) -> None:
        self.world, self.hidden_state, self.objective = world, hidden_state, objective
        self.particles, self.generator, self.temperature = particles, generator, temperature
        self._best: dict[str, Tensor] = {}

    def __call__(self, actions: Tensor) -> Tensor:
        """Scores `(E, N)` of sequences `(E, N, H, A)`; NaN where a future is not finite."""
        count, samples = actions.shape[:2]
        at_once = max(ROWS // (samples * self.particles), 1)
        parts = [
            self._scored(actions[i : i + at_once], slice(i, i + at_once))
            for i in range(0, count, at_once)
        ]
        found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        self._keep_best(found)
        return found["score"]

    @property
    def predicted(self) -> PredictedOutcome:
        """Of the best sequences so far."""
        best, rule = self._best, self.objective.rule
        success = None
        if rule is not None:
            assert self.objective.goal is not None
            achieved = best["achieved"].numpy()
            shape = achieved.shape[:3]
            goal = np.broadcast_to(self.objective.goal[:, None, None], achieved.shape)
            width = achieved.shape[-1]
            reached = rule.success(achieved.reshape(-1, width), goal.reshape(-1, width))
            now = torch.from_numpy(np.asarray(reached).reshape(shape))
            # An episode that ended at its goal stays there.
            success = torch.where(best["running"], now, best["ended"]).float().mean(1)
        return PredictedOutcome(best["reward"].mean(1), success, best["uncertainty"])

    def _scored(self, actions: Tensor, rows: slice) -> dict[str, Tensor]:
        """Score `(e, N)` and the best sequences' futures, `(e, P, H)`, of some environments."""
        count, samples, horizon, _ = actions.shape
        copies = samples * self.particles
        made = self.world.imagine(
            repeat(tuple(part[rows] for part in self.hidden_state), copies),
            actions.flatten(0, 1).repeat_interleave(self.particles, 0),
            generator=self.generator,
            temperature=self.temperature,
        )
        shape = (count, samples, self.particles, horizon)
        reward, ended, more = self._judged(made, rows)
        # Whether an episode still runs when each action is taken.
        running = torch.nn.functional.pad(~ended, (1, -1), value=True).cumprod(1).bool()
        earned = torch.where(running, reward, 0.0)
        worth = earned
        if "distance" in more:
            worth = earned - self.objective.shaping * torch.where(running, more["distance"], 0.0)
        discount = self.objective.gamma ** torch.arange(horizon)
        returns = (worth * discount).sum(1).view(shape[:3])
        finite = made.finite.cpu().view(shape[:3]).all(2)
        uncertainty = returns.std(2, correction=0)
        score = returns.mean(2) - self.objective.uncertainty_penalty * uncertainty
        score = torch.where(finite & score.isfinite(), score, torch.nan)
        best = (torch.arange(count), score.nan_to_num(-torch.inf).argmax(1))
        picked = {"reward": earned, "ended": ended.cumsum(1) > 0, "running": running}
        if "achieved" in more:
            picked["achieved"] = more["achieved"]
        found = {name: x.view(*shape, *x.shape[2:])[best] for name, x in picked.items()}
        return found | {"score": score, "top": score[best], "uncertainty": uncertainty[best]}

    def _judged(self, made: Imagined, rows: slice) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Reward and termination `(n, H)`, and what there is of achieved goals."""
        layout, goal, rule = self.world.layout, self.objective.goal, self.objective.rule
        if goal is None or rule is None:
            # Its noise would only make the luckiest of many sequences look best.
            outcome = made.outcome if made.mean is None else made.mean[..., layout.observation :]
            outcome = outcome.cpu()
            ended = layout.outcome(outcome, "terminated") > 0.5
            return layout.outcome(outcome, "reward"), ended, {}
        # Rules are not made for what is no number; such futures are dropped anyway.
        achieved = layout.achieved_goal(made.observation).cpu().nan_to_num(0.0, 0.0, 0.0)
        desired = goal[rows].repeat(len(achieved) // len(goal[rows]), axis=0)
        judged = [torch.from_numpy(array) for array in goal_outcomes(rule, achieved, desired)]
        distance = (achieved - torch.from_numpy(desired)[:, None]).norm(dim=2)
        more = {"achieved": achieved, "distance": distance}
        return judged[0].float(), judged[1], more

    def _keep_best(self, found: dict[str, Tensor]) -> None:
        found = {name: value for name, value in found.items() if name != "score"}
        if not self._best:
            self._best = found
            return
        # A score that is no number is not better than any, and any is better than it.
        better = ~(found["top"] <= self._best["top"]) & ~found["top"].isnan()
        for name, value in found.items():
            where = better.view(-1, *[1] * (value.dim() - 1))
            self._best[name] = torch.where(where, value, self._best[name])
