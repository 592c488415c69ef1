"""Prioritised experience replay: steps with large errors are drawn more often.

A step's priority is its absolute TD error when it was last learned from, under the goal that
hindsight drew then, and under the windows' errors where agents are recurrent. The importance weight
belongs to the step alone: it makes expectations those of uniformly drawn steps, whereas goals are
drawn after the step, and as ever. So a step is drawn often if some of its goals surprise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.replay.storage import EpisodeStorage, Positions
from rlkit.replay.sum_tree import SumTree

SMALLEST = 1e-6
"""Added to every error, so that no step is lost (epsilon in section 3.3)."""


@dataclass
class PrioritisedSampler:
    """Draws steps in proportion to a power of their priorities.

    Source: Schaul et al. 2016, "Prioritized Experience Replay", the proportional variant of section
    3.3, with importance weights (3.4). Windows: Kapturowski et al. 2019, "Recurrent Experience
    Replay in Distributed Reinforcement Learning", section 2.3. Deviations: draws are independent,
    not stratified; the weights of a batch are divided by their mean, not by their maximum, so that
    losses stay means; a window's priority is given to all of its steps.

    Raises:
        ValueError: If a setting is out of range.
    """

    alpha: float = 0.6
    """Power of the priorities, in [0, 1]; 0 draws uniformly."""
    beta: float = 0.4
    """Power of the importance weights at first, in [0, 1]; it grows to 1 linearly."""
    anneal: int = 10_000_000
    """Steps drawn until it is 1, >= 1: an update draws the batch size, three times that with
    weighted goals."""
    eta: float = 0.9
    """Share of the largest error in the priority of a window, beside the mean, in [0, 1]."""
    _tree: SumTree | None = field(init=False, default=None, repr=False, compare=False)
    _slots: int = field(init=False, default=0, repr=False, compare=False)
    # Per environment, the cursor up to which steps are in the tree.
    _seen: Positions = field(init=False, repr=False, compare=False)
    _highest: float = field(init=False, default=1.0, repr=False, compare=False)
    _drawn: int = field(init=False, default=0, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "eta"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.anneal < 1:
            raise ValueError(f"anneal must be >= 1, got {self.anneal}")
        self._seen = np.zeros(0, np.int64)

    def draw(
        self, storage: EpisodeStorage, count: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], Positions]:
        """Environments and positions of stored steps, `(count,)` each.

        Steps that were never learned from have the highest priority so far.

        Raises:
            ValueError: If nothing is stored.
        """
        tree = self._take_in(storage)
        found = np.zeros(0, np.int64)
        while len(found) < count:
            if tree.total == 0:
                raise ValueError("the replay buffer is empty: add a step before sampling")
            slot = tree.find(rng.random(count - len(found)) * tree.total)
            held = storage.has_action.take(slot)
            if not held.all():  # steps that were retracted
                tree.put(slot[~held], 0.0)
                slot = slot[held]
            found = np.concatenate([found, slot])
        self._drawn += count
        env = found // storage.slots
        return env, storage.position_of(env, found - env * storage.slots)

    def importance(
        self, storage: EpisodeStorage, env: NDArray[np.int64], position: Positions
    ) -> NDArray[np.float32]:
        """Importance weights of steps that were drawn last, `(B,)`: (N P)^-beta."""
        assert self._tree is not None
        chance = self._tree.leaves.take(storage.flat(env, position)) / self._tree.total
        beta = self.beta + (1 - self.beta) * min(1.0, self._drawn / self.anneal)
        return ((len(storage) * chance) ** -beta).astype(np.float32)

    def window_priority(
        self, error: NDArray[Any], mask: NDArray[np.bool_]
    ) -> NDArray[np.floating[Any]]:
        """One number per window, `(B,)`, of its records' absolute errors `(B, T)`.

        Args:
            error: The errors.
            mask: Which records count, `(B, T)`.
        """
        counted = np.where(mask, error, 0.0)
        mean = counted.sum(axis=1) / np.maximum(mask.sum(axis=1), 1)
        mixed: NDArray[np.floating[Any]] = self.eta * counted.max(axis=1) + (1 - self.eta) * mean
        return mixed

    def update(self, env: NDArray[np.int64], position: Positions, value: NDArray[Any]) -> None:
        """Takes absolute TD errors of steps, `(B,)` each; those that are gone are left out."""
        if self._tree is None:
            return
        slot = env * self._slots + position % self._slots
        kept = position + self._slots > self._seen.take(env)
        priority = np.abs(value[kept]).astype(np.float64) + SMALLEST
        if len(priority):
            self._highest = max(self._highest, float(priority.max()))
            self._tree.put(slot[kept], priority**self.alpha)

    def _take_in(self, storage: EpisodeStorage) -> SumTree:
        """The tree with everything that is stored."""
        cursor, slots = storage.cursor, storage.slots
        same = self._slots == slots and len(self._seen) == len(cursor)
        if self._tree is None or not same or (cursor < self._seen).any():
            self._slots, self._seen = slots, np.zeros_like(cursor)
            self._tree = SumTree(slots * len(cursor))
        elif np.array_equal(cursor, self._seen):
            return self._tree
        # The slot under the old cursor held no step then, and that under the new one holds none.
        start = np.maximum(self._seen, cursor + 1 - slots)
        count = cursor + 1 - start
        env = np.repeat(np.arange(len(cursor)), count)
        offset = np.arange(len(env)) - np.repeat(count.cumsum() - count, count)
        slot = storage.flat(env, start.take(env) + offset)
        self._tree.put(slot, np.where(storage.has_action.take(slot), self._highest**self.alpha, 0))
        self._seen = cursor.copy()
        return self._tree

    def state_dict(self) -> dict[str, Any]:
        """Priorities of all slots to the power of `alpha`, and counters."""
        leaves = np.zeros(0) if self._tree is None else self._tree.leaves
        used = min(self._slots, int(self._seen.max(initial=0)) + 1)
        return {
            "leaves": leaves.reshape(len(self._seen), self._slots)[:, :used].copy(),
            "slots": self._slots,
            "seen": self._seen.copy(),
            "highest": self._highest,
            "drawn": self._drawn,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; a sampler that keeps no priorities gave nothing."""
        self._tree, self._slots, self._seen = None, 0, np.zeros(0, np.int64)
        self._highest, self._drawn = float(state.get("highest", 1.0)), int(state.get("drawn", 0))
        if int(state.get("slots", 0)) > 0:
            self._seen, self._slots = np.array(state["seen"], np.int64), int(state["slots"])
            leaves = np.asarray(state["leaves"])
            rings = np.arange(len(leaves))[:, None] * self._slots
            self._tree = SumTree(len(leaves) * self._slots)
            self._tree.put((rings + np.arange(leaves.shape[1])).reshape(-1), leaves.reshape(-1))
