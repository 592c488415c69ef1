"""The laws of planners: kept by all of ours, and each of them catches a planner that breaks it."""

import dataclasses
import itertools
import re
from dataclasses import dataclass

import pytest
import torch

from rlkit.planning import CEM, ICEM, MPPI, Actions, FunctionProblem, RandomShooting, check_planner
from rlkit.planning.check import LAWS, LAWS_OF_SAMPLES, LAWS_OF_TIME, Problems

KINDS = (RandomShooting, CEM, ICEM, MPPI)
SETTINGS = {
    "as it comes": {},
    "held": {"hold": 3, "horizon": 10},
    "one iteration": {"iterations": 1},
    "few samples": {"samples": 67, "iterations": 3, "elites": 7},
    "one step": {"horizon": 1},
    "in milliseconds": {"milliseconds": 20.0},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("kind", KINDS)
def test_numbers(kind, settings):
    check_planner(kind(**settings))
    check_planner(kind(**settings).with_actions(Actions(1)))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("kind", [RandomShooting, CEM, MPPI])
def test_choices(kind, settings):
    check_planner(kind(**settings).with_actions(Actions(3, discrete=True)))


@pytest.mark.parametrize("kind", [CEM, ICEM, MPPI])
def test_searching_beats_shooting_by_far(kind):
    def distance(planner):
        case = Problems(planner, count=32)
        return -case.score(case.plan())

    assert distance(kind()) < 0.4 * distance(RandomShooting())


@dataclass(frozen=True)
class Unclipped(CEM):
    def _draw(self, current, size, step, generator):
        return 3 * super()._draw(current, size, step, generator)


@dataclass(frozen=True)
class Writing(CEM):
    def _begin(self, state, is_first):
        state[0].mul_(0.5)
        return super()._begin(state, is_first)


SEEDS = itertools.count()


@dataclass(frozen=True)
class Unseeded(CEM):
    def _draw(self, current, size, step, generator):
        own = torch.Generator().manual_seed(next(SEEDS))
        return super()._draw(current, size, step, own)


@dataclass(frozen=True)
class Greedy(CEM):
    def sizes(self):
        return [*super().sizes(), 1]


@dataclass(frozen=True)
class Shrinking(CEM):
    def plan(self, *arguments, **named):
        plan = super().plan(*arguments, **named)
        return dataclasses.replace(plan, state=(plan.state[0][:, 1:],))


@dataclass(frozen=True)
class Hopeful(CEM):
    """Counts the scores that are none, and takes them for the best."""

    def plan(self, problem, state, is_first, *rest):
        count = torch.zeros(len(is_first), dtype=torch.int64)

        def hopeful(sequences):
            scores = problem.evaluate(sequences)
            count.add_((~scores.isfinite()).sum(1))
            return torch.where(scores.isfinite(), scores, 9.0)

        plan = super().plan(FunctionProblem(hopeful), state, is_first, *rest)
        return dataclasses.replace(plan, rejected=count)


@dataclass(frozen=True)
class Silent(CEM):
    def plan(self, *arguments, **named):
        plan = super().plan(*arguments, **named)
        return dataclasses.replace(plan, failed=torch.zeros_like(plan.failed))


@dataclass(frozen=True)
class Clinging(CEM):
    def _begin(self, state, is_first):
        return super()._begin(state, torch.zeros_like(is_first))


@dataclass(frozen=True)
class Forgetful(CEM):
    def _begin(self, state, is_first):
        return super()._begin(state, torch.ones_like(is_first))


@dataclass(frozen=True)
class Upside(CEM):
    def _weights(self, scores):
        return -scores.clamp(min=-9)

    def _settled(self, mean):
        return -super()._settled(mean)


@dataclass(frozen=True)
class Dawdling(CEM):
    """Has a budget in time and takes 30 iterations."""

    milliseconds: float | None = 20.0

    def plan(self, problem, state, is_first, generator, clock=lambda: 0.0):
        began = clock()
        by_samples = CEM(samples=30 * self.samples, iterations=30, actions=self.actions)
        plan = by_samples.plan(problem, state, is_first, generator)
        return dataclasses.replace(plan, milliseconds=1000 * (clock() - began))


@dataclass(frozen=True)
class Hasty(CEM):
    """Has a budget in time and stops after one iteration."""

    milliseconds: float | None = 20.0

    def plan(self, problem, state, is_first, generator, clock=lambda: 0.0):
        began = clock()
        by_samples = CEM(samples=100, iterations=1, actions=self.actions)
        plan = by_samples.plan(problem, state, is_first, generator)
        return dataclasses.replace(plan, milliseconds=1000 * (clock() - began))


@pytest.mark.parametrize(
    ("kind", "law", "message"),
    [
        (Shrinking, "its shapes are right", "the planner state has shapes"),
        (Unclipped, "actions stay in their range", "an action is"),
        (Writing, "it never writes to what it reads", "changed"),
        (Hopeful, "a score that is not finite never wins", "it did in"),
        (Silent, "a failure affects no other environment", "failed is"),
        (Unseeded, "same seed, same plan", "two plans with the same seed differ"),
        (Greedy, "a budget in samples is kept exactly", "401 sequences.*401 reported.*400"),
        (Clinging, "a reset is a fresh start", "the planner state of the last episode"),
        (Upside, "it is no worse than random sequences", "as many random sequences score"),
        (Forgetful, "the last plan helps", "the fourth plan for the same problems scores"),
        (Dawdling, "a budget in milliseconds is kept", "of 20 ms it took 30, in 30 iterations"),
        (Hasty, "a budget in milliseconds is kept", "of 20 ms it used 1, at 1 per iteration"),
    ],
)
def test_each_law_catches_who_breaks_it(kind, law, message):
    wrong = (LAWS | LAWS_OF_SAMPLES | LAWS_OF_TIME)[law](Problems(kind()))
    assert wrong is not None
    assert re.search(message, wrong)
    with pytest.raises(ValueError, match=f"{kind.__name__} breaks the law"):
        check_planner(kind())


def test_one_choice_alone_is_refused():
    with pytest.raises(ValueError, match="one choice needs no planning"):
        Problems(CEM(), Actions(1, discrete=True))
