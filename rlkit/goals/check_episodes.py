"""Runs the episodes of a check, and compares them with each other."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlkit.goals.checked_episode import (
    Bounds,
    CheckedEpisode,
    extreme_actions,
    raised,
    random_actions,
    run_episode,
    same,
)
from rlkit.goals.env import GOAL_KEYS, is_image_space
from rlkit.goals.findings import Findings, place_of_error

_ROUNDING = 1e-5  # simulators may round differently after a reset


def check_episodes(
    env: gym.Env[Any, Any],
    twin: gym.Env[Any, Any] | None,
    seeds: range,
    findings: Findings,
    bounds: Bounds,
) -> list[CheckedEpisode]:
    """Runs episodes and compares them; returns those in which nothing failed.

    Args:
        env: The environment.
        twin: Another one, stepped in between; None if there is none.
        seeds: Seeds of the episodes with random actions.
        findings: Where broken laws are kept.
        bounds: When to stop.
    """
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
    if len(seeds) < 3 or len(observations) < 100:
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
