"""What a planner is to an agent: it finds actions that a function scores highly.

A planner knows no environment and no model. It is handed `evaluate`, which says how good sequences
of actions are; what imagines them (a learned model, the true simulator) is the caller's business.

Laws, checked for every planner by `tests/planning/test_planner_laws.py`: same seed, same plan;
actions stay in their range; a budget in samples is kept exactly; a score that is no number never
wins, and environments never disturb each other; a reset is a fresh start; a plan is no worse than
random sequences, and better for what the plan before it found.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from rlkit.plugins import PluginGroup

PlannerState = tuple[Tensor, ...]
"""What a planner remembers between decisions: tensors with a leading axis of environments."""
Evaluate = Callable[[Tensor], Tensor]
"""Scores `(E, N)`, higher is better, of N sequences of actions `(E, N, H, A)` for each of E
environments."""
Clock = Callable[[], float]
"""Seconds since some moment."""


@dataclass(frozen=True)
class Actions:
    """What can be done in one step.

    Attributes:
        size: A, the width of an action, >= 1.
        discrete: Whether an action is one of A choices, as a one-hot vector; otherwise it is A
            numbers in [-1, 1].
    """

    size: int
    discrete: bool = False

    def __post_init__(self) -> None:
        """Refuses an empty action.

        Raises:
            ValueError: If the size is below 1.
        """
        if self.size < 1:
            raise ValueError(f"size must be a whole number >= 1, got {self.size!r}")


@dataclass(frozen=True)
class Plan:
    """A decision in E environments.

    Attributes:
        sequence: The actions decided on, `(E, H, A)`. Where `failed`, the rest of the plan before,
            or zeros (for choices the first one), which nothing speaks for.
        state: For the decision after the next step.
        score: The best score seen, `(E,)`; -inf where `failed`. It belongs to the sequence for
            planners that execute the best one, and is close to its score for those that execute a
            mean.
        spread: Standard deviation of the last elites' actions, averaged, `(E,)`: what the search
            is still unsure of.
        rejected: How many scores were not finite, `(E,)`.
        failed: Where none was finite, `(E,)`: the caller has to act without the plan.
        samples: Sequences scored, per environment.
        iterations: Calls of `evaluate`.
        milliseconds: Time that it took.
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

    A planner is configured without knowing what can be done; `with_actions` completes it.
    """

    @property
    def horizon(self) -> int:
        """H, steps of a sequence."""

    @property
    def samples(self) -> int:
        """Sequences that are scored per decision and environment, without a budget in time."""

    @property
    def milliseconds(self) -> float | None:
        """Budget of a decision in time; None for one in samples, whose plans can be repeated."""

    @property
    def actions(self) -> Actions | None:
        """What can be done; None before `with_actions`."""

    def with_actions(self, actions: Actions) -> Self:
        """The same planner for these actions.

        Raises:
            ValueError: If it cannot plan with such actions.
        """

    def initial(self, count: int, device: torch.device | str = "cpu") -> PlannerState:
        """What it remembers before the first decision in `count` environments."""

    def plan(
        self,
        evaluate: Evaluate,
        state: PlannerState,
        is_first: Tensor,
        generator: torch.Generator,
        clock: Clock = time.perf_counter,
    ) -> Plan:
        """Decides.

        Args:
            evaluate: Scores sequences; a score that is not finite counts as the worst.
            state: From the plan before, exactly one step ago; never written to.
            is_first: Where an episode begins, `(E,)`: what came before is forgotten there.
            generator: Source of all chance, on the carry's device.
            clock: What a budget in milliseconds is measured with.

        Raises:
            ValueError: If the scores have another shape than `(E, N)`.
        """


PLANNERS = PluginGroup[Planner]("rlkit.planners", "planner", Planner, "actions")
