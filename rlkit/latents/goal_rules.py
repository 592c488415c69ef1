"""Goal rules for latents: by a vector read from the image, or by the distance of latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rlkit.goals import DistanceRule, GoalRule

Array = NDArray[Any]


@runtime_checkable
class ImageGoalRule(Protocol):
    """A goal rule for images: it reads a vector from each, and has a rule for the vectors.

    Attributes:
        rule: The rule for the vectors.
        width: K, their width.
    """

    rule: GoalRule
    width: int

    def goal_vector(self, images: Array) -> Array:
        """The vectors of images, `(N, H, W, C) -> (N, K)`."""


@dataclass(frozen=True)
class LatentGoalRule:
    """The rule for goals that are a latent, which agents read, followed by a vector with a rule.

    Attributes:
        rule: The rule for the vector after the latent.
        dims: D, the width of a latent.
    """

    rule: GoalRule
    dims: int

    @property
    def reward_range(self) -> tuple[float, float]:
        """That of the vector's rule."""
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
    """Rewards the distance between latents: 0 below a threshold, otherwise -1.

    The threshold is found by `rlkit.latents.nearness` once the latent model has been fitted, and
    again after each further fit; it is set on this object.

    Source: Nair et al. 2018, section 4.3, whose reward is the distance itself; sparse here, which
    suits hindsight.

    Attributes:
        threshold: Distance below which a goal counts as reached, > 0.
    """

    threshold: float = np.inf

    @property
    def reward_range(self) -> tuple[float, float]:
        """Always `(-1, 0)`."""
        return (-1.0, 0.0)

    def reward(self, achieved: Array, desired: Array) -> Array:
        """0 where the desired latent is reached, otherwise -1, `(N, D), (N, D) -> (N,)`."""
        return DistanceRule(self.threshold).reward(achieved, desired)

    def success(self, achieved: Array, desired: Array) -> Array:
        """Whether the latents are closer than the threshold, `(N, D), (N, D) -> (N,)`."""
        return DistanceRule(self.threshold).success(achieved, desired)

    def terminated(self, achieved: Array, desired: Array) -> Array:
        """Never, `(N, D), (N, D) -> (N,)`."""
        return np.zeros(len(achieved), np.bool_)


def require_image_rule(rule: GoalRule) -> ImageGoalRule:
    """A rule as one of images; raises a ValueError if it is none."""
    if not isinstance(rule, ImageGoalRule):
        raise ValueError(
            f"goals are images, which the replay buffer does not keep: {type(rule).__name__} must "
            f"have `goal_vector`, `width` and `rule`, as "
            f"rlkit.envs.wrappers.pixel_simulation.MarkerRule has"
        )
    return rule
