"""What a goal means: reward, success and termination as functions of goal arrays alone.

A rule reads arrays and never a live environment, so hindsight can apply it to goals that were
never pursued, in a saved model or in another process, without the environment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]
Array = NDArray[Any]


@runtime_checkable
class GoalRule(Protocol):
    """Reward, success and termination of reaching `achieved` while pursuing `desired`.

    Laws: every method maps two arrays `(N, *goal)` to one array `(N,)`; a batch equals a loop over
    its rows; the values equal those that `env.step` returned; the rule can be pickled.

    Attributes:
        reward_range: Lowest and highest reward of one step. Bounded value targets follow from it;
            infinite ends switch the bound off.
    """

    @property
    def reward_range(self) -> tuple[float, float]:
        """Lowest and highest reward of one step."""

    def reward(self, achieved: Array, desired: Array) -> FloatArray:
        """Reward of each row, `(N, *goal), (N, *goal) -> (N,)`."""

    def success(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether each row reached its goal, `(N, *goal), (N, *goal) -> (N,)`."""

    def terminated(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether reaching the goal ends each row's episode, `(N, *goal), (N, *goal) -> (N,)`."""


def goal_distance(achieved: Array, desired: Array) -> FloatArray:
    """Euclidean distance per row of two goal arrays `(N, G)`, shape `(N,)`."""
    difference: FloatArray = achieved - desired
    # einsum, because np.linalg.norm takes about three times as long on narrow rows.
    distance: FloatArray = np.sqrt(np.einsum("...i,...i->...", difference, difference))
    return distance


class _EndsOnSuccess:
    """Goals whose success may end the episode."""

    terminates: bool

    def success(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether each row reached its goal, `(N, *goal), (N, *goal) -> (N,)`."""
        raise NotImplementedError

    def terminated(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether each row ends its episode, `(N, *goal), (N, *goal) -> (N,)`."""
        if not self.terminates:
            return np.zeros(len(achieved), np.bool_)
        return self.success(achieved, desired)


@dataclass(frozen=True)
class DistanceRule(_EndsOnSuccess):
    """Success within a Euclidean distance of the goal.

    The sparse reward is -1 until success and 0 at it, the convention of the Fetch tasks
    (Plappert et al. 2018, section 1); the dense one is minus the distance.

    Attributes:
        threshold: Distance below which the goal counts as reached, in the goal's units, > 0.
        sparse: Whether the reward depends on success only.
        terminates: Whether success ends the episode.
    """

    threshold: float
    sparse: bool = True
    terminates: bool = False

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise ValueError(f"threshold must be positive, got {self.threshold}")

    @property
    def reward_range(self) -> tuple[float, float]:
        """`(-1, 0)` when sparse, unbounded below when dense."""
        return (-1.0, 0.0) if self.sparse else (-np.inf, 0.0)

    def reward(self, achieved: Array, desired: Array) -> FloatArray:
        """Reward of each row, `(N, G), (N, G) -> (N,)`."""
        distance = goal_distance(achieved, desired)
        return -(distance >= self.threshold).astype(np.float64) if self.sparse else -distance

    def success(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether each row lies within the threshold, `(N, G), (N, G) -> (N,)`."""
        return np.asarray(goal_distance(achieved, desired) < self.threshold)


@dataclass(frozen=True)
class ExactRule(_EndsOnSuccess):
    """Success where every component of a discrete goal is equal.

    Attributes:
        terminates: Whether success ends the episode.
    """

    terminates: bool = True

    @property
    def reward_range(self) -> tuple[float, float]:
        """Always `(-1, 0)`."""
        return (-1.0, 0.0)

    def reward(self, achieved: Array, desired: Array) -> FloatArray:
        """-1 until equality and 0 at it, `(N, *G), (N, *G) -> (N,)`."""
        return self.success(achieved, desired).astype(np.float64) - 1.0

    def success(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether each row equals its goal, `(N, *G), (N, *G) -> (N,)`."""
        equal = np.asarray(achieved == desired)
        return np.asarray(equal.reshape(len(equal), -1).all(axis=1))


@dataclass(frozen=True)
class ComputedRule:
    """A rule made of an environment's own `compute_reward` (and `compute_terminated`).

    For environments with the methods of Gymnasium-Robotics and without a `GoalRule`. It can be
    pickled if the functions can; bound methods of an environment pickle the environment, too.

    Attributes:
        compute_reward: `(achieved, desired, info) -> (N,)`, batched.
        compute_terminated: The same for termination; None means that goals never end an episode.
        compute_success: `(achieved, desired) -> (N,)`; None means that success is a reward as
            high as that of achieving the desired goal itself.
        reward_range: Lowest and highest reward of one step.
    """

    compute_reward: Callable[[Array, Array, Any], Any]
    compute_terminated: Callable[[Array, Array, Any], Any] | None = None
    compute_success: Callable[[Array, Array], Any] | None = None
    reward_range: tuple[float, float] = (-np.inf, np.inf)

    def reward(self, achieved: Array, desired: Array) -> FloatArray:
        """Reward of each row, `(N, *G), (N, *G) -> (N,)`."""
        return _without_info("compute_reward", self.compute_reward, achieved, desired, np.float64)

    def success(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether each row reached its goal, `(N, *G), (N, *G) -> (N,)`."""
        if self.compute_success is not None:
            success = np.asarray(self.compute_success(achieved, desired), dtype=np.bool_)
            return _batched("compute_success", success, len(achieved))
        return np.asarray(self.reward(achieved, desired) >= self.reward(desired, desired))

    def terminated(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether each row ends its episode, `(N, *G), (N, *G) -> (N,)`."""
        if self.compute_terminated is None:
            return np.zeros(len(achieved), dtype=np.bool_)
        compute: Callable[[Array, Array, Any], Any] = self.compute_terminated

        def compute_rows(achieved: Array, desired: Array, info: Any) -> Any:
            try:
                ends = compute(achieved, desired, info)
            except NotImplementedError:  # inherited from Gymnasium-Robotics' GoalEnv, as by Kitchen
                ends = False
            # Gymnasium-Robotics' manipulation tasks return a plain False for any batch.
            return np.zeros(len(achieved), np.bool_) if np.shape(ends) == () and not ends else ends

        return _without_info("compute_terminated", compute_rows, achieved, desired, np.bool_)


def _without_info(
    name: str,
    compute: Callable[[Array, Array, Any], Any],
    achieved: Array,
    desired: Array,
    kind: type[np.generic],
) -> Array:
    """Calls a function of goals and infos, of which there are none for goals not pursued.

    Gymnasium-Robotics passes one dict for a batch, Stable-Baselines3 an array of them; a function
    may be written for either.
    """
    try:
        value = np.asarray(compute(achieved, desired, {}), dtype=kind)
        return _batched(name, value, len(achieved))
    except Exception as error:
        infos = np.array([{} for _ in achieved], dtype=np.object_)
        try:
            value = np.asarray(compute(achieved, desired, infos), dtype=kind)
            return _batched(name, value, len(achieved))
        except Exception as second:
            missing = next((e for e in (second, error) if isinstance(e, KeyError)), None)
            if missing is None:
                raise error from None
            raise ValueError(
                f"{name} needs info[{missing}], which is unknown for goals that were not pursued: "
                f"compute it from the goals, or train without goals by "
                f"gymnasium.wrappers.FlattenObservation"
            ) from error


class NotBatchedError(ValueError):
    """A function of goals does not return one value per row."""


def _batched(name: str, value: Array, rows: int) -> Array:
    if value.shape != (rows,):
        raise NotBatchedError(
            f"{name} returned shape {value.shape} for {rows} goals; it must be batched: map "
            f"two arrays (N, *goal) to one array (N,). A distance with axis=-1 usually does it."
        )
    return value


@dataclass(frozen=True)
class FurtherTerms:
    """The rule of a reward that has terms beside the goal's, such as a cost or a penalty.

    Its reward is the goal's part. Hindsight relabels that part, and keeps the rest of the reward
    that was stored: what the environment gave beyond the rule for the goal pursued.

    Attributes:
        rule: The rule of the goal's part.
    """

    rule: GoalRule

    @property
    def reward_range(self) -> tuple[float, float]:
        """Unbounded: the rest is unknown."""
        return (-np.inf, np.inf)

    def reward(self, achieved: Array, desired: Array) -> FloatArray:
        """The goal's part of the reward, `(N, *G), (N, *G) -> (N,)`."""
        return self.rule.reward(achieved, desired)

    def success(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether each row reached its goal, `(N, *G), (N, *G) -> (N,)`."""
        return self.rule.success(achieved, desired)

    def terminated(self, achieved: Array, desired: Array) -> BoolArray:
        """Whether reaching the goal ends each row's episode, `(N, *G), (N, *G) -> (N,)`."""
        return self.rule.terminated(achieved, desired)


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


def return_bounds(rule: GoalRule | None, gamma: float) -> tuple[float, float] | None:
    """Lowest and highest return that a rule's rewards allow; None where that is unbounded.

    An episode may end at once, so the bounds include the reward of a single step.
    """
    if rule is None:
        return None
    low, high = rule.reward_range
    horizon = 1 / max(1 - gamma, 1e-6)
    bounds = (min(low * horizon, low), max(high * horizon, high))
    return bounds if np.isfinite(bounds).all() else None
