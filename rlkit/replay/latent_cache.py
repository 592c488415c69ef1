"""Images that are read as latents: encoded on first access and cached while they are valid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.replay.batch import Array
from rlkit.replay.columns import DESIRED, OBSERVATION, Column, GoalTable

CHUNK = 1024  # images that are encoded at a time, which bounds the memory they take
NEVER = -1  # the version of rows that have no latent yet


@runtime_checkable
class LatentEncoder(Protocol):
    """Encodes images as latents; each observation key reads a prefix of the latent."""

    @property
    def version(self) -> int:
        """Version of the encoder's parameters, >= 0; latents of two versions are not comparable."""

    @property
    def widths(self) -> Mapping[str, int]:
        """By key of an observation's images, how many numbers of a latent are read under it."""

    def encode(self, images: Array) -> NDArray[np.float32]:
        """Latents `(N, W)` of images `(N, *image)`, W the largest of `widths`."""


class LatentCache:
    """Latents of rows that are images.

    A row is encoded when it is read for the first time, and again when it is read after the
    encoder's version has changed.

    Args:
        size: Number of rows.
        latent_encoder: Computes the latents.

    Attributes:
        vectors: Latents `(size, W)`; pages of memory are taken as rows are written.
        version: Version of the encoder that computed each row, `(size,)`.
    """

    def __init__(self, size: int, latent_encoder: LatentEncoder) -> None:
        self.latent_encoder = latent_encoder
        self.vectors = np.zeros((size, latent_width(latent_encoder)), np.float32)
        self.version = np.full(size, NEVER, np.int32)

    def take(self, rows: Array, read: Callable[[Array], Array]) -> NDArray[np.float32]:
        """Latents `(*rows, W)` of rows; `read` returns the images of rows that must be encoded."""
        flat = rows.ravel()
        now = self.latent_encoder.version
        stale = np.unique(flat[self.version.take(flat) != now])
        for start in range(0, len(stale), CHUNK):
            part = stale[start : start + CHUNK]
            self.vectors[part] = self.latent_encoder.encode(read(part))
            self.version[part] = now
        return self.vectors.take(rows, axis=0)

    def invalidate(self, rows: Array | slice = slice(None)) -> None:
        """Marks rows as not encoded, by default all: their images have changed."""
        self.version[rows] = NEVER


class LatentColumn(Column):
    """Rows of images that are read as latents; see `Column` and `LatentCache`."""

    def __init__(
        self,
        size: int,
        space: spaces.Space[Any],
        directory: str | Path | None,
        latent_encoder: LatentEncoder,
    ) -> None:
        super().__init__(size, space, directory)
        self.latents = LatentCache(size, latent_encoder)

    def take(self, rows: Array) -> Array:
        """The latents of the given rows, `(*rows, W)`."""
        return self.latents.take(rows, self.images)

    def images(self, rows: Array) -> Array:
        """Copies of the stored images of the given rows, `(*rows, *space)`."""
        return super().take(rows)

    def put(self, rows: Array, values: Any) -> None:
        """Overwrites the images of the given rows, `(R,)`."""
        super().put(rows, values)
        self.latents.invalidate(rows)

    def arrays(self) -> dict[str, Array]:
        """All that is kept per row, by name."""
        cached = {"latent": self.latents.vectors, "version": self.latents.version}
        return super().arrays() | cached


class LatentGoalTable(GoalTable):
    """Goals that are images and are read as latents; see `GoalTable` and `LatentCache`."""

    def __init__(
        self, space: spaces.Space[Any], latent_encoder: LatentEncoder, capacity: int = 64
    ) -> None:
        super().__init__(space, capacity)
        self.latents = LatentCache(capacity, latent_encoder)

    def take(self, ids: Array) -> Array:
        """The latents of the goals with the given numbers, `(..., W)`."""
        return self.latents.take(ids % len(self.rows), self.stored)

    def append(self, goals: Array) -> Array:
        """Stores goals `(N, *image)`, growing where it must, and returns their numbers `(N,)`."""
        size = len(self.rows)
        ids = super().append(goals)
        if len(self.rows) > size:  # every goal has moved to another row
            self.latents = LatentCache(len(self.rows), self.latents.latent_encoder)
        else:
            self.latents.invalidate(ids % size)
        return ids

    def state_dict(self) -> dict[str, Any]:
        """All of it, as arrays and integers."""
        cached = {"latents": self.latents.vectors, "versions": self.latents.version}
        return super().state_dict() | cached

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        super().load_state_dict(state)
        self.latents.vectors = np.array(state["latents"], np.float32)
        self.latents.version = np.array(state["versions"], np.int32)


def make_goal_table(
    space: spaces.Space[Any], latent_encoder: LatentEncoder | None = None
) -> GoalTable:
    """A table of goals: a `LatentGoalTable` where the latent encoder reads desired goals."""
    if latent_encoder is None or DESIRED not in latent_encoder.widths:
        return GoalTable(space)
    return LatentGoalTable(space, latent_encoder)


def make_columns(
    size: int,
    keyed: Mapping[str, spaces.Space[Any]],
    directory: str | Path | None,
    latent_encoder: LatentEncoder | None,
) -> dict[str, Column]:
    """A column for each space: a `LatentColumn` for keys that the latent encoder reads."""
    encoded = {} if latent_encoder is None else latent_encoder.widths
    return {
        key: Column(size, space, directory)
        if latent_encoder is None or key not in encoded
        else LatentColumn(size, space, directory, latent_encoder)
        for key, space in keyed.items()
    }


def latent_width(latent_encoder: LatentEncoder) -> int:
    """W, the width of an encoder's latents."""
    return max(latent_encoder.widths.values())


def latent_bytes(latent_encoder: LatentEncoder | None, key: str) -> int:
    """Bytes of one latent and its version; 0 for keys that are not encoded."""
    if latent_encoder is None or key not in latent_encoder.widths:
        return 0
    return 4 * latent_width(latent_encoder) + 4


def check_latent_keys(latent_encoder: LatentEncoder | None, space: spaces.Space[Any]) -> None:
    """Raises a ValueError if a latent encoder reads a key that observations do not have."""
    keys = set(space.spaces) if isinstance(space, spaces.Dict) else {OBSERVATION}
    if latent_encoder is not None and not set(latent_encoder.widths) <= keys:
        raise ValueError(
            f"the latent encoder has widths for {sorted(latent_encoder.widths)}, but observations "
            f"have {sorted(keys)}: give `widths` for keys that are there"
        )
