"""Spaces that agents hold: conversion of all others, where environments are made.

Simple spaces are Box, Discrete, MultiDiscrete, MultiBinary, and Dicts of them without further Dicts
inside. `simplify` leaves an environment that has them as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlkit.goals.env import is_goal_space
from rlkit.goals.layout import ACHIEVED, DESIRED, vector_size, vectorise
from rlkit.goals.nested_spaces import (
    Array,
    GoalVector,
    Space,
    is_simple_part,
    joined_action,
    leaves_of,
    name_of,
    part_at,
    row_of,
)
from rlkit.goals.text import encoding_of

TEXT_LENGTH = 256
"""Characters of a text whose space does not tell its length."""
_GOAL_METHODS = ("compute_reward", "compute_terminated", "compute_truncated")


def is_simple(space: Space) -> bool:
    """Whether agents hold a space as it is."""
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else (space,)
    return all(map(is_simple_part, parts))


def simplify(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """An environment with simple spaces: itself where it has them, otherwise in `SimpleSpaces`.

    Raises:
        ValueError: If a space cannot be converted; the message is one sentence with a way out.
    """
    if is_simple(env.observation_space) and is_simple_part(env.action_space):
        return env
    return SimpleSpaces(env)


class SimpleSpaces(gym.Wrapper[Any, Any, Any, Any]):
    """Converts the spaces of an environment to simple ones.

    Observations: nested Dicts and Tuples become a flat Dict, whose keys are the paths joined by
    dots. Texts become numbers of words or characters, Sequences arrays of a fixed length and their
    number of entries. Goals that are Dicts or Tuples become vectors, choices in them one-hot;
    `compute_reward` and its like then take such vectors, single or batched, and the environment's
    own methods get its own goals again, one at a time.

    Actions: a Tuple or Dict of Boxes becomes one vector, one of choices a MultiDiscrete.

    Args:
        env: The environment.
        sequence_length: Entries that a Sequence is padded to with zeros; None refuses Sequences.
        text_length: Characters of a text whose space does not tell its length.

    Raises:
        ValueError: If a space cannot be converted. At a step, if a Sequence is longer.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        sequence_length: int | None = None,
        text_length: int = TEXT_LENGTH,
    ) -> None:
        super().__init__(env)
        convert = _Conversion(sequence_length, text_length)
        self.observation_space, self._observe = convert.observations(env.observation_space)
        self._action: Callable[[Array], Any] = _same
        if not is_simple_part(env.action_space):
            self.action_space, self._action = joined_action(env.action_space)
        self._goals: dict[str, GoalVector] = {}
        if is_goal_space(env.observation_space):
            assert isinstance(env.observation_space, spaces.Dict)
            for key in (ACHIEVED, DESIRED):
                if not is_simple_part(part := env.observation_space[key]):
                    self._goals[key] = GoalVector(part)
        for name in _GOAL_METHODS if self._goals else ():
            if env.has_wrapper_attr(name):
                setattr(self, name, functools.partial(self._of_goals, name))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets the environment; its observation is converted."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._observe(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment with the action in its own form; its observation is converted."""
        observation, *rest = self.env.step(self._action(action))
        return self._observe(observation), *rest

    def _of_goals(self, method: str, achieved: Array, desired: Array, info: Any = None) -> Any:
        function = functools.partial(_call, self.env.get_wrapper_attr(method), method)
        pair = [
            self._goals[key].split(value) if key in self._goals else value
            for key, value in ((ACHIEVED, achieved), (DESIRED, desired))
        ]
        assert isinstance(self.observation_space, spaces.Dict)
        if np.ndim(achieved) == len(self.observation_space[ACHIEVED].shape or ()):
            return function(*pair, info)
        # One by one: no environment with such goals is known to take a batch of them.
        count = len(achieved)
        infos = info if isinstance(info, Sequence | np.ndarray) else [info] * count
        return np.array([function(*(row_of(g, i) for g in pair), infos[i]) for i in range(count)])


@dataclass(frozen=True)
class _Conversion:
    """How observations are converted; see `SimpleSpaces`."""

    sequence_length: int | None
    text_length: int

    def observations(self, space: Space) -> tuple[Space, Callable[[Any], Any]]:
        """The converted space, and what converts one of its elements."""
        if is_simple(space):
            return space, _same
        if not is_goal_space(space):
            return self._parts(space)
        assert isinstance(space, spaces.Dict)
        found: dict[str, Space] = {}
        encode: dict[str, Callable[[Any], Any]] = {}
        for key, part in space.spaces.items():
            if key in (ACHIEVED, DESIRED) and not is_simple_part(part):
                found[key], encode[key] = GoalVector(part).box, GoalVector(part).join
                continue
            found[key], encode[key] = self._parts(part)
            if isinstance(found[key], spaces.Dict):  # the keys of goals must stay
                found[key], encode[key] = _as_vector(found[key], encode[key])
        return spaces.Dict(found), functools.partial(_each, encode)

    def _parts(self, space: Space) -> tuple[Space, Callable[[Any], Any]]:
        found: dict[str, Space] = {}
        readers: dict[str, Callable[[Any], Any]] = {}
        for path, part in leaves_of(space):
            for end, (one, encode) in self._leaf(name_of(path), part).items():
                name = name_of((*path, end) if end else path)
                if name in found:
                    raise ValueError(
                        f"two parts of the observation space are called {name!r}: rename a key"
                    )
                found[name], readers[name] = one, functools.partial(_read, path, encode)
        if list(found) == [""]:
            return found[""], readers[""]
        return spaces.Dict(found), functools.partial(_every, readers)

    def _leaf(self, name: str, space: Space) -> dict[str, tuple[Space, Callable[[Any], Any]]]:
        """The converted parts of a leaf by the end of their name."""
        where = f"the observation's part {name!r}" if name else "the observation"
        if is_simple_part(space):
            return {"": (space, _same)}
        if isinstance(space, spaces.Sequence):
            return self._sequence(where, space)
        text = encoding_of(space, self.text_length)
        if text is not None:
            return {"": (text.space, text.encode)}
        raise ValueError(
            f"{where} is {space}, which has no fixed size: give it one with a "
            f"gymnasium.ObservationWrapper that returns arrays"
        )

    def _sequence(
        self, where: str, space: spaces.Sequence
    ) -> dict[str, tuple[Space, Callable[[Any], Any]]]:
        length, feature = self.sequence_length, space.feature_space
        if not is_simple_part(feature):
            raise ValueError(
                f"{where} is a Sequence of {feature}, which cannot be padded: turn it into an "
                f"array of fixed size with a gymnasium.ObservationWrapper"
            )
        if length is None:
            raise ValueError(
                f"{where} is a Sequence of any length: wrap the environment in "
                f"rlkit.goals.SimpleSpaces(env, sequence_length=N), which pads it to N entries"
            )
        padded = functools.partial(_padded, where, feature, length)
        count = spaces.Discrete(length + 1)
        return {"": (_repeated(feature, length), padded), "length": (count, len)}


def _call(function: Callable[..., Any], method: str, *goals: Any) -> Any:
    try:
        return function(*goals)
    except NotImplementedError:
        if method == "compute_reward":
            raise
        return False  # inherited from Gymnasium-Robotics, but not defined: goals end no episode


def _same(value: Any) -> Any:
    return value


def _read(path: tuple[Any, ...], encode: Callable[[Any], Any], value: Any) -> Any:
    return encode(part_at(value, path))


def _every(readers: Mapping[str, Callable[[Any], Any]], value: Any) -> dict[str, Any]:
    return {name: read(value) for name, read in readers.items()}


def _each(encode: Mapping[str, Callable[[Any], Any]], value: Any) -> dict[str, Any]:
    return {key: convert(value[key]) for key, convert in encode.items()}


def _as_vector(space: Space, encode: Callable[[Any], Any]) -> tuple[Space, Callable[[Any], Any]]:
    box = spaces.Box(-np.inf, np.inf, (vector_size(space),), np.float32)
    return box, lambda value: vectorise(space, encode(value), 0)


def _repeated(feature: Space, length: int) -> Space:
    shape = (length, *(feature.shape or ()))
    if isinstance(feature, spaces.Box):
        bounds = np.minimum(feature.low, 0), np.maximum(feature.high, 0)
        low, high = (np.broadcast_to(bound, shape).copy() for bound in bounds)
        return spaces.Box(low, high, dtype=feature.dtype.type)
    if isinstance(feature, spaces.MultiBinary):
        return spaces.MultiBinary(list(shape))
    assert isinstance(feature, spaces.Discrete | spaces.MultiDiscrete)
    n = feature.n if isinstance(feature, spaces.Discrete) else feature.nvec
    repeated = (np.broadcast_to(part, shape).copy() for part in (n, feature.start))
    return spaces.MultiDiscrete(next(repeated), start=next(repeated))


def _padded(where: str, feature: Space, length: int, value: Any) -> Array:
    if len(value) > length:
        raise ValueError(
            f"{where} has {len(value)} entries: raise sequence_length = {length} of SimpleSpaces"
        )
    first = feature.start if isinstance(feature, spaces.Discrete | spaces.MultiDiscrete) else 0
    shape = (length, *(feature.shape or ()))
    padded = np.broadcast_to(np.asarray(first, feature.dtype), shape).copy()
    for i, entry in enumerate(value):
        padded[i] = entry
    return padded
