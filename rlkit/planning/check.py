"""Checks a planner, built in or a user's, against the laws of planners."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from rlkit.networks.laws import changed
from rlkit.planning.contract import Actions, Plan, Planner, PlannerState
from rlkit.planning.problem import FunctionProblem
from rlkit.plugins import run_laws

TOLERANCE = 1e-6
"""Rounding error allowed beyond [-1, 1]."""
NEARLY_SOLVED = 1e-3
"""Mean squared distance to the best actions below which a warm start cannot help much."""


Evaluate = Callable[[Tensor], Tensor]


class Problems:
    """A planner and problems with a known best answer, on which the laws are checked.

    The best action of environment i is `targets[i]` in every step; the score is minus the mean
    squared distance to it.

    Args:
        planner: Configured; its actions are set here.
        actions: The actions; by default two numbers.
        count: E, problems solved side by side, >= 2.
        seed: Of problems and planner.

    Raises:
        ValueError: If the planner cannot plan with these actions, or there is only one choice.
    """

    def __init__(
        self,
        planner: Planner,
        actions: Actions | None = None,
        count: int = 24,
        seed: int = 0,
    ) -> None:
        self.actions = actions or planner.actions or Actions(2)
        self.planner = planner.with_actions(self.actions)
        if self.actions.discrete and self.actions.size < 2:
            raise ValueError("one choice needs no planning: check with Actions(2, discrete=True)")
        self.count, self.seed = count, seed
        generator = self.generator()
        # Not 0 everywhere: that is the initial mean of planners.
        self.targets = 1.8 * torch.rand(count, self.actions.size, generator=generator) - 0.9
        if self.actions.discrete:
            self.targets = torch.eye(self.actions.size)[self.targets.argmax(1)]
        self.evaluated: list[Tensor] = []

    @property
    def problem(self) -> FunctionProblem:
        """The problems, for `Planner.plan`."""
        return FunctionProblem(self.evaluate)

    def generator(self, later: int = 0) -> torch.Generator:
        """The planner's source of randomness, always the same; `later` ones differ from it."""
        return torch.Generator().manual_seed(self.seed + later)

    def evaluate(self, sequences: Tensor) -> Tensor:
        """Scores `(E, N)` of sequences `(E, N, H, A)`, which are kept in `evaluated`."""
        self.evaluated.append(sequences.clone())
        return -((sequences - self.targets[:, None, None]) ** 2).mean((2, 3))

    def score(self, plan: Plan) -> float:
        """Mean score of a plan's sequences over all problems."""
        return float(self.evaluate(plan.sequence[:, None]).mean())

    def first(self, begins: bool = True) -> Tensor:
        """`is_first (E,)`."""
        return torch.full((self.count,), begins)

    def plan(
        self,
        evaluate: Evaluate | None = None,
        state: PlannerState | None = None,
        later: int = 0,
    ) -> Plan:
        """A plan, by default a first one; `evaluated` holds the sequences scored for it."""
        self.evaluated = []
        first = self.first(state is None)
        state = self.planner.initial(self.count) if state is None else state
        return self.planner.plan(
            FunctionProblem(evaluate or self.evaluate), state, first, self.generator(later)
        )


Law = Callable[[Problems], str | None]


def check_planner(planner: Planner, problems: Problems | None = None) -> None:
    """Checks the laws on quadratic problems.

    A planner with a budget in milliseconds is checked only on laws that do not depend on a clock.

    Args:
        planner: Configured, with or without actions.
        problems: The problems; 24 with two numbers per action by default.

    Raises:
        ValueError: If a law is broken; the message names it and what differs.
    """
    case = Problems(planner) if problems is None else problems
    laws = LAWS | (LAWS_OF_SAMPLES if planner.milliseconds is None else LAWS_OF_TIME)
    run_laws(planner, laws, case)


def _shapes_are_right(case: Problems) -> str | None:
    plan = case.plan()
    wanted = (case.count, case.planner.horizon, case.actions.size)
    if tuple(plan.sequence.shape) != wanted:
        return f"sequences are {tuple(plan.sequence.shape)}, not {wanted}"
    for sequences in case.evaluated:
        if (len(sequences), *sequences.shape[2:]) != wanted:
            return f"evaluate got {tuple(sequences.shape)}, not E, N, H, A of {wanted}"
    for name in ("score", "spread", "rejected", "failed"):
        if getattr(plan, name).shape != (case.count,):
            return f"{name} is {tuple(getattr(plan, name).shape)}, not {(case.count,)}"
    before, after = (
        [tuple(part.shape) for part in state]
        for state in (case.planner.initial(case.count), plan.state)
    )
    if before != after or any(shape[0] != case.count for shape in before):
        return f"the planner state has shapes {before} before and {after} after a plan"
    return None


def _actions_stay_in_their_range(case: Problems) -> str | None:
    # The best actions lie beyond the range.
    beyond = case.plan(lambda sequences: case.evaluate(sequences).mul(0) + sequences.sum((2, 3)))
    for actions in (beyond.sequence, *case.evaluated):
        if case.actions.discrete:
            if not ((actions == 0) | (actions == 1)).all() or not (actions.sum(-1) == 1).all():
                return "a choice is not a one-hot vector"
        elif not actions.abs().max() <= 1 + TOLERANCE:
            return f"an action is {float(actions.abs().max()):.4g}"
    return None


def _never_writes_to_what_it_reads(case: Problems) -> str | None:
    state, first = case.plan().state, case.first(False)
    read = {"is_first": first, **{f"state[{i}]": part for i, part in enumerate(state)}}
    plan = partial(case.planner.plan, case.problem, state, first, case.generator())
    return changed(read, plan)


def _a_score_that_is_not_finite_never_wins(case: Problems) -> str | None:
    """In the first step, half of the range (of choices, the best one) has no finite score."""
    given = torch.zeros(case.count, dtype=torch.int64)

    def with_failures(sequences: Tensor) -> Tensor:
        bad = _fails(case, sequences)
        given.add_(bad.sum(1))
        values = torch.tensor([torch.nan, torch.inf, -torch.inf])
        chosen = values[torch.arange(sequences.shape[1]) % 3]
        return torch.where(bad, chosen, case.evaluate(sequences))

    plan = case.plan(with_failures)
    if not torch.equal(plan.rejected, given):
        return f"{given.tolist()} scores were not finite, {plan.rejected.tolist()} are reported"
    if plan.failed.any():
        return "it failed, though some scores were finite"
    won = _fails(case, plan.sequence[:, None])[:, 0]
    return f"it did in {int(won.sum())} of {case.count} environments" if won.any() else None


def _fails(case: Problems, sequences: Tensor) -> Tensor:
    if case.actions.discrete:
        return sequences[:, :, 0].argmax(-1) == case.targets.argmax(-1)[:, None]
    side = case.targets[:, :1].sign()
    return sequences[:, :, 0, 0] * side > 0


def _a_failure_affects_no_other(case: Problems) -> str | None:
    lost = torch.arange(case.count) % 2 == 0

    def evaluate(sequences: Tensor) -> Tensor:
        return torch.where(lost[:, None], torch.nan, case.evaluate(sequences))

    plan = case.plan(evaluate)
    if not torch.equal(plan.failed, lost):
        return f"failed is {plan.failed.tolist()} where all scores are NaN in {lost.tolist()}"
    if not plan.sequence.isfinite().all() or not all(part.isfinite().all() for part in plan.state):
        return "its actions or its planner state are not finite"
    unaffected = case.planner.milliseconds is not None or torch.equal(
        plan.sequence[~lost], case.plan().sequence[~lost]
    )
    return None if unaffected else "plans in the other environments changed"


def _same_seed_same_plan(case: Problems) -> str | None:
    one, two = case.plan(), case.plan()
    same = torch.equal(one.sequence, two.sequence) and torch.equal(one.score, two.score)
    return None if same else "two plans with the same seed differ"


def _a_budget_in_samples_is_kept(case: Problems) -> str | None:
    state = None
    for _ in range(2):
        plan = case.plan(state=state)
        state, scored = plan.state, sum(sequences.shape[1] for sequences in case.evaluated)
        if not scored == plan.samples == case.planner.samples:
            return (
                f"{scored} sequences were scored and {plan.samples} reported, of a budget of "
                f"{case.planner.samples}"
            )
    return None


def _a_reset_is_a_fresh_start(case: Problems) -> str | None:
    used, fresh = case.plan().state, case.plan()
    reset = case.planner.plan(case.problem, used, case.first(), case.generator())
    same = torch.equal(reset.sequence, fresh.sequence)
    return None if same else "the planner state of the last episode changes the next plan"


def _no_worse_than_random_sequences(case: Problems) -> str | None:
    found = case.score(case.plan())
    shape = (case.count, case.planner.samples, case.planner.horizon, case.actions.size)
    drawn = torch.rand(shape, generator=case.generator())
    if case.actions.discrete:
        drawn = torch.nn.functional.one_hot(drawn.argmax(-1), case.actions.size).float()
    else:
        drawn = 2 * drawn - 1
    scores = case.evaluate(drawn).amax(1)
    # Plans of the same planner differ by about the standard error of the scores.
    error = float(scores.std()) / case.count**0.5
    if found >= float(scores.mean()) - 2 * error:
        return None
    return f"the best of as many random sequences score {float(scores.mean()):.4g}, it {found:.4g}"


def _the_last_plan_helps(case: Problems) -> str | None:
    seeds = range(4)
    fresh = max(case.score(case.plan(later=seed)) for seed in seeds)
    plan = case.plan()
    for seed in seeds[1:]:
        plan = case.plan(state=plan.state, later=seed)
    later = case.score(plan)
    if later > fresh or later > -NEARLY_SOLVED:
        return None
    return f"the fourth plan for the same problems scores {later:.4g}, a first one {fresh:.4g}"


def _a_budget_in_time_is_kept(case: Problems) -> str | None:
    """On a clock that only evaluations advance: by a part of the budget, and by more than it."""
    budget = case.planner.milliseconds
    assert budget is not None
    for cost in (budget / 20, 2 * budget):
        now = [0.0]

        def evaluate(sequences: Tensor, now: list[float] = now, cost: float = cost) -> Tensor:
            now[0] += cost / 1000
            return case.evaluate(sequences)

        def clock(now: list[float] = now) -> float:
            return now[0]

        state = case.planner.initial(case.count)
        plan = case.planner.plan(
            FunctionProblem(evaluate), state, case.first(), case.generator(), clock
        )
        took = 1000 * now[0]
        if abs(plan.milliseconds - took) > 1e-3:
            return f"a plan took {took:.4g} ms and reports {plan.milliseconds:.4g}"
        if took > budget and plan.iterations > 1:
            return f"of {budget:.4g} ms it took {took:.4g}, in {plan.iterations} iterations"
        if cost < budget and took < budget / 2:
            return f"of {budget:.4g} ms it used {took:.4g}, at {cost:.4g} per iteration"
    return None


LAWS: dict[str, Law] = {
    "its shapes are right": _shapes_are_right,
    "actions stay in their range": _actions_stay_in_their_range,
    "it never writes to what it reads": _never_writes_to_what_it_reads,
    "a score that is not finite never wins": _a_score_that_is_not_finite_never_wins,
    "a failure affects no other environment": _a_failure_affects_no_other,
}
LAWS_OF_SAMPLES: dict[str, Law] = {
    "same seed, same plan": _same_seed_same_plan,
    "a budget in samples is kept exactly": _a_budget_in_samples_is_kept,
    "a reset is a fresh start": _a_reset_is_a_fresh_start,
    "it is no worse than random sequences": _no_worse_than_random_sequences,
    "the last plan helps": _the_last_plan_helps,
}
LAWS_OF_TIME: dict[str, Law] = {
    "a budget in milliseconds is kept": _a_budget_in_time_is_kept,
}
