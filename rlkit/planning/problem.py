"""What a planner solves: the score of sequences of actions, and what the score is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rlkit.goals import GoalRule, ObservationLayout
from rlkit.networks.encoders import HiddenState
from rlkit.world import Policy, World

Value = Callable[[Tensor, HiddenState], Tensor]
"""The return `(n,)` that is expected after observations `(n, F)` in raw units and hidden states."""


@dataclass(frozen=True)
class PlanningObjective:
    """What is maximised in imagination.

    An imagined step earns the reward, of the goal rule or learned, minus `shaping` times the
    Euclidean distance to the goal, in the goal's own units. Sparse rewards alone do not rank
    sequences before one of them reaches the goal; then they outweigh the distance, and sequences
    that earn the distance keep their rank. Steps after a termination earn nothing.

    Attributes:
        rule: Reward and termination of imagined goals; None without goals.
        goal: The desired goal, `(E, G)`; None without goals.
        gamma: Discount of one step.
        shaping: Weight of the distance, >= 0.
        uncertainty_penalty: Weight of the standard deviation of a sequence's imagined returns.
    """

    rule: GoalRule | None
    goal: NDArray[np.float32] | None
    gamma: float
    shaping: float
    uncertainty_penalty: float


@runtime_checkable
class PlanningProblem(Protocol):
    """A decision in E environments.

    Planners that sample need `evaluate` only. Planners that follow gradients, expand a tree or
    generate trajectories read the other members. These are None, or an empty hidden state, where
    only scores are known, as from a true simulator.
    """

    @property
    def world(self) -> World | None:
        """The world model with its parameters."""

    @property
    def hidden_state(self) -> HiddenState:
        """Its hidden state, with a leading axis of E environments."""

    @property
    def objective(self) -> PlanningObjective | None:
        """What is maximised: goal, goal rule, discount and weights."""

    @property
    def policy(self) -> Policy | None:
        """Proposes actions, in raw units."""

    @property
    def value(self) -> Value | None:
        """The return after the last step of a sequence."""

    def evaluate(self, actions: Tensor) -> Tensor:
        """Scores sequences; higher is better.

        Args:
            actions: N sequences for each environment, `(E, N, H, A)`. If they require gradients,
                these flow from the scores, as far as the score is differentiable.

        Returns:
            `(E, N)`; what is not finite counts as the worst.
        """


def require_known_goals(layout: ObservationLayout) -> None:
    """Refuses goals that cannot be evaluated in imagination.

    Raises:
        ValueError: If goals are no vectors of real numbers, or hidden for some steps.
    """
    goal = layout.goal
    if goal is not None and not (isinstance(goal, spaces.Box) and len(goal.shape) == 1):
        raise ValueError(
            f"planning needs goals that are vectors of real numbers, not {goal}; images become "
            f"vectors with latent = ..."
        )
    if layout.hides_goal:
        raise ValueError(
            "this environment hides its goal for some steps, and planning needs a visible goal; "
            'use a recurrent agent, for example SAC with encoder = "gru"'
        )


@dataclass(frozen=True)
class FunctionProblem:
    """A problem of which only scores are known; see `PlanningProblem`.

    Attributes:
        function: `actions (E, N, H, A) -> scores (E, N)`.
    """

    function: Callable[[Tensor], Tensor]
    world: World | None = None
    hidden_state: HiddenState = ()
    objective: PlanningObjective | None = None
    policy: Policy | None = None
    value: Value | None = None

    def evaluate(self, actions: Tensor) -> Tensor:
        """Scores sequences; see `PlanningProblem.evaluate`."""
        return self.function(actions)
