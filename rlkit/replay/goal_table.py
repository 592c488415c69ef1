"""Goals stored once each, however many steps pursue them."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from rlkit.replay.batch import Array
from rlkit.replay.column import empty_rows
from rlkit.replay.latent_cache import LatentCache, LatentEncoder


class GoalTable:
    """Goals by ever-growing number, kept while a stored step pursues them.

    Args:
        space: Space of one goal.
        capacity: Goals that there is room for at first.
        latent_encoder: Encodes goals that are images when they are read; None returns them as they
            are.
    """

    def __init__(
        self,
        space: spaces.Space[Any],
        capacity: int = 64,
        latent_encoder: LatentEncoder | None = None,
    ) -> None:
        self.rows = empty_rows(capacity, space)
        self.latents = None if latent_encoder is None else LatentCache(capacity, latent_encoder)
        self.first_id = 0
        self.next_id = 0

    def take(self, ids: Array) -> Array:
        """The goals with the given numbers as they are read, `(..., *goal)` or `(..., W)`."""
        if self.latents is None:
            return self.kept(ids)
        return self.latents.take(ids % len(self.rows), self.kept)

    def kept(self, ids: Array) -> Array:
        """The goals with the given numbers as they were appended, `(..., *goal)`."""
        return self.rows.take(ids % len(self.rows), axis=0)

    def full(self, count: int) -> bool:
        """Whether `count` more goals do not fit."""
        return self.next_id + count - self.first_id > len(self.rows)

    def drop_before(self, oldest: int) -> None:
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
            if self.latents is not None:
                self.latents = LatentCache(size, self.latents.latent_encoder)
        self.rows[ids % len(self.rows)] = goals
        if self.latents is not None:
            self.latents.invalidate(ids % len(self.rows))
        self.next_id += len(goals)
        return ids

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        state = {"rows": self.rows, "first_id": self.first_id, "next_id": self.next_id}
        if self.latents is not None:
            state |= {"latents": self.latents.vectors, "versions": self.latents.version}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.rows = np.array(state["rows"], self.rows.dtype)
        self.first_id, self.next_id = int(state["first_id"]), int(state["next_id"])
        if self.latents is not None:
            self.latents.vectors = np.array(state["latents"], np.float32)
            self.latents.version = np.array(state["versions"], np.int32)
