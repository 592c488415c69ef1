"""Rows of one space, in memory or in a file on a local disk."""

from __future__ import annotations

import math
import mmap
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.lib import format as npy

from rlkit.replay.batch import Array

WRITTEN_AT_MOST = 2**25  # bytes through a map, before what they made resident is given back


class Column:
    """Rows that are read and written by number.

    A file is mapped for writing and for whoever reads all of it, but rows are read in plain calls:
    what is touched in a map stays resident, and the kernel maps up to 2 MB around it, so that soon
    the whole file would be resident. What is read often is cached by the system while it has room.

    Args:
        size: Number of rows.
        space: Space of one row.
        directory: A folder on a local disk where the rows live; None for memory. The file there has
            no name from the start, so several replays can share a folder, nothing is left behind
            by a process that is killed, and the space is free again when the replay is gone.

    Raises:
        ValueError: If the space is not one of arrays, or the disk has no room.
    """

    def __init__(
        self, size: int, space: spaces.Space[Any], directory: str | Path | None = None
    ) -> None:
        self._file: int | None = None
        self._cold = self._viewed = False
        self._written = 0
        if directory is None:
            self._array: Array = empty_rows(size, space)
            return
        mapped, self._file = _new_file(size, space, Path(directory))
        self._array, self._begin = np.asarray(mapped), mapped.offset
        self._map: mmap.mmap = mapped._mmap  # type: ignore[attr-defined]
        self._width = self._array.nbytes // size
        if self._file is not None:
            weakref.finalize(self, os.close, self._file)

    @property
    def array(self) -> Array:
        """All rows, `(size, *space)`, zero at first; they take memory as they are written to."""
        self._viewed = True
        return self._array

    def __len__(self) -> int:
        return len(self._array)

    def arrays(self) -> dict[str, Array]:
        """All that is kept per row, by name."""
        return {"observation": self.array}

    def take(self, rows: Array) -> Array:
        """Copies of the given rows, `(*rows, *space)`."""
        # `take`, because indexing with an array takes several times as long on narrow rows.
        if self._file is None or rows.size == 0:
            return self._array.take(rows, axis=0)
        flat = rows.ravel()
        taken = np.empty((*rows.shape, *self._array.shape[1:]), self._array.dtype)
        # Rows that follow each other here and there are read at once.
        first = np.flatnonzero(np.diff(flat, prepend=-2) != 1)
        here = (first * self._width).tolist()
        there = (self._begin + flat[first] * self._width).tolist()
        room = taken.reshape(-1).view(np.uint8).data
        parts = [room[i:j] for i, j in zip(here, [*here[1:], len(room)], strict=True)]
        before = _blocks_read()
        if self._cold and hasattr(os, "posix_fadvise"):
            # All at once: the disk would otherwise be waited for once per row. Where nothing comes
            # from the disk, asking takes as long as reading.
            for begin, part in zip(there, parts, strict=True):
                os.posix_fadvise(self._file, begin, len(part), os.POSIX_FADV_WILLNEED)
        for begin, part in zip(there, parts, strict=True):
            if os.preadv(self._file, [part], begin) != len(part):
                raise OSError(f"the disk gave less than {len(part)} bytes of the replay's file")
        self._cold = _blocks_read() > before
        return taken

    def put(self, rows: Array, values: Any) -> None:
        """Overwrites the given rows, `(R,)`."""
        self._array[rows] = values
        if self._file is None:
            return
        # Through the map, because what is written so is cached in larger pieces, read back faster.
        self._written += len(rows) * self._width
        if self._viewed or self._written > WRITTEN_AT_MOST:
            self.release()

    def release(self) -> None:
        """Gives back the memory that using the map of a file has taken."""
        self._viewed, self._written = False, 0
        if self._file is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def _blocks_read() -> int:
    """How much this process has read from disks so far, rather than from what is cached."""
    import resource  # there is none on Windows, where rows are read through the map

    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock


def row_bytes(space: spaces.Space[Any]) -> int:
    """Bytes of one row.

    Raises:
        ValueError: If the space is not one of arrays.
    """
    if space.shape is None or space.dtype is None:
        raise ValueError(
            f"cannot store {space}: it is not one array. Flatten it with "
            f"gymnasium.wrappers.FlattenObservation or split it into a Dict of simple spaces."
        )
    return math.prod(space.shape) * space.dtype.itemsize


def empty_rows(size: int, space: spaces.Space[Any]) -> Array:
    """Zeros `(size, *space)`, which take memory as they are written to.

    Raises:
        ValueError: If the space is not one of arrays.
    """
    row_bytes(space)
    return np.zeros((size, *(space.shape or ())), space.dtype)


def _new_file(
    size: int, space: spaces.Space[Any], directory: Path
) -> tuple[np.memmap[Any, Any], int | None]:
    """A new file as a map, and open for reading and writing at places, where that exists."""
    needed = size * row_bytes(space)
    file = None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(directory).free
        if needed > free:
            raise ValueError(
                f"the disk of {directory} has {free:,} bytes left, and {needed:,} are needed: "
                f"make room, lower buffer_size or set directory to a folder on a larger disk"
            )
        with tempfile.TemporaryDirectory(
            prefix=".replay-", dir=directory, ignore_cleanup_errors=True
        ) as folder:
            path = Path(folder) / "rows.npy"
            shape = (size, *(space.shape or ()))
            mapped = npy.open_memmap(path, mode="w+", dtype=space.dtype, shape=shape)
            if hasattr(os, "preadv"):
                file = os.open(path, os.O_RDWR)
            if file is not None and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file, 0, path.stat().st_size)  # or a disk may be full later
    except OSError as error:
        if file is not None:
            os.close(file)
        raise ValueError(
            f"cannot keep a replay in {directory}: {error.strerror or error}. Set directory to a "
            f"folder on a local disk that can be written to and has {needed:,} bytes left"
        ) from error
    assert isinstance(mapped, np.memmap)
    return mapped, file
