"""Checks an environment against Gymnasium's contract and the laws of goals.

Whole episodes are run with random and with extreme actions, as some defects appear only at step 20
or in the second episode. Everything runs in environments of the check's own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env as check_by_gymnasium

from rlkit.goals.check_episodes import check_episodes
from rlkit.goals.check_rule import check_goals
from rlkit.goals.checked_episode import (
    Bounds,
    CheckedEpisode,
    raised,
    random_actions,
    run_episode,
)
from rlkit.goals.env import GOAL_KEYS, is_goal_space
from rlkit.goals.findings import Finding, Findings, errors, layers, place_of, place_of_error
from rlkit.goals.simple_spaces import simplify

MakeOne = Callable[[], gym.Env[Any, Any]]
# Robotics observations are unbounded, wrappers are what is trained on, agents scale their actions.
_IRRELEVANT = (
    "different from the unwrapped",
    "not having a spec",
    "probably too",
    "recommend using a symmetric and normalized",
)
_UNLIMITED = 2000  # steps after which an episode without a time limit is said to have no end


def check_env(
    make: MakeOne,
    *,
    episodes: int = 4,
    seed: int = 0,
    steps: int = 2000,
    seconds: float = 60.0,
) -> list[Finding]:
    """Runs episodes in an environment, and finds what is broken, suspicious, or good to know.

    Args:
        make: Builds an environment with the wrappers it is trained with, such as its class. Two
            are built, and closed at the end.
        episodes: Episodes with random actions, >= 1; three more have extreme or repeated actions.
        seed: Seed of the first episode; the others count up.
        steps: Steps of one episode at most.
        seconds: Seconds after which no step is begun.

    Returns:
        The findings. Without any of level "error" the environment can be trained.

    Raises:
        TypeError: If `make` is an environment.
        ValueError: If `episodes` or `steps` is not positive.
    """
    if isinstance(make, gym.Env):
        raise TypeError(
            f"pass what builds the environment, such as {type(make.unwrapped).__name__} or "
            f"lambda: gymnasium.make(ID), not an environment: the check closes its own ones"
        )
    if episodes < 1 or steps < 1:
        raise ValueError(f"episodes and steps must be at least 1, got {episodes} and {steps}")
    bounds = Bounds(steps, seconds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's are collected separately, as notes
        env = make()
        findings = Findings(env)
        if _check_spaces(env, findings):
            seeds = range(seed, seed + episodes)
            _check_behaviour(simplify(env), make, seeds, findings, bounds)
        _close(env, findings)
    return findings.found


def _check_behaviour(
    env: gym.Env[Any, Any], make: MakeOne, seeds: range, findings: Findings, bounds: Bounds
) -> None:
    findings.env = env
    with _second(make, env, findings) as twin:
        simple_twin = None if twin is None else simplify(twin)
        whole = check_episodes(env, simple_twin, seeds, findings, bounds)
        if _has_goals(env, findings):
            check_goals(env, whole, findings)
        if twin is not None and not bounds.exceeded:
            _run_gymnasium_check(twin, seeds[0], findings)
    _note_bounds(env, whole, findings, bounds)


@contextlib.contextmanager
def _second(
    make: MakeOne, env: gym.Env[Any, Any], findings: Findings
) -> Iterator[gym.Env[Any, Any] | None]:
    """A second environment; None if there can be one alone."""
    try:
        twin = make()
    except Exception as error:
        findings.add(
            "second instance",
            f"a second environment cannot be built beside the first: {raised(error)}. Training "
            f"builds several",
            where=place_of_error(env, error, "__init__"),
        )
        yield None
        return
    if twin is env or twin.unwrapped is env.unwrapped:
        yield None
        return
    yield twin
    with contextlib.suppress(Exception):  # reported of the first one
        twin.close()


def _check_spaces(env: gym.Env[Any, Any], findings: Findings) -> bool:
    """Whether agents can hold the observations and actions, converted if need be."""
    for name, law in (("observation_space", "space"), ("action_space", "action space")):
        space = getattr(env, name, None)
        if not isinstance(space, spaces.Space):
            place = place_of(env, "__init__")
            findings.add(law, f"{name} is {space!r}; set a gymnasium space", where=place)
            return False
    action = env.action_space
    if isinstance(action, spaces.Box) and not action.is_bounded():
        findings.add(
            "action space",
            f"the actions are unbounded: {action}. Agents scale their actions to the bounds: give "
            f"the Box finite ones",
        )
    try:
        simplify(env)
    except ValueError as error:
        findings.add("space", str(error), where=place_of(env, "__init__"))
        return False
    return True


def _has_goals(env: gym.Env[Any, Any], findings: Findings) -> bool:
    space = env.observation_space
    if is_goal_space(space):
        return True
    keys = space.spaces if isinstance(space, spaces.Dict) else {}
    half = [key for key in GOAL_KEYS[1:] if key in keys]
    if half:
        findings.add(
            "goals",
            f"the observation has {' and '.join(half)} but not all of {', '.join(GOAL_KEYS)}: "
            f"hindsight needs them all; to train without goals, use another name",
        )
    else:
        findings.add(
            "no goals",
            "it is trained without hindsight. rlkit.goals.GoalWrapper(env, achieved=lambda "
            "observation: ..., rule=DistanceRule(threshold=...), goal_space=Box(...)) adds goals",
            where="",
        )
    return False


def _run_gymnasium_check(twin: gym.Env[Any, Any], seed: int, findings: Findings) -> None:
    twin.action_space.seed(seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_by_gymnasium(twin, skip_render_check=True, skip_close_check=True)
        except Exception as error:
            # It often finds once more what was found in more words above.
            if not errors(findings.found):
                findings.add("gymnasium", f"gymnasium's checker: {raised(error)}")
    texts = [re.sub(r"\x1b\[[0-9;]*m", "", str(warning.message)) for warning in caught]
    for text in dict.fromkeys(texts):
        if not any(words in text for words in _IRRELEVANT):
            advice = Finding("note", "gymnasium's advice", text.removeprefix("WARN: "))
            findings.found.append(advice)


def _close(env: gym.Env[Any, Any], findings: Findings) -> None:
    try:
        env.close()
    except Exception as error:
        text = f"close() raised {raised(error)}"
        findings.add("close", text, where=place_of_error(env, error, "close"))


def _check_end(env: gym.Env[Any, Any], seed: int, findings: Findings, bounds: Bounds) -> None:
    """Whether an episode without a known time limit ends at all."""
    longer = dataclasses.replace(bounds, steps=max(bounds.steps, _UNLIMITED))
    actions = random_actions(env, seed)
    episode = run_episode(env, Findings(env), seed, actions, longer)
    if episode.sound and not episode.ended and len(episode.rewards) == longer.steps:
        findings.add(
            "end",
            f"no end within {longer.steps} steps, and no time limit: register the "
            f"environment with max_episode_steps, or wrap it in gymnasium.wrappers.TimeLimit",
        )


def _note_bounds(
    env: gym.Env[Any, Any], whole: list[CheckedEpisode], findings: Findings, bounds: Bounds
) -> None:
    longest = max((len(episode.rewards) for episode in whole), default=0)
    unended = [episode for episode in whole if not episode.ended]
    limits = [getattr(layer, "_max_episode_steps", None) for layer in layers(env)]
    limit = next((number for number in limits if number), None)
    if unended and limit is not None and not bounds.exceeded:
        findings.add("length", f"only the first {longest} of {limit} steps were run", where="")
    if unended and limit is None:
        _check_end(env, unended[0].seed, findings, bounds)
    if bounds.exceeded:
        findings.add(
            "length",
            f"the check stopped after {bounds.seconds:g} s and {longest} steps of an episode",
            where="",
        )
    if "rgb_array" not in env.metadata.get("render_modes", ()):
        findings.add("no rendering", "no videos are made: there is no render mode rgb_array")
