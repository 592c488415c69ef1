"""Which columns are what: observations, achieved goals, actions, outcomes; and what goals say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rlkit.goals import GoalRule, vector_size, vectorise
from rlkit.world.contract import Widths
from rlkit.world.data.windows import OUTCOMES

Array = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """The columns of a world.

    An achieved goal is part of what a model sees and predicts; a desired goal is constant, so it
    is not: a goal is judged in imagination by `judge`.

    Attributes:
        observation: F, columns of an observation, the achieved goal included.
        action: A, columns of an action; 0 for a series that nobody drives.
        achieved: Which columns of an observation are the achieved goal; empty without goals.
        outcomes: What is predicted besides, out of `"reward"` and `"terminated"`.

    Raises:
        ValueError: If a field is out of its range.
    """

    observation: int
    action: int
    achieved: tuple[int, ...] = ()
    outcomes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _ = self.widths  # checks them
        if any(not 0 <= column < self.observation for column in self.achieved):
            raise ValueError(
                f"achieved names columns {self.achieved}, observations have {self.observation}: "
                f"columns are counted from 0"
            )
        if len(set(self.outcomes)) < len(self.outcomes) or set(self.outcomes) - set(OUTCOMES):
            raise ValueError(f"outcomes are out of {OUTCOMES}, once each, got {self.outcomes}")

    @classmethod
    def of_spaces(
        cls,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        outcomes: Sequence[str] = (),
    ) -> Layout:
        """The layout of what `joined` makes of an environment's observations.

        Raises:
            ValueError: If a space has no vector form.
        """
        parts = _parts(observation_space)
        widths = {key: vector_size(space) for key, space in parts.items()}
        total, goal = sum(widths.values()), widths.get("achieved_goal", 0)
        achieved = tuple(range(total - goal, total))
        return cls(total, vector_size(action_space), achieved, tuple(outcomes))

    @property
    def widths(self) -> Widths:
        """What a model has to know of it."""
        return Widths(self.observation, self.action, len(self.outcomes))

    def achieved_goal(self, x: Tensor) -> Tensor:
        """The achieved goal `(..., G)` in observations `(..., F)`."""
        return x[..., list(self.achieved)]

    def outcome(self, values: Tensor, name: str) -> Tensor:
        """One outcome `(n, H)` of those that were imagined, `(n, H, K)`.

        Raises:
            ValueError: If this world does not predict it.
        """
        if name not in self.outcomes:
            raise ValueError(
                f"this world predicts no {name}, its layout has outcomes {self.outcomes}: add it "
                f"there, or judge goals by a rule"
            )
        return values[..., self.outcomes.index(name)]


def joined(observation_space: spaces.Space[Any], observation: Any, lead: int) -> Array:
    """Observations as columns, without the desired goal, the achieved goal last.

    Args:
        observation_space: Of one observation.
        observation: An array, or a dictionary of arrays, with `lead` leading axes.
        lead: Number of leading axes.

    Returns:
        `(*leading, F)` float32.
    """
    parts = _parts(observation_space)
    columns = [
        vectorise(space, observation[key] if key else observation, lead)
        for key, space in parts.items()
    ]
    return np.concatenate(columns, axis=-1)


def goal_outcomes(
    rule: GoalRule, achieved: Tensor, desired: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What a rule says of imagined goals, as an environment would have.

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


def _parts(space: spaces.Space[Any]) -> Mapping[str, spaces.Space[Any]]:
    """The spaces that are joined, in their order; a plain space has no name."""
    if not isinstance(space, spaces.Dict):
        return {"": space}
    kept = {key: one for key, one in space.spaces.items() if key != "desired_goal"}
    goal = kept.pop("achieved_goal", None)
    return kept if goal is None else {**kept, "achieved_goal": goal}
