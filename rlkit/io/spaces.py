"""Gymnasium spaces as plain data, for files."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces


def space_to_plain(space: spaces.Space[Any]) -> dict[str, Any]:
    """A space as a dict of plain values and arrays.

    Raises:
        ValueError: If agents do not support this kind of space.
    """
    match space:
        case spaces.Dict():
            parts = {key: space_to_plain(part) for key, part in space.spaces.items()}
            return {"kind": "Dict", "spaces": parts}
        case spaces.Box():
            return {
                "kind": "Box",
                "low": space.low,
                "high": space.high,
                "dtype": str(space.dtype),
            }
        case spaces.Discrete():
            whole = {"n": int(space.n), "start": int(space.start)}
            return {"kind": "Discrete", **whole, "dtype": str(space.dtype)}
        case spaces.MultiBinary():
            return {"kind": "MultiBinary", "n": list(space.shape)}
        case spaces.MultiDiscrete():
            arrays = {"nvec": space.nvec, "start": space.start}
            return {"kind": "MultiDiscrete", **arrays, "dtype": str(space.dtype)}
    raise ValueError(f"{space} cannot be saved: its kind is not supported")


def space_from_plain(plain: dict[str, Any]) -> spaces.Space[Any]:
    """The space that `space_to_plain` described.

    Raises:
        ValueError: If it describes no space.
    """
    match plain:
        case {"kind": "Dict", "spaces": dict() as parts}:
            # As pairs: Gymnasium sorts a dict, and the order defines the observation vector.
            return spaces.Dict([(key, space_from_plain(part)) for key, part in parts.items()])
        case {"kind": "Box", "low": low, "high": high, "dtype": dtype}:
            low, high = np.asarray(low), np.asarray(high)
            return spaces.Box(low, high, low.shape, np.dtype(dtype).type)
        case {"kind": "Discrete", "n": n, "start": start}:
            return spaces.Discrete(int(n), start=int(start), dtype=_integers(plain))
        case {"kind": "MultiBinary", "n": n}:
            return spaces.MultiBinary(n if len(n) > 1 else n[0])
        case {"kind": "MultiDiscrete", "nvec": nvec, "start": start}:
            dtype = _integers(plain)
            return spaces.MultiDiscrete(np.asarray(nvec), dtype, start=np.asarray(start))
    raise ValueError(f"no space is described by {plain!r}")


def _integers(plain: dict[str, Any]) -> Any:
    # Files of 0.2.0 do not name the type, which was nearly always this one.
    return np.dtype(plain.get("dtype", "int64")).type
