"""The flat vector of an observation: which columns hold which part, in one order for all users."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.goals.env import is_goal_space

FloatArray = NDArray[np.float32]
_CONVERT = (
    "return what the space holds, or convert the environment by rlkit.goals.SimpleSpaces(env)"
)
ACHIEVED, DESIRED, VISIBLE = "achieved_goal", "desired_goal", "goal_visible"


@dataclass(frozen=True)
class ObservationLayout:
    """Columns of a flat observation.

    The parts of a Dict are sorted by key: the achieved goal comes before the observation. The
    desired goal is a vector of its own.

    Attributes:
        space: What the flat observation is made of, without the desired goal.
        goal: Space of desired goals; None without goals.
    """

    space: spaces.Space[Any]
    goal: spaces.Space[Any] | None = None

    @classmethod
    def of(cls, space: spaces.Space[Any], *, without: Collection[str] = ()) -> ObservationLayout:
        """The layout of an environment's observation space.

        Args:
            space: Of one observation.
            without: Further keys of a Dict that are left out.

        Raises:
            ValueError: If a space has no vector form.
        """
        goal = None
        if isinstance(space, spaces.Dict):
            goal = space.spaces[DESIRED] if is_goal_space(space) else None
            out = {*without} if goal is None else {DESIRED, *without}
            # Of a dict, Gymnasium sorts the keys: environments that list them otherwise agree.
            space = spaces.Dict({key: s for key, s in space.spaces.items() if key not in out})
        layout = cls(space, goal)
        _ = layout.size, layout.goal_size  # refuses spaces without a vector form
        return layout

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Columns of each part, in order; a plain observation has the key "observation"."""
        parts = self.space.spaces if isinstance(self.space, spaces.Dict) else {}
        found, start = {}, 0
        for key, part in (parts or {"observation": self.space}).items():
            found[key] = slice(start, start + vector_size(part))
            start = found[key].stop
        return found

    @property
    def size(self) -> int:
        """F, columns in all."""
        return vector_size(self.space)

    @property
    def goal_size(self) -> int:
        """G, width of a desired goal; 0 without goals."""
        return 0 if self.goal is None else vector_size(self.goal)

    @property
    def achieved(self) -> slice | None:
        """Columns of the achieved goal; None where there is none or it is left out."""
        return self.slices.get(ACHIEVED)

    @property
    def hides_goal(self) -> bool:
        """Whether observations have the key `goal_visible`: whether the goal is visible."""
        return self.goal is not None and VISIBLE in self.slices

    def vector(self, observation: Any, lead: int = 1) -> FloatArray:
        """Flat observations `(*leading, F)` of an array or dict with `lead` leading axes."""
        return vectorise(self.space, observation, lead)

    def desired_goal(self, observation: Any, lead: int = 1) -> FloatArray:
        """Desired goals `(*leading, G)` in observations."""
        return self.goal_vector(observation[DESIRED], lead)

    def goal_vector(self, goal: Any, lead: int = 1) -> FloatArray:
        """Desired or achieved goals as vectors `(*leading, G)`.

        Raises:
            ValueError: If observations have no goals.
        """
        if self.goal is None:
            raise ValueError(f"{self.space} has no goals")
        return vectorise(self.goal, goal, lead)

    def visible(self, observation: Any, lead: int = 1) -> FloatArray | None:
        """1 where the goal is visible, else 0, `(*leading)`; None where it always is."""
        if not self.hides_goal:
            return None
        flag = np.asarray(observation[VISIBLE], np.float32)
        return flag.reshape(flag.shape[:lead])


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


def require_shapes(
    space: spaces.Space[Any], observation: Any, leading: tuple[int, ...] = (), name: str = ""
) -> None:
    """Refuses an observation of other shapes than its space has: NumPy would broadcast some.

    Args:
        space: The space of one observation.
        observation: An array, or a dict of arrays, with some leading axes.
        leading: Their lengths.
        name: What the message calls it; "observation" without one.

    Raises:
        ValueError: If a key is missing or a shape differs; both are named.
    """
    name = name or "observation"
    if isinstance(space, spaces.Dict):
        if not isinstance(observation, Mapping):
            raise ValueError(
                f"the {name} is a {type(observation).__name__}, and its space is a Dict with the "
                f"keys {', '.join(map(repr, space.spaces))}: {_CONVERT}"
            )
        for key, part in space.spaces.items():
            if key not in observation:
                raise ValueError(
                    f"the {name} lacks the key {key!r} of its space; it has "
                    f"{', '.join(map(repr, observation)) or 'none'}: {_CONVERT}"
                )
            require_shapes(part, observation[key], leading, f"{name}[{key!r}]")
        return
    if isinstance(observation, str | Mapping):
        raise ValueError(
            f"the {name} is a {type(observation).__name__}, and its space is a "
            f"{type(space).__name__}: {_CONVERT}"
        )
    expected, got = (*leading, *(space.shape or ())), np.shape(observation)
    if got != expected:
        raise ValueError(
            f"the {name} has shape {got}, and its space ({type(space).__name__}) needs {expected}: "
            f"return arrays of that shape, or declare the other one in observation_space"
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
        counts = space.nvec.reshape(-1).astype(np.int64)
        index = array.reshape(*leading, -1).astype(np.int64) - space.start.reshape(-1)
        if (
            (index < 0) | (index >= counts)
        ).any():  # it would fall into another component's columns
            raise ValueError(f"an element of {space} lies outside of it: {array.tolist()!r:.200}")
        return _marked(index + np.cumsum(counts) - counts, int(counts.sum()))
    flat = array.reshape(*leading, -1).astype(np.float32)
    if space.dtype == np.uint8 and isinstance(space, spaces.Box):
        flat /= 255
    return flat


def one_hot(index: NDArray[Any], size: int) -> FloatArray:
    """Integers `(...)` as one-hot vectors `(..., size)`."""
    return _marked(np.asarray(index, np.int64)[..., None], size)


def _marked(index: NDArray[np.int64], size: int) -> FloatArray:
    """Vectors `(..., size)` that are 1 at the columns `(..., K)`, otherwise 0."""
    encoded = np.zeros((*index.shape[:-1], size), np.float32)
    np.put_along_axis(encoded, index, 1.0, axis=-1)
    return encoded
