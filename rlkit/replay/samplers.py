"""The contract of samplers, which choose the stored steps that batches are drawn around.

Laws, checked by `check_sampler`: drawn steps are stored; a draw depends on the storage, the
sampler's state and the generator alone, and changes no storage; a restored sampler goes on exactly;
weights of drawn steps, and priorities of windows with errors, are positive numbers.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.plugins import PluginGroup, run_laws
from rlkit.replay.storage import EpisodeStorage, Positions


@runtime_checkable
class ReplaySampler(Protocol):
    """Chooses stored steps; batches are windows around them.

    A sampler that keeps a number per step, such as a priority, keeps it under the step's slot with
    the position for which it was set (`EpisodeStorage.flat`): a slot whose position has changed
    holds a new step.
    """

    def draw(
        self, storage: EpisodeStorage, count: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], Positions]:
        """Environments and positions of stored steps, `(count,)` each; repeats are allowed.

        Raises:
            ValueError: If nothing is stored.
        """

    def update(self, env: NDArray[np.int64], position: Positions, value: NDArray[Any]) -> None:
        """Takes a learner's numbers for steps, such as absolute TD errors, `(B,)` each.

        Steps may repeat, and may have been overwritten since they were drawn.
        """

    def state_dict(self) -> dict[str, Any]:
        """Everything that further draws depend on, as arrays and plain data."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""


@runtime_checkable
class PrioritySampler(ReplaySampler, Protocol):
    """A sampler that draws by the learner's errors; the learner gives them back by `update`."""

    def importance(
        self, storage: EpisodeStorage, env: NDArray[np.int64], position: Positions
    ) -> NDArray[np.float32]:
        """Weights of steps of the last draw, `(B,)` > 0, that make up for how they were drawn.

        Losses divide the weights of a batch by their sum.
        """

    def window_priority(
        self, error: NDArray[Any], mask: NDArray[np.bool_]
    ) -> NDArray[np.floating[Any]]:
        """What all steps of a window get by `update`, `(B,)`.

        Args:
            error: Absolute errors of the windows' records, `(B, T)`.
            mask: Which of them count, `(B, T)`.
        """


SAMPLERS = PluginGroup[ReplaySampler]("rlkit.samplers", "sampler", ReplaySampler)


class StoredSteps:
    """A sampler and a storage of random episodes, on which the laws are checked.

    Args:
        sampler: A fresh one.
        seed: Of the stored steps and of the draws.
    """

    def __init__(self, sampler: ReplaySampler, seed: int = 0) -> None:
        self.sampler, self.seed = sampler, seed
        space = spaces.Box(-1, 1, (2,), np.float32)
        self.storage = EpisodeStorage(space, space, 60, num_envs=3)
        self._source = np.random.default_rng(seed)
        self.observation = self._vectors()
        self.add(40)

    def _vectors(self) -> NDArray[np.float32]:
        return self._source.uniform(-1, 1, (3, 2)).astype(np.float32)

    def add(self, steps: int) -> None:
        """Stores more steps, which overwrite the oldest ones."""
        for _ in range(steps):
            next_observation = self._vectors()
            ended = self._source.random(3) < 0.2
            reward, truncated = self._source.random(3), np.zeros(3, np.bool_)
            self.storage.add(
                self.observation, next_observation, reward, ended, truncated, next_observation
            )
            self.observation = next_observation

    def draw(self, sampler: ReplaySampler, later: int = 0) -> tuple[NDArray[np.int64], Positions]:
        """64 steps, always the same for a sampler in the same state; `later` draws differ."""
        return sampler.draw(self.storage, 64, np.random.default_rng([self.seed, later]))

    def rounds(self, sampler: ReplaySampler, first: int) -> list[NDArray[np.int64]]:
        """What two rounds of drawing and updating give, from the round `first` on."""
        drawn = []
        for later in (first, first + 1):
            env, position = self.draw(sampler, later)
            value = np.random.default_rng(later).random(len(env))
            sampler.update(env, position, value)
            drawn += [env, position]
        return drawn


Law = Callable[[StoredSteps], str | None]


def check_sampler(sampler: ReplaySampler, case: StoredSteps | None = None) -> None:
    """Checks the laws on random episodes; silent where they hold.

    Args:
        sampler: A fresh one; its state changes.
        case: What to check it on.

    Raises:
        ValueError: If a law is broken; the message names it and the problem.
    """
    run_laws(sampler, LAWS, StoredSteps(sampler) if case is None else case)


def _draws_stored_steps(case: StoredSteps) -> str | None:
    for more in (0, 1, 30):
        case.add(more)
        env, position = case.draw(case.sampler)
        for name, drawn in (("env", env), ("position", position)):
            if drawn.shape != (64,) or drawn.dtype != np.int64:
                return f"{name} is {drawn.dtype} {drawn.shape}, not int64 (64,)"
        if env.min() < 0 or env.max() >= case.storage.num_envs:
            return f"environments reach from {env.min()} to {env.max()}"
        if (position < 0).any() or (position >= case.storage.cursor[env]).any():
            return f"positions reach from {position.min()} to {position.max()}"
        if not case.storage.has_action[case.storage.flat(env, position)].all():
            return "a drawn slot holds no step"
        case.sampler.update(env, position, np.ones(64))
    return None


def _uses_the_generator_alone(case: StoredSteps) -> str | None:
    one, two = (case.draw(copy.deepcopy(case.sampler)) for _ in range(2))
    if not all(np.array_equal(a, b) for a, b in zip(one, two, strict=True)):
        return "the same generator gave other steps"
    other = case.draw(copy.deepcopy(case.sampler), later=1)
    return "another generator gave the same steps" if np.array_equal(one, other) else None


def _leaves_the_storage_alone(case: StoredSteps) -> str | None:
    before = pickle.dumps(case.storage.state_dict())
    case.rounds(case.sampler, 2)
    return None if pickle.dumps(case.storage.state_dict()) == before else "the storage changed"


def _goes_on_exactly(case: StoredSteps) -> str | None:
    fresh = copy.deepcopy(case.sampler)
    case.rounds(case.sampler, 4)
    fresh.load_state_dict(pickle.loads(pickle.dumps(case.sampler.state_dict())))
    one, two = case.rounds(case.sampler, 6), case.rounds(fresh, 6)
    same = all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    return None if same else "a restored sampler draws other steps"


def _accepts_steps_that_are_gone(case: StoredSteps) -> str | None:
    env, position = case.draw(case.sampler)
    case.add(60)
    case.sampler.update(env, position, np.ones(len(env)))
    return _draws_stored_steps(case)


def _weighs_what_it_draws(case: StoredSteps) -> str | None:
    if not isinstance(case.sampler, PrioritySampler):
        return None
    env, position = case.draw(case.sampler)
    error, mask = np.ones((64, 2)), np.ones((64, 2), np.bool_)
    found = {
        "importance": case.sampler.importance(case.storage, env, position),
        "window_priority": case.sampler.window_priority(error, mask),
    }
    for name, value in found.items():
        if value.shape != (64,) or not np.isfinite(value).all() or value.min() <= 0:
            return f"{name} gives {value.shape} numbers from {value.min()} to {value.max()}"
    return None


LAWS: dict[str, Law] = {
    "draws stored steps": _draws_stored_steps,
    "depends on the generator alone": _uses_the_generator_alone,
    "leaves the storage alone": _leaves_the_storage_alone,
    "goes on exactly": _goes_on_exactly,
    "accepts steps that are gone": _accepts_steps_that_are_gone,
    "weighs what it draws": _weighs_what_it_draws,
}
