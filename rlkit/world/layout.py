"""The columns of a world: observations, achieved goals, actions and outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rlkit.goals import GoalRule, ObservationLayout, vector_size
from rlkit.world.contract import Widths
from rlkit.world.data.windows import OUTCOMES


@dataclass(frozen=True)
class Layout:
    """The columns of a world.

    A model reads and predicts the achieved goal. It does not read the desired goal, which is
    constant: `goal_outcomes` evaluates goals in imagination.

    Attributes:
        observation: F, columns of an observation, the achieved goal included.
        action: A, columns of an action; 0 for a series without known drivers.
        achieved: Which columns of an observation are the achieved goal; empty without goals.
        outcomes: What is predicted besides: `"reward"`, `"terminated"`, or both.
        binary: Those of the outcomes that are 0 or 1 and predicted by a Bernoulli distribution;
            others are numbers like any.

    Raises:
        ValueError: If a field is out of its range.
    """

    observation: int
    action: int
    achieved: tuple[int, ...] = ()
    outcomes: tuple[str, ...] = ()
    binary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if unknown := set(self.binary) - set(self.outcomes):
            raise ValueError(f"binary names {sorted(unknown)}, outcomes are {self.outcomes}")
        _ = self.widths  # checks them
        if any(not 0 <= column < self.observation for column in self.achieved):
            raise ValueError(
                f"achieved names columns {self.achieved}, observations have {self.observation}: "
                f"columns count from 0"
            )
        if len(set(self.outcomes)) < len(self.outcomes) or set(self.outcomes) - set(OUTCOMES):
            raise ValueError(f"outcomes are out of {OUTCOMES}, once each, got {self.outcomes}")

    @classmethod
    def of_spaces(
        cls,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        outcomes: Sequence[str] = (),
        binary: Sequence[str] = (),
    ) -> Layout:
        """The columns of an environment, in the order of `rlkit.goals.ObservationLayout`.

        Raises:
            ValueError: If a space has no vector form.
        """
        layout = ObservationLayout.of(observation_space)
        return cls.of_columns(layout, action_space, outcomes, binary)

    @classmethod
    def of_columns(
        cls,
        observation: ObservationLayout,
        action_space: spaces.Space[Any],
        outcomes: Sequence[str] = (),
        binary: Sequence[str] = (),
    ) -> Layout:
        """The columns of flat observations that are laid out already."""
        achieved = range(observation.size)[observation.achieved or slice(0)]
        width = vector_size(action_space)
        return cls(observation.size, width, tuple(achieved), tuple(outcomes), tuple(binary))

    @property
    def widths(self) -> Widths:
        """The widths that a model needs."""
        binary = tuple(self.outcomes.index(name) for name in self.binary)
        return Widths(self.observation, self.action, len(self.outcomes), binary)

    def achieved_goal(self, x: Tensor) -> Tensor:
        """The achieved goal `(..., G)` in observations `(..., F)`."""
        return x[..., list(self.achieved)]

    def outcome(self, values: Tensor, name: str) -> Tensor:
        """One of the imagined outcomes `(n, H, K)`, `(n, H)`.

        Raises:
            ValueError: If this world does not predict it.
        """
        if name not in self.outcomes:
            raise ValueError(
                f"this world predicts no {name}, its layout has outcomes {self.outcomes}: add it "
                f"there, or evaluate goals by a rule"
            )
        return values[..., self.outcomes.index(name)]


def goal_outcomes(
    rule: GoalRule, achieved: Tensor, desired: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Reward and termination of imagined goals by a rule, as in an environment.

    Args:
        rule: Reward and termination of goals.
        achieved: Goals after each step `(n, H, G)`, in raw units.
        desired: The desired goal, `(G,)` for all rows or `(n, G)`.

    Returns:
        Reward and whether the episode ended for good, `(n, H)` each.
    """
    count, horizon, width = achieved.shape
    rows = achieved.detach().cpu().numpy().reshape(-1, width)
    goals = np.broadcast_to(np.reshape(desired, (-1, 1, width)), (count, horizon, width))
    flat = np.ascontiguousarray(goals.reshape(-1, width))
    reward = np.asarray(rule.reward(rows, flat), np.float64)
    return reward.reshape(count, horizon), rule.terminated(rows, flat).reshape(count, horizon)
