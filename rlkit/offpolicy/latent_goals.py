"""What goals mean once they are codes: judged by what a rule read from pictures, or as codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rlkit.goals import DistanceRule, GoalRule

Array = NDArray[Any]


@runtime_checkable
class ImageGoalRule(Protocol):
    """A goal rule that judges pictures by a vector that it reads from each.

    Attributes:
        rule: Judges the vectors.
        width: K, their width.
    """

    rule: GoalRule
    width: int

    def goal_vector(self, pictures: Array) -> Array:
        """What the rule reads, `(N, H, W, C) -> (N, K)`."""


@dataclass(frozen=True)
class LatentGoalRule:
    """Judges goals that are codes, which agents read, followed by what a rule judges.

    Attributes:
        rule: Judges the part behind the code.
        dims: D, the width of a code.
    """

    rule: GoalRule
    dims: int

    @property
    def reward_range(self) -> tuple[float, float]:
        """The rule's own."""
        return self.rule.reward_range

    def reward(self, achieved: Array, desired: Array) -> Array:
        """Reward of each row, `(N, D + K), (N, D + K) -> (N,)`."""
        return self.rule.reward(achieved[:, self.dims :], desired[:, self.dims :])

    def success(self, achieved: Array, desired: Array) -> Array:
        """Whether each row reached its goal, `(N, D + K), (N, D + K) -> (N,)`."""
        return self.rule.success(achieved[:, self.dims :], desired[:, self.dims :])

    def terminated(self, achieved: Array, desired: Array) -> Array:
        """Whether each row ends its episode, `(N, D + K), (N, D + K) -> (N,)`."""
        return self.rule.terminated(achieved[:, self.dims :], desired[:, self.dims :])


@dataclass
class LatentDistanceRule:
    """Judges goals by the distance between codes: -1 until it is below a threshold, 0 there.

    The threshold is not known before the latent model has been fitted, and belongs to that version
    of it; whoever holds this rule sees it change.

    Source: Nair et al. 2018, section 4.3, who reward by the distance itself; sparse, as hindsight
    likes it, with a threshold found by `rlkit.latents.nearness`.

    Attributes:
        threshold: Distance below which a goal counts as reached, > 0.
    """

    threshold: float = np.inf

    @property
    def reward_range(self) -> tuple[float, float]:
        """Always `(-1, 0)`."""
        return (-1.0, 0.0)

    def reward(self, achieved: Array, desired: Array) -> Array:
        """-1 until a code is reached and 0 there, `(N, D), (N, D) -> (N,)`."""
        return DistanceRule(self.threshold).reward(achieved, desired)

    def success(self, achieved: Array, desired: Array) -> Array:
        """Whether each code is near the other, `(N, D), (N, D) -> (N,)`."""
        return DistanceRule(self.threshold).success(achieved, desired)

    def terminated(self, achieved: Array, desired: Array) -> Array:
        """Never, `(N, D), (N, D) -> (N,)`."""
        return np.zeros(len(achieved), np.bool_)


def require_image_rule(rule: GoalRule) -> ImageGoalRule:
    """A rule as one of pictures; raises a ValueError if it is none."""
    if not isinstance(rule, ImageGoalRule):
        raise ValueError(
            f"goals are pictures, which the replay does not keep: {type(rule).__name__} must say "
            f"by `goal_vector`, `width` and `rule` what it reads from a picture and how it judges "
            f"that, as rlkit.envs.wrappers.pixel_simulation.MarkerRule does"
        )
    return rule
