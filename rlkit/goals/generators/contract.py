"""The contract of goal generators, which propose the goals that training episodes pursue.

Laws, checked by `check_generator`: proposed goals have the shape and type of the given ones, which
stay as they are; the same state and random generator give the same goals; a restored generator goes
on exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces

from rlkit.goals.rule import Array, BoolArray, GoalRule
from rlkit.plugins import PluginGroup


def _fixed_version() -> int:
    return 0


@dataclass(frozen=True)
class GoalContext:
    """What a generator can read of its agent.

    Goals are in the form in which the agent stores them: an environment's, or latents.

    Attributes:
        space: Space of one goal.
        rule: Reward and success of goals.
        count: Returns the number of stored steps.
        achieved: Draws goals achieved in stored steps, uniformly: `(n, rng) -> (n, *goal)`.
        has_prior: Whether goals are latents of a model whose prior is a standard normal.
        version: Returns the version of the latent model; goals of two versions are not comparable.
    """

    space: spaces.Space[Any]
    rule: GoalRule
    count: Callable[[], int]
    achieved: Callable[[int, np.random.Generator], Array]
    has_prior: bool = False
    version: Callable[[], int] = _fixed_version


@runtime_checkable
class GoalGenerator(Protocol):
    """Proposes goals at the start of training episodes, and learns from how they ended.

    A generator is a dataclass whose fields are its settings; state goes into fields with
    `init=False`. Randomness comes from the generator that is passed in.

    Attributes:
        share: Share of training episodes that pursue a proposed goal, in [0, 1]; the others pursue
            the environment's.
    """

    share: float

    def attach(self, context: GoalContext) -> None:
        """Takes the agent's context; called before everything else, and when it changes.

        Raises:
            ValueError: If the generator cannot propose goals there; the message names what can.
        """

    def propose(self, desired: Array, rng: np.random.Generator) -> Array:
        """Goals `(n, *goal)` for n episodes that begin, or for n rows that hindsight relabels.

        Args:
            desired: The goals that would be pursued otherwise, `(n, *goal)`; a generator that has
                nothing to propose yet returns them.
            rng: The source of randomness.
        """

    def observe(self, goals: Array, achieved: Array, success: BoolArray) -> None:
        """Takes the outcomes of n finished episodes.

        Args:
            goals: The goals that they pursued, proposed or not, `(n, *goal)`.
            achieved: The goals that they achieved in the end, `(n, *goal)`.
            success: Whether these count as reached, `(n,)`.
        """

    def state_dict(self) -> dict[str, Any]:
        """Everything that further proposals depend on, as arrays and plain data."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; `attach` was called before."""


GENERATORS = PluginGroup[GoalGenerator]("rlkit.generators", "goal generator", GoalGenerator)


def check_number(owner: str, name: str, value: Any, low: float, high: float) -> None:
    """Raises a ValueError if a setting is not a number in [low, high]."""
    if not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{owner}: {name} = {value!r} must be a number in [{low}, {high}]")
