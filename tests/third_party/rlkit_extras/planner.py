"""A planner: random local search around the rest of the last plan."""

import time
from dataclasses import dataclass, replace

import torch

from rlkit.planning import Actions, Plan


@dataclass(frozen=True)
class LocalSearch:
    """A (1 + lambda) evolution strategy: in each round the best sequence is mutated."""

    horizon: int = 10
    samples: int = 60
    """Sequences scored per decision; a multiple of `rounds`."""
    rounds: int = 3
    deviation: float = 0.5
    """Standard deviation of the mutations, > 0; it is halved after each round."""
    actions: Actions | None = None

    milliseconds = None  # there is no budget in time

    def __post_init__(self):
        if self.rounds < 1 or self.samples % self.rounds:
            raise ValueError(f"samples = {self.samples} is no multiple of {self.rounds} rounds")

    def with_actions(self, actions):
        """The same planner for these actions; choices are refused."""
        if actions.discrete:
            raise ValueError("local plans Box actions only; use cem, mppi or shooting")
        return replace(self, actions=actions)

    def initial(self, count, device="cpu"):
        """Planner state before the first decision: the rest of no plan."""
        return (torch.zeros(count, self.horizon, self.actions.size, device=device),)

    def plan(self, problem, state, is_first, generator, clock=time.perf_counter):
        """Plans for E environments."""
        began, population = clock(), self.samples // self.rounds
        best = state[0].masked_fill(is_first[:, None, None], 0.0)
        score = torch.full((len(best),), -torch.inf)
        rejected = torch.zeros(len(best), dtype=torch.int64)
        for i in range(self.rounds):
            shape = (len(best), population, *best.shape[1:])
            noise = torch.randn(shape, generator=generator)
            if i == 0:
                noise[:, 0] = 0.0  # the rest of the last plan is scored, too
            sequences = (best[:, None] + 0.5**i * self.deviation * noise).clamp(-1, 1)
            scores = problem.evaluate(sequences)
            rejected += (~scores.isfinite()).sum(1)
            found, place = scores.where(scores.isfinite(), -torch.inf).max(1)
            better = found > score
            chosen = sequences[torch.arange(len(best)), place]
            best = torch.where(better[:, None, None], chosen, best)
            score = torch.where(better, found, score)
        rest = torch.cat([best[:, 1:], best[:, -1:]], 1)
        return Plan(
            best,
            (rest,),
            score,
            spread=torch.full_like(score, 0.5 ** (self.rounds - 1) * self.deviation),
            rejected=rejected,
            failed=score.isinf(),
            samples=self.samples,
            iterations=self.rounds,
            milliseconds=1000 * (clock() - began),
        )
