"""Whole episodes, run for `rlkit.goals.check`, and the laws that concern single steps."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlkit.goals.rule import Array

LONGEST_EPISODE = 2000
LARGEST_REWARD = 1e6


@dataclass(frozen=True)
class Problem:
    """One broken law.

    Attributes:
        law: The law's short name.
        message: The offending value and the fix.
        note: Whether this may be intended, and is only reported.
    """

    law: str
    message: str
    note: bool = False

    def __str__(self) -> str:
        """One line for a terminal."""
        return f"{'note' if self.note else 'problem'} [{self.law}] {self.message}"


@dataclass
class Findings:
    """The problems found so far."""

    problems: list[Problem] = field(default_factory=list)

    def add(self, law: str, message: str, note: bool = False) -> None:
        """Keeps the first problem of each law."""
        # One report per law: a broken law usually breaks at every step.
        if all(problem.law != law for problem in self.problems):
            self.problems.append(Problem(law, message, note))


@dataclass
class CheckedEpisode:
    """The record of an episode: one more observation than steps."""

    seed: int
    observations: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    infos: list[dict[str, Any]] = field(default_factory=list)
    terminated: list[bool] = field(default_factory=list)
    truncated: bool = False
    complete: bool = False

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
        action = space.sample()
        if isinstance(space, spaces.Box):
            bound = space.high if high else space.low
            action = np.where(np.isfinite(bound), bound, action).astype(space.dtype)
        elif isinstance(space, spaces.Discrete):
            action = space.start + (space.n - 1 if high else 0)
        yield action


def run_episode(
    env: gym.Env[Any, Any], findings: Findings, seed: int, actions: Iterator[Any]
) -> CheckedEpisode:
    """Runs one episode and checks the laws that concern single steps."""
    episode = CheckedEpisode(seed)
    try:
        observation, _ = env.reset(seed=seed)
    except Exception as error:
        findings.add("reset", f"reset(seed={seed}) raised {raised(error)}")
        return episode
    sound = _check_observation(env, observation, "reset", findings)
    episode.observations.append(copy.deepcopy(observation))
    while sound and len(episode.rewards) < LONGEST_EPISODE:
        action = next(actions)
        before, when = copy.deepcopy(action), f"step {len(episode.rewards) + 1}"
        try:
            next_observation, reward, terminated, truncated, info = env.step(action)
        except Exception as error:
            findings.add("crash", f"{when} with action {before!r} raised {raised(error)}")
            return episode
        if not same(action, before):
            findings.add("action", f"{when} wrote to its action {before!r}: copy it first")
        if not same(observation, episode.observations[-1]):
            findings.add(
                "aliasing", f"{when} changed the observation returned before it: return copies"
            )
        sound = _check_observation(env, next_observation, when, findings)
        sound &= _check_outcome(reward, (terminated, truncated), when, findings)
        observation = next_observation
        episode.observations.append(copy.deepcopy(next_observation))
        if not sound:
            break
        episode.rewards.append(float(reward))
        episode.infos.append(dict(info))
        episode.terminated.append(bool(terminated))
        episode.truncated = bool(truncated)
        if terminated or truncated:
            episode.complete = True
            return episode
    if sound:
        episode.complete = True
        findings.add(
            "end",
            f"no end within {LONGEST_EPISODE} steps: register the environment with "
            f"max_episode_steps, or wrap it in gymnasium.wrappers.TimeLimit",
        )
    return episode


def _check_observation(
    env: gym.Env[Any, Any], observation: Any, when: str, findings: Findings
) -> bool:
    parts = observation if isinstance(observation, dict) else {"observation": observation}
    for key, value in parts.items():
        array = np.asarray(value)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            findings.add("finite", f"{when}: {key} is not finite: {_excerpt(array)}")
            return False
    if bool(env.observation_space.contains(observation)):
        return True
    findings.add("space", f"{when}: {_mismatch(env.observation_space, observation)}")
    # An episode can go on with values out of bounds, but not with other shapes and types.
    space = env.observation_space
    if not isinstance(space, spaces.Dict):
        return bool(np.shape(observation) == space.shape)
    return isinstance(observation, dict) and all(
        key in observation and np.shape(observation[key]) == inner.shape
        for key, inner in space.items()
    )


def _mismatch(space: spaces.Space[Any], value: Any) -> str:
    if isinstance(space, spaces.Dict):
        if not isinstance(value, dict) or set(value) != set(space.spaces):
            keys = list(value) if isinstance(value, dict) else type(value).__name__
            return f"the observation has {keys}, its space the keys {list(space.spaces)}"
        for key, inner in space.spaces.items():
            if not inner.contains(value[key]):
                return f"{key}: {_mismatch(inner, value[key])}"
    array = np.asarray(value)
    return (
        f"{_excerpt(array)} of shape {array.shape} and type {array.dtype} is not in {space}: "
        f"make the space wider, or clip or cast the observation"
    )


def _check_outcome(reward: Any, ends: tuple[Any, Any], when: str, findings: Findings) -> bool:
    if np.shape(reward) != () or np.asarray(reward).dtype.kind not in "fiub":
        findings.add("reward type", f"{when}: the reward is {reward!r}; return a float")
        return False
    if not np.isfinite(reward):
        findings.add("finite", f"{when}: the reward is {reward!r}")
        return False
    if abs(reward) > LARGEST_REWARD:
        findings.add(
            "reward scale",
            f"{when}: the reward is {float(reward):g}; no value network learns values beyond "
            f"{LARGEST_REWARD:g}: scale it down",
        )
    if not all(isinstance(end, bool | np.bool_) for end in ends):
        findings.add("end type", f"{when}: terminated, truncated are {ends!r}; return bools")
        return False
    return True


def same(one: Any, two: Any) -> bool:
    """Whether two nests of dicts, lists and arrays are equal, bit for bit."""
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return np.array_equal(np.asarray(one), np.asarray(two))


def _excerpt(array: Array) -> str:
    return np.array2string(array.ravel()[:8], precision=4, separator=", ")


def raised(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {error}"
