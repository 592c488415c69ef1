"""Checks a goal generator, ours or a user's, against the laws of goal generators."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from rlkit.goals.generators.contract import GoalContext, GoalGenerator
from rlkit.goals.rule import Array, DistanceRule
from rlkit.plugins import run_laws


class Episodes:
    """A goal generator and random episodes, on which the laws are checked.

    Args:
        generator: A fresh one.
        space: Space of one goal; vectors of two unbounded numbers by default.
        seed: Of goals and proposals.
    """

    def __init__(
        self, generator: GoalGenerator, space: spaces.Space[Any] | None = None, seed: int = 0
    ) -> None:
        box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.space, self.seed = box if space is None else space, seed
        self.generator, self._fresh = generator, copy.deepcopy(generator)
        self.stored = 0
        self._goals = copy.deepcopy(self.space)
        self._goals.seed(seed)
        self.context = GoalContext(
            self.space, DistanceRule(0.5), lambda: self.stored, self.achieved, has_prior=True
        )
        generator.attach(self.context)

    def goals(self, count: int) -> Array:
        """Random goals `(count, *goal)`."""
        return np.stack([self._goals.sample() for _ in range(count)])

    def achieved(self, count: int, rng: np.random.Generator) -> Array:
        """Achieved goals `(count, *goal)`, drawn of 50 fixed ones."""
        fixed = copy.deepcopy(self.space)
        fixed.seed(self.seed + 1)
        return np.stack([fixed.sample() for _ in range(50)])[rng.integers(50, size=count)]

    def restored(self, state: bytes) -> GoalGenerator:
        """Another generator of the same settings, with a pickled state."""
        other = copy.deepcopy(self._fresh)
        other.attach(self.context)
        other.load_state_dict(pickle.loads(state))
        return other

    def state(self) -> bytes:
        """The generator's state, pickled."""
        return pickle.dumps(self.generator.state_dict())

    def finish(self, generator: GoalGenerator, later: int) -> None:
        """Lets 4 episodes finish, half of them with success; `later` ones differ."""
        rng = np.random.default_rng([self.seed, later])
        achieved = self.achieved(4, rng)
        generator.observe(self.achieved(4, rng), achieved, np.arange(4) % 2 == 0)

    def proposals(self, generator: GoalGenerator, later: int) -> list[Array]:
        """What a generator proposes in three rounds with outcomes between them."""
        rng, rounds = np.random.default_rng(self.seed + later), []
        for i, count in enumerate((1, 7, 3)):
            rounds.append(generator.propose(self.achieved(count, rng), rng))
            self.finish(generator, later + i)
        return rounds


Law = Callable[[Episodes], str | None]


def check_generator(generator: GoalGenerator, case: Episodes | None = None) -> None:
    """Checks the laws on random episodes; silent where they hold.

    Args:
        generator: A fresh one; it is attached, and its state changes.
        case: What to check it on.

    Raises:
        ValueError: If a law is broken; the message names it and the problem.
    """
    run_laws(generator, LAWS, Episodes(generator) if case is None else case)


def _proposes_goals(case: Episodes) -> str | None:
    """Before anything is stored, and after."""
    if not 0 <= case.generator.share <= 1:
        return f"share = {case.generator.share} is not in [0, 1]"
    for stored in (0, 50):
        case.stored = stored
        for count in (1, 5, 64):
            desired = case.goals(count)
            before = desired.copy()
            goals = case.generator.propose(desired, np.random.default_rng(case.seed))
            if goals.shape != desired.shape or goals.dtype != desired.dtype:
                return f"goals are {goals.dtype} {goals.shape}, not {desired.dtype} {desired.shape}"
            if goals.dtype.kind == "f" and not np.isfinite(goals).all():
                return "a goal is not finite"
            if not np.array_equal(desired, before):
                return "the given goals changed"
        case.finish(case.generator, stored)
    return None


def _uses_the_generator_alone(case: Episodes) -> str | None:
    case.stored, state = 50, case.state()
    one, two = (case.proposals(case.restored(state), 1) for _ in range(2))
    same = all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    return None if same else "the same state and generator gave other goals"


def _goes_on_exactly(case: Episodes) -> str | None:
    case.stored = 50
    case.proposals(case.generator, 2)
    restored = case.restored(case.state())
    one, two = case.proposals(case.generator, 3), case.proposals(restored, 3)
    same = all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    return None if same else "a restored generator proposes other goals"


LAWS: dict[str, Law] = {
    "proposes goals": _proposes_goals,
    "depends on the generator alone": _uses_the_generator_alone,
    "goes on exactly": _goes_on_exactly,
}
