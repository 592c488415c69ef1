"""Checks an environment against Gymnasium's contract and the laws of goals.

Whole episodes are run with random and with extreme actions, as some defects appear only at step 20
or in the second episode. Everything runs in environments of the check's own.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env as check_by_gymnasium

from rlkit.goals.check_rule import check_goals
from rlkit.goals.checked_episode import (
    Bounds,
    CheckedEpisode,
    extreme_actions,
    raised,
    random_actions,
    run_episode,
    same,
)
from rlkit.goals.env import GOAL_KEYS, is_goal_space, is_image_space
from rlkit.goals.findings import Finding, Findings, errors, layers, place_of, place_of_error
from rlkit.goals.simple_spaces import simplify

MakeOne = Callable[[], gym.Env[Any, Any]]
# Robotics observations are unbounded, and wrappers are what is trained on.
_IRRELEVANT = (
    "different from the unwrapped",
    "not having a spec",
    "probably too",
    "It seems a Box observation space is an image",
)
_ROUNDING = 1e-5
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
        ValueError: If `episodes` or `steps` is not positive.
    """
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
        whole = _check_episodes(env, simple_twin, seeds, findings, bounds)
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


def _check_episodes(
    env: gym.Env[Any, Any],
    twin: gym.Env[Any, Any] | None,
    seeds: range,
    findings: Findings,
    bounds: Bounds,
) -> list[CheckedEpisode]:
    """The sound episodes."""
    run = [run_episode(env, findings, one, random_actions(env, one), bounds) for one in seeds]
    first, seed = run[0], seeds[0]
    again = run_episode(env, findings, seed, random_actions(env, seed), bounds)
    extremes = [
        run_episode(env, findings, seed, extreme_actions(env, high), bounds)
        for high in (False, True)
    ]
    if first.sound and again.sound:
        repeats = _check_repetition(first, again, findings)
        if repeats and twin is not None and not bounds.exceeded:
            _check_twin(env, twin, first, findings, bounds)
    whole = [episode for episode in [*run, *extremes] if episode.sound and episode.rewards]
    if first.sound and not bounds.exceeded:
        _check_effect(first, extremes, findings)
    if whole:
        _check_timeout(whole, findings)
        _check_delay(env, whole, findings, bounds)
        _find_dead_sensors(whole, findings)
    return whole


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


def _check_repetition(first: CheckedEpisode, again: CheckedEpisode, findings: Findings) -> bool:
    """Whether the same seed and the same actions give the same episode."""
    if not same(first.observations[0], again.observations[0], _ROUNDING):
        findings.add(
            "seed",
            f"reset(seed={first.seed}) gave two different first observations: call "
            f"super().reset(seed=seed), draw from self.np_random, start from the same state",
        )
        return False
    difference = _first_difference(first, again)
    if difference is not None:
        step, lengths = difference
        findings.add(
            "replay",
            f"seed {first.seed} with the same actions gave another episode the second time: first "
            f"difference at step {step}, lengths {lengths}. Reset every counter and state, and "
            f"draw randomness from self.np_random only",
        )
    return difference is None


def _first_difference(
    one: CheckedEpisode, two: CheckedEpisode
) -> tuple[int, tuple[int, int]] | None:
    """The first step at which two episodes differ, and their lengths; None if they are equal."""
    pairs = zip(
        zip(one.observations[1:], one.rewards, one.terminated, strict=True),
        zip(two.observations[1:], two.rewards, two.terminated, strict=True),
        strict=False,
    )
    # Simulators may round differently after a reset; what matters are other episodes.
    differing = [t for t, (a, b) in enumerate(pairs, 1) if not same(a, b, _ROUNDING)]
    lengths = len(one.rewards), len(two.rewards)
    if differing:
        return differing[0], lengths
    both_ended = one.ended and two.ended
    return (min(lengths) + 1, lengths) if both_ended and lengths[0] != lengths[1] else None


def _check_twin(
    env: gym.Env[Any, Any],
    twin: gym.Env[Any, Any],
    first: CheckedEpisode,
    findings: Findings,
    bounds: Bounds,
) -> None:
    """Runs an episode again while another environment is stepped in between."""
    other, seed = random_actions(twin, first.seed + 1), first.seed

    def step_twin() -> None:
        _, _, terminated, truncated, _ = twin.step(next(other))
        if terminated or truncated:
            twin.reset()

    try:
        twin.reset(seed=seed + 1)
        again = run_episode(env, findings, seed, random_actions(env, seed), bounds, step_twin)
    except Exception as error:
        text = f"beside the first one, a second environment raised {raised(error)}"
        findings.add("second instance", text, where=place_of_error(twin, error, "step"))
        return
    if again.sound and not bounds.exceeded and _first_difference(first, again) is not None:
        findings.add(
            "shared state",
            f"seed {seed} gave another episode while a second environment was stepped: they share "
            f"a variable of the class or of the module. Set it on self, in reset",
        )


def _check_effect(
    first: CheckedEpisode, extremes: list[CheckedEpisode], findings: Findings
) -> None:
    if all(one.sound and same(one.outcomes, first.outcomes) for one in extremes):
        findings.add(
            "action effect",
            f"random, lowest and highest actions from seed {first.seed} gave the same episode of "
            f"{len(first.rewards)} steps, rewards and infos included: the action is ignored",
            # It may have an effect later, as where the first half is to be watched.
            None if first.ended else "note",
        )


def _check_timeout(whole: list[CheckedEpisode], findings: Findings) -> None:
    lengths = {len(episode.rewards) for episode in whole}
    ends = all(episode.ended and episode.terminated[-1] for episode in whole)
    if len(whole) > 2 and len(lengths) == 1 and ends and lengths != {1}:
        findings.add(
            "timeout",
            f"every episode terminated after {lengths.pop()} steps, whatever the actions. If that "
            f"is a time limit, return truncated=True, because the value of a state goes on after "
            f"it; if the task is over then, all is well",
        )


def _check_delay(
    env: gym.Env[Any, Any], whole: list[CheckedEpisode], findings: Findings, bounds: Bounds
) -> None:
    # A delayed observation is announced; the first one is then returned twice as well.
    late = "observation_delay"
    if env.has_wrapper_attr(late) and env.get_wrapper_attr(late) > 0:
        return
    moving = [e for e in whole if not all(same(e.observations[0], o) for o in e.observations)]
    if not moving or not all(same(e.observations[0], e.observations[1]) for e in whole):
        return
    # The first actions may have changed nothing, as against a wall: try more of them.
    actions = random_actions(env, 0)
    for seed in range(whole[-1].seed + 1, whole[-1].seed + 17):
        if bounds.exceeded:
            return
        start = copy.deepcopy(env.reset(seed=seed)[0])
        after = env.step(next(actions))[0]
        if not same(start, after):
            return
    findings.add(
        "stale observation",
        "the first step always returns the reset's observation although later ones change: "
        "observe after the action, not before. If the delay is intended, give the "
        "environment an attribute observation_delay, the number of steps",
    )


def _find_dead_sensors(whole: list[CheckedEpisode], findings: Findings) -> None:
    seeds = {episode.seed for episode in whole}
    observations = [o for episode in whole for o in episode.observations]
    if len(seeds) < 3 or len(observations) < 50:
        return
    space = findings.env.observation_space
    parts = space.spaces if isinstance(space, spaces.Dict) else {"": space}
    dead = []
    for key, part in parts.items():
        # Most pixels of an image may well be constant, and so may a goal.
        if isinstance(part, spaces.Box) and not is_image_space(part) and key not in GOAL_KEYS[1:]:
            rows = np.stack([np.ravel(o[key] if key else o) for o in observations])
            found = np.flatnonzero((rows == rows[0]).all(axis=0)).tolist()
            if found:
                dead.append(f"{key + ' ' if key else ''}{found[:8]}")
    if dead:
        findings.add(
            "dead sensor",
            f"components of the observation never changed in {len(observations)} steps: "
            f"{', '.join(dead)}. If they carry nothing, leave them out",
        )


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
