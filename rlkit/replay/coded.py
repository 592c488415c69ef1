"""Pictures that are read as vectors, made when they are asked for and kept while they are valid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.replay.batch import Array
from rlkit.replay.column import Column

CHUNK = 1024  # pictures in memory at a time, beside those that are stored there
NEVER = -1  # the version of rows that have no vector yet


@runtime_checkable
class Coder(Protocol):
    """Makes vectors of pictures, of each picture one, from which every key reads the beginning."""

    @property
    def version(self) -> int:
        """Of what it computes, >= 0: vectors of different versions must not meet."""

    @property
    def widths(self) -> Mapping[str, int]:
        """By key of an observation's pictures, how much of their vectors is read under it."""

    def encode(self, pictures: Array) -> NDArray[np.float32]:
        """Vectors `(N, W)` of pictures `(N, *picture)`, W the largest of `widths`."""


class Codes:
    """Vectors of rows that are pictures.

    A row is encoded when it is read for the first time, and again when it is read after the coder's
    version has changed.

    Args:
        size: Number of rows.
        coder: What makes the vectors.

    Attributes:
        vectors: `(size, W)`; they take memory as they are made.
        version: Of the coder that made each, `(size,)`.
    """

    def __init__(self, size: int, coder: Coder) -> None:
        self.coder = coder
        self.vectors = np.zeros((size, code_width(coder)), np.float32)
        self.version = np.full(size, NEVER, np.int32)

    def take(self, rows: Array, read: Callable[[Array], Array]) -> NDArray[np.float32]:
        """Vectors `(*rows, W)` of rows, whose pictures `read` gives where one is to be encoded."""
        flat = rows.ravel()
        now = self.coder.version
        stale = np.unique(flat[self.version.take(flat) != now])
        for start in range(0, len(stale), CHUNK):
            part = stale[start : start + CHUNK]
            self.vectors[part] = self.coder.encode(read(part))
            self.version[part] = now
        return self.vectors.take(rows, axis=0)

    def forget(self, rows: Array | slice = slice(None)) -> None:
        """Takes note that the pictures of some rows have changed, by default of all."""
        self.version[rows] = NEVER


class CodedColumn(Column):
    """Rows of pictures that are read as vectors; see `Column` and `Codes`."""

    def __init__(
        self,
        size: int,
        space: spaces.Space[Any],
        directory: str | Path | None,
        coder: Coder,
    ) -> None:
        super().__init__(size, space, directory)
        self.codes = Codes(size, coder)

    def take(self, rows: Array) -> Array:
        """The vectors of the given rows, `(*rows, W)`."""
        return self.codes.take(rows, self.pictures)

    def pictures(self, rows: Array) -> Array:
        """Copies of the rows as they were put, `(*rows, *space)`."""
        return super().take(rows)

    def put(self, rows: Array, values: Any) -> None:
        """Overwrites the pictures of the given rows, `(R,)`."""
        super().put(rows, values)
        self.codes.forget(rows)

    def arrays(self) -> dict[str, Array]:
        """All that is kept per row, by name."""
        return super().arrays() | {"code": self.codes.vectors, "version": self.codes.version}


def columns_of(
    size: int,
    keyed: Mapping[str, spaces.Space[Any]],
    directory: str | Path | None,
    coder: Coder | None,
) -> dict[str, Column]:
    """A column of each space; of those that a coder reads, one that is read through it."""
    coded = {} if coder is None else coder.widths
    return {
        key: Column(size, space, directory)
        if coder is None or key not in coded
        else CodedColumn(size, space, directory, coder)
        for key, space in keyed.items()
    }


def code_width(coder: Coder) -> int:
    """W, the width of a coder's vectors."""
    return max(coder.widths.values())


def code_bytes(coder: Coder | None, key: str) -> int:
    """Bytes of one vector and its version; 0 for what is not read through a coder."""
    return 0 if coder is None or key not in coder.widths else 4 * code_width(coder) + 4


def require_pictures(coder: Coder | None, space: spaces.Space[Any]) -> None:
    """Raises a ValueError if a coder reads what is no part of an observation."""
    keys = set(space.spaces) if isinstance(space, spaces.Dict) else {"observation"}
    if coder is not None and not set(coder.widths) <= keys:
        raise ValueError(
            f"the coder makes vectors of {sorted(coder.widths)}, but observations have "
            f"{sorted(keys)}: give `widths` for keys that are there"
        )
