"""Arrays of any Gymnasium space as float vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def vector_size(space: spaces.Space[Any]) -> int:
    """Width of the vector that `vectorise` makes of an element of a space.

    Raises:
        ValueError: If the space has no vector form.
    """
    if isinstance(space, spaces.Dict):
        return sum(vector_size(part) for part in space.spaces.values())
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return math.prod(space.shape)
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    raise ValueError(
        f"{space} has no vector form; supported are Box, Discrete, MultiBinary, "
        f"MultiDiscrete and Dicts of them"
    )


def vectorise(space: spaces.Space[Any], value: Any, lead: int) -> FloatArray:
    """Elements of a space as float32 vectors.

    Boxes are flattened, images scaled to [0, 1], integers one-hot, Dicts joined in their order.

    Args:
        space: The space of one element.
        value: An array, or a dict of arrays, with `lead` leading axes.
        lead: Number of leading axes, (batch) or (batch, time).

    Returns:
        `(*leading, vector_size(space))`.
    """
    if isinstance(space, spaces.Dict):
        parts = [vectorise(part, value[key], lead) for key, part in space.spaces.items()]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
    array = np.asarray(value)
    leading = array.shape[:lead]
    if isinstance(space, spaces.Discrete):
        return one_hot(array.reshape(leading) - space.start, int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        flat = array.reshape(*leading, -1) - space.start.reshape(-1)
        columns = [one_hot(flat[..., i], int(n)) for i, n in enumerate(space.nvec.reshape(-1))]
        return np.concatenate(columns, axis=-1)
    flat = array.reshape(*leading, -1).astype(np.float32)
    if space.dtype == np.uint8 and isinstance(space, spaces.Box):
        flat /= 255
    return flat


def one_hot(index: NDArray[Any], size: int) -> FloatArray:
    """Integers `(...)` as one-hot vectors `(..., size)`."""
    encoded = np.zeros((*index.shape, size), np.float32)
    np.put_along_axis(encoded, np.asarray(index, np.int64)[..., None], 1.0, axis=-1)
    return encoded
