"""Goals stored once each, however many steps pursue them."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from rlkit.replay.batch import Array
from rlkit.replay.column import empty_rows


class GoalTable:
    """Goals by ever-growing number, kept while a stored step pursues them."""

    def __init__(self, space: spaces.Space[Any], capacity: int = 64) -> None:
        self.rows = empty_rows(capacity, space)
        self.first_id = 0
        self.next_id = 0

    def take(self, ids: Array) -> Array:
        """The goals with the given numbers, `(..., *goal)`."""
        return self.rows.take(ids % len(self.rows), axis=0)

    def full(self, count: int) -> bool:
        """Whether `count` more goals do not fit."""
        return self.next_id + count - self.first_id > len(self.rows)

    def forget(self, oldest: int) -> None:
        """Gives up the goals before number `oldest`."""
        self.first_id = max(self.first_id, oldest)

    def append(self, goals: Array) -> Array:
        """Stores goals `(N, *goal)` and returns their numbers, growing where it must."""
        ids = np.arange(self.next_id, self.next_id + len(goals))
        if self.full(len(goals)):
            alive = np.arange(self.first_id, self.next_id)
            size = len(self.rows)
            while len(alive) + len(goals) > size:
                size *= 2
            grown = np.zeros((size, *self.rows.shape[1:]), self.rows.dtype)
            grown[alive % size] = self.rows[alive % len(self.rows)]
            self.rows = grown
        self.rows[ids % len(self.rows)] = goals
        self.next_id += len(goals)
        return ids

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {"rows": self.rows, "first_id": self.first_id, "next_id": self.next_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.rows = np.array(state["rows"], self.rows.dtype)
        self.first_id, self.next_id = int(state["first_id"]), int(state["next_id"])
