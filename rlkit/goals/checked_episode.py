"""Whole episodes, run for `rlkit.goals.check`, and the laws that concern single steps."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlkit.goals.findings import Findings, place_of_error
from rlkit.goals.rule import Array

LARGEST_REWARD = 1e6
_NUMBERS = "fiub"


@dataclass
class Bounds:
    """How long a check may take.

    Attributes:
        steps: Steps of one episode at most.
        seconds: Seconds of the whole check; a step that hangs is not interrupted.
    """

    steps: int
    seconds: float
    _started: float = field(default_factory=time.monotonic)

    @property
    def exceeded(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() - self._started > self.seconds


@dataclass
class CheckedEpisode:
    """The record of an episode: one more observation than steps.

    Attributes:
        sound: Whether no step failed; it may have been cut at a bound of the check.
        ended: Whether the environment ended it.
    """

    seed: int
    observations: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    infos: list[dict[str, Any]] = field(default_factory=list)
    terminated: list[bool] = field(default_factory=list)
    sound: bool = False
    ended: bool = False

    @property
    def outcomes(self) -> list[Any]:
        """What each step returned, but for truncations, which follow from the length."""
        return [*zip(self.observations[1:], self.rewards, self.terminated, self.infos, strict=True)]

    def goals(self, key: str) -> Array:
        """The goals under a key at every observation, `(T + 1, *goal)`."""
        return np.stack([np.asarray(observation[key]) for observation in self.observations])


def random_actions(env: gym.Env[Any, Any], seed: int) -> Iterator[Any]:
    """Samples of the action space, without touching its generator."""
    space = copy.deepcopy(env.action_space)
    space.seed(seed)
    while True:
        yield space.sample()


def extreme_actions(env: gym.Env[Any, Any], high: bool) -> Iterator[Any]:
    """Always the highest or the lowest action, where the space has one."""
    space = copy.deepcopy(env.action_space)
    space.seed(int(high))
    while True:
        yield _extreme(space, space.sample(), high)


def _extreme(space: spaces.Space[Any], sample: Any, high: bool) -> Any:
    if isinstance(space, spaces.Box):
        bound = space.high if high else space.low
        return np.where(np.isfinite(bound), bound, sample).astype(space.dtype)
    if isinstance(space, spaces.Discrete):
        return space.start + (space.n - 1 if high else 0)
    if isinstance(space, spaces.MultiDiscrete):
        return (space.start + (space.nvec - 1 if high else 0)).astype(space.dtype)
    if isinstance(space, spaces.MultiBinary):
        return np.full_like(sample, int(high))
    if isinstance(space, spaces.Tuple):
        return tuple(map(_extreme, space.spaces, sample, [high] * len(sample)))
    if isinstance(space, spaces.Dict):
        return {key: _extreme(part, sample[key], high) for key, part in space.spaces.items()}
    return sample


def run_episode(
    env: gym.Env[Any, Any],
    findings: Findings,
    seed: int,
    actions: Iterator[Any],
    bounds: Bounds,
    meanwhile: Callable[[], None] = lambda: None,
) -> CheckedEpisode:
    """Runs one episode and checks the laws that concern single steps.

    Args:
        env: The environment.
        findings: Where broken laws are kept.
        seed: Seed of the episode.
        actions: The actions.
        bounds: When to stop.
        meanwhile: Called before every step.
    """
    episode = CheckedEpisode(seed)
    observation = _reset(env, findings, seed)
    if observation is None:
        return episode
    sound = _check_observation(env, observation, "reset", findings, "reset")
    episode.observations.append(copy.deepcopy(observation))
    while sound and len(episode.rewards) < bounds.steps and not bounds.exceeded:
        meanwhile()
        action = next(actions)
        before, when = copy.deepcopy(action), f"seed {seed}, step {len(episode.rewards) + 1}"
        result = _step(env, action, before, when, findings)
        if result is None:
            return episode
        if not same(action, before):
            findings.add("action", f"{when} wrote to its action {before!r}: copy it first")
        if not same(observation, episode.observations[-1]):
            findings.add(
                "aliasing", f"{when} changed the observation returned before it: return copies"
            )
        observation, reward, terminated, truncated, info = result
        sound = _check_observation(env, observation, when, findings, "step")
        sound &= _check_outcome(reward, (terminated, truncated), info, when, findings)
        if not sound:
            return episode
        episode.observations.append(copy.deepcopy(observation))
        episode.rewards.append(np.asarray(reward).item())
        episode.infos.append(_copied(info))
        episode.terminated.append(bool(terminated))
        if terminated or truncated:
            episode.ended = True
            break
    episode.sound = sound
    return episode


def _reset(env: gym.Env[Any, Any], findings: Findings, seed: int) -> Any:
    try:
        result = env.reset(seed=seed)
    except Exception as error:
        where = place_of_error(env, error, "reset")
        findings.add("reset", f"reset(seed={seed}) raised {raised(error)}", where=where)
        return None
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        findings.add("reset", f"reset returned {_brief(result)}; return (observation, info dict)")
        return None
    return result[0]


def _step(
    env: gym.Env[Any, Any], action: Any, shown: Any, when: str, findings: Findings
) -> tuple[Any, ...] | None:
    try:
        result = env.step(action)
    except Exception as error:
        where = place_of_error(env, error, "step")
        findings.add("crash", f"{when}: action {shown!r} raised {raised(error)}", where=where)
        return None
    if not (isinstance(result, tuple) and len(result) == 5):
        findings.add(
            "result",
            f"{when} returned {_brief(result)}; return the five values (observation, reward, "
            f"terminated, truncated, info)",
        )
        return None
    return result


def _check_observation(
    env: gym.Env[Any, Any], observation: Any, when: str, findings: Findings, method: str
) -> bool:
    parts = observation if isinstance(observation, dict) else {"observation": observation}
    for key, value in parts.items():
        if not _is_finite(value):
            findings.add("finite", f"{when}: {key} is not finite: {_excerpt(np.asarray(value))}")
            return False
    if bool(env.observation_space.contains(observation)):
        return True
    # An episode can go on with values out of bounds, but not with other shapes and types.
    fits = _fits(env.observation_space, observation)
    message = f"{when}: {_mismatch(env.observation_space, observation)}"
    findings.add("space", message, "warning" if fits else "error")
    return fits


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    array = np.asarray(value)
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _fits(space: spaces.Space[Any], value: Any) -> bool:
    """Whether agents can hold a value, though it may be out of bounds or of another precision."""
    if isinstance(space, spaces.Dict):
        return isinstance(value, dict) and all(
            key in value and _fits(part, value[key]) for key, part in space.spaces.items()
        )
    if not isinstance(space, spaces.Box):
        return bool(space.contains(value))
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        return False
    kinds = _NUMBERS if space.dtype is not None and space.dtype.kind == "f" else "iub"
    return array.shape == space.shape and array.dtype.kind in kinds


def _mismatch(space: spaces.Space[Any], value: Any) -> str:
    if isinstance(space, spaces.Dict):
        if not isinstance(value, dict) or set(value) != set(space.spaces):
            keys = list(value) if isinstance(value, dict) else type(value).__name__
            return f"the observation has {keys}, its space the keys {list(space.spaces)}"
        for key, inner in space.spaces.items():
            if not inner.contains(value[key]):
                return f"{key}: {_mismatch(inner, value[key])}"
    if not isinstance(space, spaces.Box):
        return f"{_brief(value)} is not in {_brief(space)}: make the space wider"
    try:
        array = np.asarray(value)
    except ValueError:
        return f"{_brief(value)} is no array, its space is {_brief(space)}"
    outside = _outside(space, array)
    if outside:
        return f"{outside} of {_brief(space)}: make the space wider, or clip the observation"
    return (
        f"{_excerpt(array)} of shape {array.shape} and type {array.dtype} is not in "
        f"{_brief(space)}: make the space wider, or clip or cast the observation"
    )


def _outside(space: spaces.Box, array: Array) -> str:
    """The first component that is out of bounds, in words."""
    if array.shape != space.shape or array.dtype.kind not in _NUMBERS:
        return ""
    wrong = np.argwhere((array < space.low) | (array > space.high))
    if not len(wrong):
        return ""
    at = tuple(wrong[0].tolist())
    place = f"component {at[0] if len(at) == 1 else at} is" if at else "it is"
    return f"{place} {array[at]:g}, outside of the bounds {space.low[at]:g} to {space.high[at]:g}"


def _check_outcome(
    reward: Any, ends: tuple[Any, Any], info: Any, when: str, findings: Findings
) -> bool:
    if not isinstance(info, dict):
        findings.add("info", f"{when}: the info is {_brief(info)}; return a dict, {{}} if empty")
        return False
    try:
        number = np.asarray(reward)
    except ValueError:
        number = np.asarray(None)
    if number.size != 1 or number.dtype.kind not in _NUMBERS:
        findings.add("reward type", f"{when}: the reward is {_brief(reward)}; return a float")
        return False
    if number.shape != ():
        findings.add("reward type", f"{when}: the reward is {reward!r}; return a float", "warning")
    if not np.isfinite(number).all():
        findings.add("finite", f"{when}: the reward is {reward!r}")
        return False
    if abs(number.item()) > LARGEST_REWARD:
        findings.add(
            "reward scale",
            f"{when}: the reward is {number.item():g}; no value network learns values beyond "
            f"{LARGEST_REWARD:g}: scale it down",
        )
    if not all(isinstance(end, bool | np.bool_) for end in ends):
        are_numbers = all(np.shape(end) == () and end in (0, 1) for end in ends)
        findings.add(
            "end type",
            f"{when}: terminated, truncated are {_brief(ends)}; return bools",
            "warning" if are_numbers else "error",
        )
        return are_numbers
    return True


def same(one: Any, two: Any, tolerance: float = 0.0) -> bool:
    """Whether two nests of dicts, lists and arrays are equal, bit for bit without a tolerance."""
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key], tolerance) for key in one)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(
            same(a, b, tolerance) for a, b in zip(one, two, strict=True)
        )
    try:
        first, second = np.asarray(one), np.asarray(two)
        if tolerance and first.dtype.kind in "fc" and first.shape == second.shape:
            return bool(np.allclose(first, second, rtol=tolerance, atol=tolerance))
        return bool(np.array_equal(first, second))
    except (TypeError, ValueError):  # objects that cannot be compared
        return one is two


def _copied(info: Any) -> Any:
    """A copy of the plain data in an info; a copy of something live could disturb it."""
    if isinstance(info, dict):
        return {key: _copied(value) for key, value in info.items()}
    if isinstance(info, list | tuple):
        return [_copied(value) for value in info]
    if isinstance(info, np.ndarray):
        return info.copy()
    return info if isinstance(info, int | float | str | np.generic) else None


def _excerpt(array: Array) -> str:
    return np.array2string(array.ravel()[:8], precision=4, separator=", ")


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def raised(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {error}"
