"""Dicts and Tuples of spaces, nested at will: goals as vectors, and actions as one array."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.goals.layout import vector_size, vectorise

Array = NDArray[Any]
Space = spaces.Space[Any]
Codes = spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary


def is_simple_part(space: Space) -> bool:
    """Whether a space is Box, Discrete, MultiDiscrete or MultiBinary."""
    return isinstance(space, spaces.Box | Codes)


@dataclass(frozen=True)
class GoalVector:
    """A goal made of parts, as a vector.

    Attributes:
        space: Its own space: a Dict or Tuple of Box, Discrete, MultiDiscrete, MultiBinary, and
            further such Dicts and Tuples.

    Raises:
        ValueError: If a part is of another kind.
    """

    space: Space

    def __post_init__(self) -> None:
        """Refuses other parts."""
        for path, part in leaves_of(self.space):
            if not is_simple_part(part):
                raise ValueError(
                    f"the goal's part {name_of(path)!r} is {part}, and goals must be numbers: wrap "
                    f"the environment in rlkit.goals.GoalWrapper with a goal_space of numbers"
                )

    @functools.cached_property
    def box(self) -> spaces.Box:
        """The space of the vectors."""
        parts = [part for _, part in leaves_of(self.space)]
        boxes = [part for part in parts if isinstance(part, spaces.Box)]
        dtype = np.result_type(np.float32, *(box.dtype for box in boxes))
        low, high = (
            np.concatenate([_bound(part, end, dtype) for part in parts]) for end in ("low", "high")
        )
        return spaces.Box(low, high, low.shape, dtype.type)

    def join(self, value: Any) -> Array:
        """One goal as a vector `(G,)`."""
        parts = [
            np.ravel(part_at(value, path))
            if isinstance(part, spaces.Box)
            else vectorise(part, part_at(value, path), 0)
            for path, part in leaves_of(self.space)
        ]
        return np.concatenate(parts).astype(self.box.dtype)

    def split(self, vector: Array) -> Any:
        """Goals of vectors `(..., G)`: `join` undone, with arrays that have the leading axes."""
        return _split(self.space, np.asarray(vector), iter(_slices(self.space)))


def _bound(part: Space, end: str, dtype: np.dtype[Any]) -> Array:
    if isinstance(part, spaces.Box):
        return np.ravel(getattr(part, end)).astype(dtype)
    return np.full(vector_size(part), float(end == "high"), dtype)


def _split(space: Space, vector: Array, columns: Iterator[slice]) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _split(part, vector, columns) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_split(part, vector, columns) for part in space.spaces)
    x, shape = vector[..., next(columns)], (*vector.shape[:-1], *(space.shape or ()))
    if isinstance(space, spaces.Discrete):
        return x.argmax(-1) + space.start
    if isinstance(space, spaces.MultiDiscrete):
        ends = np.cumsum(space.nvec.reshape(-1))[:-1].tolist()
        index = np.stack([part.argmax(-1) for part in np.split(x, ends, axis=-1)], axis=-1)
        return index.reshape(shape) + space.start
    return x.reshape(shape).astype(space.dtype)


def _slices(space: Space) -> list[slice]:
    ends = np.cumsum([vector_size(part) for _, part in leaves_of(space)]).tolist()
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def joined_action(space: Space) -> tuple[Space, Callable[[Array], Any]]:
    """One space for an action of several parts, and what takes its elements apart."""
    leaves = [part for _, part in leaves_of(space)]
    advice = "convert it with a gymnasium.ActionWrapper"
    if not leaves or not all(is_simple_part(part) for part in leaves):
        raise ValueError(f"the action space {space} has parts that no agent supports: {advice}")
    boxes = [part for part in leaves if isinstance(part, spaces.Box)]
    if len(boxes) == len(leaves):
        dtype = np.result_type(*(box.dtype for box in boxes))
        low, high = (
            np.concatenate([np.ravel(getattr(box, end)) for box in boxes]).astype(dtype)
            for end in ("low", "high")
        )
        return spaces.Box(low, high, dtype=dtype.type), functools.partial(_take_apart, space)
    if boxes:
        raise ValueError(
            f"the action space {space} mixes numbers and choices, which no agent supports: make "
            f"the Boxes Discrete, or the choices Boxes, with a gymnasium.ActionWrapper"
        )
    nvec, start = [], []
    for part in leaves:
        nvec.append(np.ravel(part.nvec if isinstance(part, spaces.MultiDiscrete) else _n(part)))
        first = getattr(part, "start", 0)
        start.append(np.broadcast_to(np.ravel(first), nvec[-1].shape))
    joined = spaces.MultiDiscrete(np.concatenate(nvec), start=np.concatenate(start))
    return joined, functools.partial(_take_apart, space)


def _n(space: Space) -> Array:
    if isinstance(space, spaces.MultiBinary):
        return np.full(vector_size(space), 2)
    assert isinstance(space, spaces.Discrete)
    return np.array(space.n)


def _take_apart(space: Space, action: Array) -> Any:
    return _rebuild(space, iter(np.asarray(action)))


def _rebuild(space: Space, numbers: Iterator[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _rebuild(part, numbers) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_rebuild(part, numbers) for part in space.spaces)
    shape = space.shape or ()
    taken = np.array([next(numbers) for _ in range(int(np.prod(shape)))]).reshape(shape)
    if isinstance(space, spaces.Discrete):
        return np.int64(taken)
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer):
        taken = np.rint(taken)
    return np.asarray(taken, space.dtype)


def leaves_of(space: Space, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Space]]:
    """The parts of nested Dicts and Tuples that are neither, each with its path."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from leaves_of(part, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for i, part in enumerate(space.spaces):
            yield from leaves_of(part, (*path, i))
    else:
        yield path, space


def name_of(path: tuple[Any, ...]) -> str:
    """A path as a key."""
    return ".".join(map(str, path))


def part_at(value: Any, path: tuple[Any, ...]) -> Any:
    """The part of nested dicts and tuples at a path."""
    for key in path:
        value = value[key]
    return value


def row_of(goal: Any, i: int) -> Any:
    """Row `i` of the arrays in nested dicts and tuples."""
    if isinstance(goal, Mapping):
        return {key: row_of(part, i) for key, part in goal.items()}
    return tuple(row_of(part, i) for part in goal) if isinstance(goal, tuple) else goal[i]
