"""The search by sampling that the planners share: sample, score, refit, sample again."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from rlkit.planning.budget import populations, rounds
from rlkit.planning.contract import Actions, Clock, Plan, PlannerState
from rlkit.planning.problem import PlanningProblem


@dataclass(frozen=True)
class Proposal:
    """The distribution that a search samples from, in knots: actions held for some steps.

    Attributes:
        mean: `(E, K, A)`; for choices, their probabilities.
        deviation: `(E, K, A)`; not used for choices.
        elites: The best of the last population, best first, `(E, N, K, A)`.
        has_elites: Where these can be scored again, `(E,)`.
    """

    mean: Tensor
    deviation: Tensor
    elites: Tensor
    has_elites: Tensor


@dataclass(frozen=True)
class Search:
    """Settings and loop of a search by sampling; a planner defines how to sample and to weight.

    Sequences may be searched in knots, actions that are held for `hold` steps each. This makes long
    horizons searchable: white noise over many steps averages out, and the space is smaller.

    Attributes:
        horizon: H, steps of a sequence, >= 1.
        samples: Sequences scored per decision, over all iterations. With a budget in milliseconds
            they only set the sizes of the populations.
        iterations: Populations per decision, >= 1.
        elites: Best sequences of a population to which the next one is fitted, >= 1.
        hold: Steps for which an action is held, >= 1.
        milliseconds: Time for a decision, > 0; iterations continue until it is used up. None
            plans with `samples`.
        deviation: Standard deviation of the first population around its mean, > 0. Actions beyond
            the range are clipped: at 1, a third of those around 0 lie on its ends.
        least_deviation: Lower bound of the deviation, in [0, deviation]; for choices, in [0, 1),
            the weight of a uniform distribution in their probabilities.
        momentum: Weight of the old mean and deviation in the new ones, in [0, 1).
        actions: The actions; set by `with_actions`.
    """

    horizon: int = 20
    samples: int = 400
    iterations: int = 4
    elites: int = 10
    hold: int = 1
    milliseconds: float | None = None
    deviation: float = 1.0
    least_deviation: float = 0.05
    momentum: float = 0.1
    actions: Actions | None = None

    executes_best: ClassVar[bool] = False
    """Whether the best sequence found is executed; otherwise the mean of the last fit."""

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: If a setting is out of range.
        """
        for name in ("horizon", "samples", "iterations", "elites", "hold"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
        within = {
            "milliseconds": ("> 0", self.milliseconds is None or self.milliseconds > 0),
            "deviation": ("> 0", self.deviation > 0),
            "least_deviation": (
                "in [0, deviation] and below 1",
                0 <= self.least_deviation <= self.deviation and self.least_deviation < 1,
            ),
            "momentum": ("in [0, 1)", 0 <= self.momentum < 1),
        }
        for name, (allowed, fine) in within.items():
            if not fine:
                raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")
        self.sizes()

    @property
    def knots(self) -> int:
        """K, knots of a sequence."""
        return math.ceil(self.horizon / self.hold)

    def sizes(self) -> list[int]:
        """Sizes of the populations of one decision."""
        return populations(self.samples, self.iterations, least=self.elites)

    def with_actions(self, actions: Actions) -> Self:
        """The same planner for these actions."""
        return dataclasses.replace(self, actions=actions)

    def initial(self, count: int, device: torch.device | str = "cpu") -> PlannerState:
        """The initial mean, `(E, K, A)`; see `Planner.initial`."""
        actions = self._known_actions()
        middle = 1 / actions.size if actions.discrete else 0.0
        return (torch.full((count, self.knots, actions.size), middle, device=device),)

    @torch.no_grad()
    def plan(
        self,
        problem: PlanningProblem,
        state: PlannerState,
        is_first: Tensor,
        generator: Generator,
        clock: Clock = time.perf_counter,
    ) -> Plan:
        """See `Planner.plan`."""
        began = clock()
        current = self._begin(state, is_first)
        best, score = current.mean, torch.full_like(current.mean[:, 0, 0], -torch.inf)
        rejected, spread = torch.zeros_like(score, dtype=torch.int64), torch.zeros_like(score)
        samples = iterations = 0
        for size in rounds(self.sizes(), self.milliseconds, clock):
            knots = self._draw(current, size, iterations, generator)
            scores = _finite_scores(problem, self._steps(knots))
            rejected += scores.isneginf().sum(1)
            samples, iterations = samples + size, iterations + 1
            top = scores.topk(min(self.elites, size), dim=1)
            elites = _pick(knots, top.indices)
            better = top.values[:, 0] > score
            best = torch.where(better[:, None, None], elites[:, 0], best)
            score = torch.where(better, top.values[:, 0], score)
            current, spread = self._refit(current, elites, top.values)
        failed = score.isneginf()
        decided = best if self.executes_best else current.mean
        sequence = self._steps(self._settled(decided)[:, None])[:, 0]
        state = self._keep(current, best)
        took = 1000 * (clock() - began)
        return Plan(sequence, state, score, spread, rejected, failed, samples, iterations, took)

    def _begin(self, state: PlannerState, is_first: Tensor) -> Proposal:
        """The distribution around the last plan one step later, reset where an episode begins."""
        fresh = self.initial(len(is_first), state[0].device)[0]
        mean = torch.where(is_first[:, None, None], fresh, self._shifted(state[0]))
        return Proposal(
            mean,
            torch.full_like(mean, self.deviation),
            elites=mean[:, None],
            has_elites=torch.zeros_like(is_first),
        )

    def _keep(self, current: Proposal, best: Tensor) -> PlannerState:
        """The planner state for the next decision."""
        return (best if self.executes_best else current.mean,)

    def _draw(self, current: Proposal, size: int, step: int, generator: Generator) -> Tensor:
        """A population `(E, N, K, A)`: choices by their probabilities, numbers around the mean."""
        if self._known_actions().discrete:
            return self._drawn_choices(current.mean, size, generator)
        mean, deviation = current.mean[:, None], current.deviation[:, None]
        shape = (len(mean), size, *mean.shape[2:])
        noise = torch.randn(shape, generator=generator, device=mean.device)
        return (mean + deviation * noise).clamp(-1, 1)

    def _weights(self, scores: Tensor) -> Tensor:
        """The weight of each elite, `(E, N)`, zero for a score of -inf; not normalised."""
        return scores.isfinite().to(scores.dtype)

    def _refit(self, current: Proposal, elites: Tensor, scores: Tensor) -> tuple[Proposal, Tensor]:
        """The distribution after a population, and the spread of its elites."""
        weights = self._weights(scores)
        total = weights.sum(1, keepdim=True)
        weights = (weights / total.clamp(min=1e-12))[:, :, None, None]
        mean = (weights * elites).sum(1)
        deviation = (weights * (elites - mean[:, None]) ** 2).sum(1).sqrt()
        spread = deviation.mean((1, 2))
        if self._known_actions().discrete:
            mean = torch.lerp(mean, self.initial(1, mean.device)[0], self.least_deviation)
        deviation = deviation.clamp(min=self.least_deviation)
        # Without a finite score there is nothing to fit to.
        has_elites = total[:, 0] > 0
        fitted = has_elites[:, None, None]
        return Proposal(
            torch.where(fitted, torch.lerp(mean, current.mean, self.momentum), current.mean),
            torch.where(
                fitted,
                torch.lerp(deviation, current.deviation, self.momentum),
                current.deviation,
            ),
            elites,
            has_elites,
        ), spread

    def _settled(self, mean: Tensor) -> Tensor:
        """Actions of a mean `(..., K, A)`: the most probable choices."""
        actions = self._known_actions()
        if not actions.discrete:
            return mean.clamp(-1, 1)
        return one_hot(mean.argmax(-1), actions.size)

    def _drawn_choices(self, probabilities: Tensor, size: int, generator: Generator) -> Tensor:
        """Independent choices `(E, N, K, A)` by probabilities `(E, K, A)`."""
        count, knots, choices = probabilities.shape
        shape = (count, size, knots, 1)
        uniform = torch.rand(shape, generator=generator, device=probabilities.device)
        # The last sum may be below 1 by rounding: numbers above it stand for the last choice.
        above = uniform > probabilities.cumsum(-1)[:, None, :, :-1]
        return one_hot(above.sum(-1), choices)

    def _shifted(self, knots: Tensor) -> Tensor:
        """Sequences `(..., K, A)` one step later, the last action again at their end.

        A knot becomes the average of the actions one step later over the steps that it is held.
        """
        later = torch.cat([knots[..., 1:, :], knots[..., -1:, :]], -2)
        return torch.lerp(knots, later, 1 / self.hold)

    def _steps(self, knots: Tensor) -> Tensor:
        """Sequences `(E, N, H, A)` of knots `(E, N, K, A)`."""
        return knots.repeat_interleave(self.hold, 2)[:, :, : self.horizon]

    def _known_actions(self) -> Actions:
        if self.actions is None:
            name = type(self).__name__
            raise ValueError(f"{name} does not know its actions: call with_actions(Actions(size))")
        return self.actions


def one_hot(choices: Tensor, size: int) -> Tensor:
    """One-hot vectors `(..., A)`, float32, of choices `(...)`."""
    return torch.nn.functional.one_hot(choices, size).to(torch.float32)


def _finite_scores(problem: PlanningProblem, sequences: Tensor) -> Tensor:
    """Scores `(E, N)`, -inf where they are not finite."""
    scores = problem.evaluate(sequences)
    shape = tuple(sequences.shape[:2])
    if tuple(scores.shape) != shape:
        raise ValueError(
            f"evaluate must return one score per sequence, {shape} for sequences "
            f"{tuple(sequences.shape)}, got {tuple(scores.shape)}"
        )
    scores = scores.to(sequences.dtype)
    return torch.where(scores.isfinite(), scores, -torch.inf)


def _pick(knots: Tensor, indices: Tensor) -> Tensor:
    """Of each environment's sequences `(E, N, K, A)` those of `(E, M)`."""
    return knots.gather(1, indices[:, :, None, None].expand(-1, -1, *knots.shape[2:]))
