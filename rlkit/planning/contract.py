"""The contract of planners: they find sequences of actions that score highly.

A planner depends on no environment and no particular model. It is given a `PlanningProblem`, which
scores sequences of actions by a learned world model or by the true simulator.

Laws, checked for every planner by `check_planner`: same seed, same plan; actions stay in their
range; a budget in samples is kept exactly; a score that is not finite never wins, and environments
do not affect each other; a reset is a fresh start; a plan is no worse than random sequences, and
better with the planner state of the last plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from rlkit.planning.problem import PlanningProblem
from rlkit.plugins import PluginGroup

PlannerState = tuple[Tensor, ...]
"""What a planner keeps between decisions: tensors with a leading axis of environments."""
Clock = Callable[[], float]
"""Seconds since an arbitrary moment."""


@dataclass(frozen=True)
class Actions:
    """The actions of one step.

    Attributes:
        size: A, the width of an action, >= 1.
        discrete: Whether an action is one of A choices, as a one-hot vector; otherwise it is A
            numbers in [-1, 1].
    """

    size: int
    discrete: bool = False

    def __post_init__(self) -> None:
        """Checks the size.

        Raises:
            ValueError: If the size is below 1.
        """
        if self.size < 1:
            raise ValueError(f"size must be a whole number >= 1, got {self.size!r}")

    def random(self, count: int, generator: torch.Generator) -> Tensor:
        """Uniform actions `(n, A)`."""
        uniform = torch.rand(count, self.size, generator=generator)
        if not self.discrete:
            return 2 * uniform - 1
        return torch.nn.functional.one_hot(uniform.argmax(1), self.size).float()


@dataclass(frozen=True)
class Plan:
    """A plan for E environments.

    Attributes:
        sequence: The chosen actions, `(E, H, A)`. Where `failed`, the rest of the last plan, or
            zeros (for choices the first one), without any evidence.
        state: The planner state for the next decision.
        score: The best score found, `(E,)`; -inf where `failed`. Planners that execute a mean
            return a sequence whose own score is only close to it.
        spread: Standard deviation of the last elites' actions, averaged, `(E,)`: how far the
            search is from having converged.
        rejected: How many scores were not finite, `(E,)`.
        failed: Where none was finite, `(E,)`: the caller has to act without the plan.
        samples: Sequences scored, per environment.
        iterations: Calls of `evaluate`.
        milliseconds: Duration of planning.
    """

    sequence: Tensor
    state: PlannerState
    score: Tensor
    spread: Tensor
    rejected: Tensor
    failed: Tensor
    samples: int
    iterations: int
    milliseconds: float

    @property
    def action(self) -> Tensor:
        """The actions to take now, `(E, A)`."""
        return self.sequence[:, 0]


@runtime_checkable
class Planner(Protocol):
    """A search for good sequences of actions, as a pure function.

    A planner is configured without knowing its actions; `with_actions` completes it.
    """

    @property
    def horizon(self) -> int:
        """H, steps of a sequence."""

    @property
    def samples(self) -> int:
        """Sequences scored per decision and environment, without a budget in time."""

    @property
    def milliseconds(self) -> float | None:
        """Budget of a decision in time; None for a budget in samples, which is reproducible."""

    @property
    def actions(self) -> Actions | None:
        """The actions; None before `with_actions`."""

    def with_actions(self, actions: Actions) -> Self:
        """The same planner for these actions.

        Raises:
            ValueError: If it cannot plan with such actions.
        """

    def initial(self, count: int, device: torch.device | str = "cpu") -> PlannerState:
        """Planner state before the first decision in `count` environments."""

    def plan(
        self,
        problem: PlanningProblem,
        state: PlannerState,
        is_first: Tensor,
        generator: torch.Generator,
        clock: Clock = time.perf_counter,
    ) -> Plan:
        """Plans for E environments.

        Args:
            problem: What to maximise.
            state: Of the last plan, exactly one step ago; never written to.
            is_first: Where an episode begins, `(E,)`: the planner state is reset there.
            generator: Source of all randomness, on the device of the planner state.
            clock: Measures a budget in milliseconds.

        Raises:
            ValueError: If the scores have another shape than `(E, N)`.
        """


PLANNERS = PluginGroup[Planner]("rlkit.planners", "planner", Planner, "actions")
