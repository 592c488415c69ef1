"""What a replay buffer stores per observation key: columns of rows, and a table of goals."""

from __future__ import annotations

import math
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.lib import format as npy

from rlkit.goals.env import is_goal_space, is_image_space
from rlkit.goals.failure import NonFiniteError as NonFiniteError
from rlkit.replay.batch import Array

MAX_MAPPED = 2**25  # bytes written through a map before its resident pages are given back
ACHIEVED, DESIRED, OBSERVATION = "achieved_goal", "desired_goal", "observation"
Share = bool | Literal["auto"]


class Column:
    """Rows that are read and written by number, in memory or in a file on a local disk.

    A file is mapped for writing and for callers that read all of it, but rows are read by plain
    calls: pages that are touched through a map stay resident, and the kernel maps up to 2 MB
    around each, so the whole file would soon be resident. The system's cache holds rows that are
    read often while it has room.

    Args:
        size: Number of rows.
        space: Space of one row.
        directory: A folder on a local disk for the file; None for memory. The file has no name
            once it is open, so several buffers can share a folder, a process that is killed
            leaves nothing behind, and the space is free again when the buffer is gone.

    Raises:
        ValueError: If the space is not one of arrays, or the disk has no room.
    """

    def __init__(
        self, size: int, space: spaces.Space[Any], directory: str | Path | None = None
    ) -> None:
        self._space, self._directory = space, directory
        self._file: int | None = None
        self._cold = self._viewed = False
        self._written = 0
        if directory is None:
            self._array: Array = empty_rows(size, space)
        else:
            self._open_file(size, Path(directory))

    def _open_file(self, size: int, directory: Path) -> None:
        mapped, self._file = _new_file(size, self._space, directory)
        self._array, self._begin = np.asarray(mapped), mapped.offset
        self._map: mmap.mmap = mapped._mmap  # type: ignore[attr-defined]
        self._width, self._owner = self._array.nbytes // size, os.getpid()
        if self._file is not None:
            weakref.finalize(self, os.close, self._file)

    def __getstate__(self) -> dict[str, Any]:
        """All rows and, for rows on disk, the folder in which a copy makes a file of its own."""
        return {name: part for name, part in vars(self).items() if name not in ("_file", "_map")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores what `__getstate__` gave."""
        vars(self).update(state)
        self._file = None
        if self._directory is not None:
            self._copy_file()

    def _copy_file(self) -> None:
        assert self._directory is not None
        rows = self._array
        self._open_file(len(rows), Path(self._directory))
        self._array[:] = rows
        self.release()

    @property
    def array(self) -> Array:
        """All rows, `(size, *space)`, zero at first; pages of memory are taken on writing."""
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
        # Rows that are adjacent in the file and in the result are read by one call.
        first = np.flatnonzero(np.diff(flat, prepend=-2) != 1)
        target = (first * self._width).tolist()
        source = (self._begin + flat[first] * self._width).tolist()
        room = taken.reshape(-1).view(np.uint8).data
        parts = [room[i:j] for i, j in zip(target, [*target[1:], len(room)], strict=True)]
        before = _blocks_read()
        if self._cold and hasattr(os, "posix_fadvise"):
            # All at once, or each row waits for the disk. Only after a read that reached the disk:
            # on cached rows the advice takes as long as reading them.
            for begin, part in zip(source, parts, strict=True):
                os.posix_fadvise(self._file, begin, len(part), os.POSIX_FADV_WILLNEED)
        for begin, part in zip(source, parts, strict=True):
            if os.preadv(self._file, [part], begin) != len(part):
                raise OSError(f"the disk gave less than {len(part)} bytes of the replay's file")
        self._cold = _blocks_read() > before
        return taken

    def put(self, rows: Array, values: Any) -> None:
        """Overwrites the given rows, `(R,)`."""
        if self._file is None:
            self._array[rows] = values
            return
        if self._owner != os.getpid():  # a forked process shares the file until it writes
            self._copy_file()
        self._array[rows] = values
        # Through the map, because the system caches such writes in larger pieces, read back faster.
        self._written += len(rows) * self._width
        if self._viewed or self._written > MAX_MAPPED:
            self.release()

    def release(self) -> None:
        """Gives back the memory that using the map of a file has taken."""
        self._viewed, self._written = False, 0
        if self._file is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def _blocks_read() -> int:
    """Blocks that this process has read from disks so far, cached reads not counted."""
    import resource  # Windows has none; rows are read through the map there

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
    """Zeros `(size, *space)`; pages of memory are taken on writing.

    Raises:
        ValueError: If the space is not one of arrays.
    """
    row_bytes(space)
    return np.zeros((size, *(space.shape or ())), space.dtype)


class GoalTable:
    """Goals by ever-growing number, each stored once and kept while a stored step pursues it.

    Args:
        space: Space of one goal.
        capacity: Number of goals that there is room for at first.
    """

    def __init__(self, space: spaces.Space[Any], capacity: int = 64) -> None:
        self.rows = empty_rows(capacity, space)
        self.first_id = 0
        self.next_id = 0

    def take(self, ids: Array) -> Array:
        """The goals with the given numbers as agents read them, `(..., *goal)`."""
        return self.stored(ids)

    def stored(self, ids: Array) -> Array:
        """The goals with the given numbers as they were appended, `(..., *goal)`."""
        return self.rows.take(ids % len(self.rows), axis=0)

    def kept(self) -> Array:
        """All goals that are kept, as they were appended, `(N, *goal)`."""
        return self.stored(np.arange(self.first_id, self.next_id))

    def full(self, count: int) -> bool:
        """Whether `count` more goals do not fit."""
        return self.next_id + count - self.first_id > len(self.rows)

    def drop_before(self, oldest: int) -> None:
        """Gives up the goals before number `oldest`."""
        self.first_id = max(self.first_id, oldest)

    def append(self, goals: Array) -> Array:
        """Stores goals `(N, *goal)`, growing where it must, and returns their numbers `(N,)`."""
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
        """All of it, as arrays and integers."""
        return {"rows": self.rows, "first_id": self.first_id, "next_id": self.next_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.rows = np.array(state["rows"], self.rows.dtype)
        self.first_id, self.next_id = int(state["first_id"]), int(state["next_id"])


def split_goal(
    space: spaces.Space[Any],
) -> tuple[dict[str, spaces.Space[Any]], spaces.Space[Any] | None]:
    """Spaces that are stored per step, by key; and the desired goal's, None without goals."""
    keyed = dict(space.spaces) if isinstance(space, spaces.Dict) else {OBSERVATION: space}
    return keyed, keyed.pop(DESIRED) if is_goal_space(space) else None


def alias_keys(keyed: Mapping[str, spaces.Space[Any]], share: Share) -> dict[str, str]:
    """Keys that are not stored, each with the key whose column holds the same values.

    Args:
        keyed: Spaces of the observation by key.
        share: True to store the achieved goal and the observation once, False to store both,
            "auto" to store them once where both are images: the same space of uint8 with at least
            3 axes.

    Raises:
        ValueError: If `share` is unknown, or is True and the two spaces differ.
    """
    if share not in (True, False, "auto"):
        raise ValueError(f'share must be "auto", true or false, got {share!r}')
    goal, observation = keyed.get(ACHIEVED), keyed.get(OBSERVATION)
    same = goal is not None and goal == observation
    if share is True and not same:
        raise ValueError(
            f"share=True stores {ACHIEVED!r} and {OBSERVATION!r} once, but their spaces are {goal} "
            f"and {observation}: set share=False"
        )
    if share is False or not same or (share == "auto" and not is_image_space(goal, stacks=True)):
        return {}
    return {ACHIEVED: OBSERVATION}


def check_aliases(observation: Mapping[str, Any], aliases: Mapping[str, str]) -> None:
    """Raises ValueError if keys that are stored once hold different values."""
    for key, source in aliases.items():
        one, other = observation[key], observation[source]
        if one is not other and not np.array_equal(one, other):
            raise ValueError(
                f"{key!r} and {source!r} are stored once, but in this step they differ: set "
                f"share=False to store both"
            )


def _new_file(
    size: int, space: spaces.Space[Any], directory: Path
) -> tuple[np.memmap[Any, Any], int | None]:
    """A new file: its map, and its descriptor where the system can read at an offset."""
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
            f"cannot keep a replay buffer in {directory}: {error.strerror or error}. Set directory "
            f"to a writable folder on a local disk that has {needed:,} bytes left"
        ) from error
    assert isinstance(mapped, np.memmap)
    return mapped, file


def check_shapes(hidden_state: Sequence[Array] | None, rows: int, kept: Sequence[Array]) -> None:
    """Raises ValueError if a hidden state does not fit the arrays `(size, *shape)` that keep it."""
    given = [] if hidden_state is None else [part.shape for part in hidden_state]
    shapes = [(rows, *column.shape[1:]) for column in kept]
    if given != shapes:
        raise ValueError(
            f"hidden_state has shapes {given}, but this replay buffer keeps {shapes}: pass the "
            f"hidden state to `add` with the shapes that it was created with"
        )


def check_finite(name: str, value: Any) -> None:
    """Raises `NonFiniteError` if an array, or one in a dict, holds NaN or infinity."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            check_finite(f"{name}[{key!r}]", part)
        return
    array = np.asarray(value)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise NonFiniteError(
            f"the environment's {name} is {array[place]} at index {place}; training stopped before "
            f"it could reach the weights. Find its cause with `rlkit check-env`."
        )
