"""Planning problems whose sequences are scored by roll-outs of a learned world model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlkit.networks.encoders import HiddenState
from rlkit.planning.problem import PlanningObjective, Value
from rlkit.world import Imagined, Policy, World, goal_outcomes, repeat

ROWS = 4096  # rows that are imagined at a time; more do not fit into the cache


@dataclass(frozen=True)
class PredictedOutcome:
    """The imagined outcome of the best sequence in each of E environments.

    Attributes:
        reward: `(E, H)`, expected, 0 after a termination, without shaping and discount.
        success: `(E, H)`, the probability of being at the goal at each step; None without goals.
        uncertainty: `(E,)`, standard deviation of the return over the roll-outs.
    """

    reward: Tensor
    success: Tensor | None
    uncertainty: Tensor


class ImaginedProblem:
    """A `PlanningProblem` that rolls each sequence out several times in a world model.

    Args:
        world: The world model.
        hidden_state: Its hidden state in E environments.
        objective: What is maximised.
        particles: Roll-outs per sequence, >= 1. As many as an ensemble has members: one of each.
        generator: Source of the roll-outs' randomness.
        temperature: Scales the randomness of each prediction: 1 as learned, 0 none.
        policy: Proposes actions, for planners that use it.
        value: The return after the last step; None counts none.
    """

    def __init__(
        self,
        world: World,
        hidden_state: HiddenState,
        objective: PlanningObjective,
        particles: int,
        generator: torch.Generator,
        temperature: float = 1.0,
        policy: Policy | None = None,
        value: Value | None = None,
    ) -> None:
        self.world, self.hidden_state, self.objective = world, hidden_state, objective
        self.particles, self.generator, self.temperature = particles, generator, temperature
        self.policy, self.value = policy, value
        self._best: dict[str, Tensor] = {}

    def evaluate(self, actions: Tensor) -> Tensor:
        """Scores `(E, N)` of sequences `(E, N, H, A)`; NaN where a roll-out is not finite."""
        count, samples = actions.shape[:2]
        at_once = max(ROWS // (samples * self.particles), 1)
        parts = [
            self._scored(actions[i : i + at_once], slice(i, i + at_once))
            for i in range(0, count, at_once)
        ]
        found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        self._keep_best({name: x.detach() for name, x in found.items() if name != "score"})
        return found["score"]

    @property
    def predicted(self) -> PredictedOutcome:
        """The outcome of the best sequences evaluated so far."""
        best, rule = self._best, self.objective.rule
        success = None
        if rule is not None:
            assert self.objective.goal is not None
            achieved = best["achieved"].numpy()
            shape = achieved.shape[:3]
            goal = np.broadcast_to(self.objective.goal[:, None, None], achieved.shape)
            width = achieved.shape[-1]
            reached = rule.success(achieved.reshape(-1, width), goal.reshape(-1, width))
            current = torch.from_numpy(np.asarray(reached).reshape(shape))
            # An episode that ended at its goal stays there.
            success = torch.where(best["running"], current, best["ended"]).float().mean(1)
        return PredictedOutcome(best["reward"].mean(1), success, best["uncertainty"])

    def _scored(self, actions: Tensor, rows: slice) -> dict[str, Tensor]:
        """Scores `(e, N)` and the best sequences' roll-outs `(e, P, H)` of some environments."""
        count, samples, horizon, _ = actions.shape
        copies = samples * self.particles
        made = self.world.imagine(
            repeat(tuple(part[rows] for part in self.hidden_state), copies),
            actions.flatten(0, 1).repeat_interleave(self.particles, 0),
            generator=self.generator,
            temperature=self.temperature,
            gradients=actions.requires_grad,
        )
        shape = (count, samples, self.particles, horizon)
        reward, ended, more = self._outcomes(made, rows)
        # Whether an episode still runs when each action is taken.
        running = torch.nn.functional.pad(~ended, (1, -1), value=True).cumprod(1).bool()
        earned = torch.where(running, reward, 0.0)
        gain = earned
        if "distance" in more:
            gain = earned - self.objective.shaping * torch.where(running, more["distance"], 0.0)
        discount = self.objective.gamma ** torch.arange(horizon)
        returns = (gain * discount).sum(1)
        if self.value is not None:
            rest = self.value(made.observation[:, -1], made.hidden_state).cpu()
            rest = torch.where(ended.any(1), 0.0, rest)
            returns = returns + self.objective.gamma**horizon * rest
        returns = returns.view(shape[:3])
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

    def _outcomes(self, made: Imagined, rows: slice) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Reward and termination `(n, H)`; with goals also achieved goals and distances."""
        layout, goal, rule = self.world.layout, self.objective.goal, self.objective.rule
        if goal is None or rule is None:
            # The mean: with sampled rewards the luckiest of many sequences would win.
            outcome = made.outcome if made.mean is None else made.mean[..., layout.observation :]
            outcome = outcome.cpu()
            ended = layout.outcome(outcome, "terminated") > 0.5
            return layout.outcome(outcome, "reward"), ended, {}
        # Rules need finite numbers; roll-outs with others are dropped later.
        achieved = layout.achieved_goal(made.observation).cpu().nan_to_num(0.0, 0.0, 0.0)
        desired = goal[rows].repeat(len(achieved) // len(goal[rows]), axis=0)
        outcomes = [torch.from_numpy(array) for array in goal_outcomes(rule, achieved, desired)]
        distance = (achieved - torch.from_numpy(desired)[:, None]).norm(dim=2)
        more = {"achieved": achieved, "distance": distance}
        return outcomes[0].float(), outcomes[1], more

    def _keep_best(self, found: dict[str, Tensor]) -> None:
        if not self._best:
            self._best = found
            return
        # NaN is not better than any score, and every score is better than NaN.
        better = ~(found["top"] <= self._best["top"]) & ~found["top"].isnan()
        for name, value in found.items():
            where = better.view(-1, *[1] * (value.dim() - 1))
            self._best[name] = torch.where(where, value, self._best[name])
