"""Checks an environment against Gymnasium's contract and the laws of goals.

Whole episodes are run with random and with extreme actions, as some defects appear only at step 20
or in the second episode.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from rlkit.goals.checked_episode import (
    CheckedEpisode,
    Findings,
    extreme_actions,
    raised,
    random_actions,
    run_episode,
    same,
)
from rlkit.goals.checked_episode import Problem as Problem
from rlkit.goals.env import GOAL_KEYS, goal_rule, is_goal_space
from rlkit.goals.rule import Array, GoalRule

# Robotics observations are unbounded, and wrappers are what is trained on.
_IRRELEVANT = ("different from the unwrapped", "not having a spec", "probably too")


def check_goal_env(env: gym.Env[Any, Any], episodes: int = 4, seed: int = 0) -> list[Problem]:
    """The laws an environment breaks; no problem without `note` means that it is fine.

    Args:
        env: The environment, with the wrappers it is trained with. It is reset and stepped.
        episodes: Episodes with random actions, >= 1; three more have extreme or repeated actions.
        seed: Seed of the first episode; the others count up.

    Raises:
        ValueError: If `episodes` is not positive.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    findings = Findings()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's are collected separately, as notes
        seeds = range(seed, seed + episodes)
        episodes_run = [run_episode(env, findings, one, random_actions(env, one)) for one in seeds]
        extremes = [
            run_episode(env, findings, seed, extreme_actions(env, high)) for high in (False, True)
        ]
        again = run_episode(env, findings, seed, random_actions(env, seed))
        whole = [episode for episode in [*episodes_run, *extremes] if episode.complete]
        if episodes_run[0].complete and again.complete:
            _check_repetition(episodes_run[0], again, findings)
        if whole:
            _check_together(whole, episodes_run[0], extremes, findings)
            # A delayed observation is announced; the first one is then returned twice as well.
            late = "observation_delay"
            if not (env.has_wrapper_attr(late) and env.get_wrapper_attr(late) > 0):
                _check_delay(whole, findings)
        if _has_goals(env, findings):
            _check_goals(env, whole, findings)
    _run_gymnasium_check(env, seed, findings)
    return findings.problems


def _check_repetition(first: CheckedEpisode, again: CheckedEpisode, findings: Findings) -> None:
    if not same(first.observations[0], again.observations[0]):
        findings.add(
            "seed",
            f"reset(seed={first.seed}) gave two different first observations: call "
            f"super().reset(seed=seed), draw from self.np_random, start from the same state",
        )
        return
    pairs = zip(
        zip(first.observations[1:], first.rewards, first.terminated, strict=True),
        zip(again.observations[1:], again.rewards, again.terminated, strict=True),
        strict=False,
    )
    differing = [t for t, (one, two) in enumerate(pairs, 1) if not same(one, two)]
    lengths = len(first.rewards), len(again.rewards)
    if differing or lengths[0] != lengths[1]:
        findings.add(
            "replay",
            f"seed {first.seed} with the same actions gave another episode the second time: first "
            f"difference at step {[*differing, min(lengths) + 1][0]}, lengths {lengths}. Reset "
            f"every counter and state, and draw randomness from self.np_random only",
        )


def _check_together(
    whole: list[CheckedEpisode],
    first: CheckedEpisode,
    extremes: list[CheckedEpisode],
    findings: Findings,
) -> None:
    compared = [first, *extremes]
    if all(episode.complete for episode in compared) and all(
        same(episode.observations, first.observations) for episode in extremes
    ):
        findings.add(
            "action effect",
            f"random, lowest and highest actions from seed {first.seed} gave the same episode of "
            f"{len(first.rewards)} steps: the action is ignored",
        )
    lengths = {len(episode.rewards) for episode in whole}
    if len(whole) > 2 and len(lengths) == 1 and all(e.terminated[-1] for e in whole):
        findings.add(
            "timeout",
            f"every episode terminated after {lengths.pop()} steps, whatever the actions: a time "
            f"limit must return truncated=True, because the value of a state goes on after it",
        )
    _note_dead_sensors(whole, findings)


def _check_delay(whole: list[CheckedEpisode], findings: Findings) -> None:
    moving = [e for e in whole if not all(same(e.observations[0], o) for o in e.observations)]
    if moving and all(same(e.observations[0], e.observations[1]) for e in whole):
        findings.add(
            "stale observation",
            "the first step always returns the reset's observation although later ones change: "
            "observe after the action, not before. If the delay is intended, give the "
            "environment an attribute observation_delay, the number of steps",
        )


def _note_dead_sensors(whole: list[CheckedEpisode], findings: Findings) -> None:
    observations = [
        o["observation"] if isinstance(o, dict) else o for e in whole for o in e.observations
    ]
    constant = np.ones(np.size(observations[0]), np.bool_)
    for one in observations:
        constant &= np.ravel(one) == np.ravel(observations[0])
    dead = np.flatnonzero(constant).tolist()
    if dead:
        findings.add(
            "dead sensor",
            f"components {dead[:8]} of the observation never changed in {len(observations)} steps",
            note=True,
        )


def _has_goals(env: gym.Env[Any, Any], findings: Findings) -> bool:
    if is_goal_space(env.observation_space):
        return True
    keys = env.observation_space.spaces if isinstance(env.observation_space, spaces.Dict) else {}
    half = "achieved_goal" in keys or "desired_goal" in keys
    findings.add(
        "goals",
        f"no goals: the observation space is {env.observation_space}, not a Dict with "
        f"{', '.join(GOAL_KEYS)}. Hindsight needs them: rlkit.goals.GoalWrapper(env, "
        f"achieved=lambda observation: ..., rule=DistanceRule(threshold=...), goal_space=Box(...))",
        note=not half,
    )
    return False


def _check_goals(env: gym.Env[Any, Any], whole: list[CheckedEpisode], findings: Findings) -> None:
    shapes = [env.observation_space[key].shape for key in GOAL_KEYS[1:]]  # type: ignore[index]
    if shapes[0] != shapes[1]:
        findings.add(
            "goal shape",
            f"achieved_goal has shape {shapes[0]}, desired_goal {shapes[1]}; hindsight puts one "
            f"in the other's place",
        )
        return
    try:
        rule = goal_rule(env)
        for episode in whole:
            _check_rule(rule, episode, findings)
        if whole:
            _check_batches(env, rule, whole, findings)
    except Exception as error:
        findings.add("rule", f"the goal rule failed on arrays of goals: {raised(error)}")
        return
    _check_pickle(rule, findings)
    _note_solved_starts(rule, whole, findings)


def _check_rule(rule: GoalRule, episode: CheckedEpisode, findings: Findings) -> None:
    achieved, desired = episode.goals("achieved_goal"), episode.goals("desired_goal")
    after, wanted = achieved[1:], desired[1:]
    rewards, where = np.array(episode.rewards), f"seed {episode.seed}"
    expected = np.asarray(rule.reward(after, wanted))
    if _shaped("reward", expected, len(after), findings):
        _compare_rewards(rewards, expected, rule.reward(achieved[:-1], wanted), where, findings)
    low, high = rule.reward_range
    if (rewards < low - 1e-6).any() or (rewards > high + 1e-6).any():
        findings.add(
            "reward range",
            f"{where}: rewards from {rewards.min():g} to {rewards.max():g} leave the rule's "
            f"reward_range ({low:g}, {high:g}); bounded value targets would be wrong",
        )
    if (desired != desired[0]).any():
        findings.add("goal changes", f"{where}: the goal changes within the episode", note=True)
    _check_ends(rule, episode, after, wanted, findings)


def _compare_rewards(
    rewards: Array, expected: Array, before: Array, where: str, findings: Findings
) -> None:
    wrong = np.flatnonzero(~np.isclose(rewards, expected, rtol=1e-5, atol=1e-6))
    if not len(wrong):
        return
    t = int(wrong[0])
    late = np.allclose(rewards, before, rtol=1e-5, atol=1e-6)
    findings.add(
        "reward",
        f"{where}, step {t + 1}: the reward is {rewards[t]:g}, the rule gives {expected[t]:g} for "
        f"the goal achieved after the action"
        + ("; the reward is that of the goal before it" if late else "")
        + ". Hindsight would learn another task: compute both with one rule",
    )


def _check_ends(
    rule: GoalRule, episode: CheckedEpisode, after: Array, wanted: Array, findings: Findings
) -> None:
    ends, success = np.asarray(rule.terminated(after, wanted)), rule.success(after, wanted)
    terminated, where = np.array(episode.terminated), f"seed {episode.seed}"
    if not _shaped("terminated", ends, len(after), findings):
        return
    if (ends & ~terminated).any():
        t = int(np.flatnonzero(ends & ~terminated)[0])
        findings.add(
            "termination", f"{where}, step {t + 1}: the rule terminates, the environment does not"
        )
    elif (terminated & success & ~ends).any():
        findings.add(
            "termination",
            f"{where}: terminates on success but has no compute_terminated (or its rule says "
            f"False): relabelled goals would never terminate. Set terminates=True in the rule",
        )
    reported = [
        (t, bool(i["is_success"])) for t, i in enumerate(episode.infos) if "is_success" in i
    ]
    for t, claimed in reported:
        if claimed != bool(success[t]):
            findings.add(
                "success",
                f'{where}, step {t + 1}: info["is_success"] is {claimed}, the rule says '
                f"{bool(success[t])}",
            )
    if not np.asarray(rule.success(wanted, wanted)).all():
        findings.add(
            "success of the goal",
            f"{where}: an achieved goal that equals the desired one is no success",
        )


def _check_batches(
    env: gym.Env[Any, Any], rule: GoalRule, whole: list[CheckedEpisode], findings: Findings
) -> None:
    achieved = np.concatenate([e.goals("achieved_goal") for e in whole])
    desired = np.concatenate([e.goals("desired_goal") for e in whole])
    # Half the rows achieve their goal, the others are paired with goals of other episodes.
    rows = np.linspace(0, len(achieved) - 1, min(32, len(achieved))).astype(int)
    wanted = np.where(
        (np.arange(len(rows)) % 2).reshape(-1, *[1] * (achieved.ndim - 1)),
        achieved[rows],
        desired[rows[::-1]],
    )
    functions: list[tuple[str, Callable[[Array, Array], Any]]] = [
        ("rule.reward", rule.reward),
        ("rule.success", rule.success),
        ("rule.terminated", rule.terminated),
    ]
    if env.has_wrapper_attr("compute_reward"):
        compute = env.get_wrapper_attr("compute_reward")
        functions.append(("compute_reward", lambda a, d: compute(a, d, {})))
    for name, function in functions:
        batch = np.asarray(function(achieved[rows], wanted))
        if not _shaped(name, batch, len(rows), findings):
            continue
        singles = [
            np.asarray(function(achieved[r : r + 1], wanted[i : i + 1])).item()
            for i, r in enumerate(rows)
        ]
        if not np.allclose(batch.astype(float), np.array(singles, float), rtol=1e-5, atol=1e-6):
            findings.add(
                "batch", f"{name} of a batch differs from a loop over its rows: rows must not mix"
            )


def _check_pickle(rule: GoalRule, findings: Findings) -> None:
    try:
        pickle.loads(pickle.dumps(rule))
    except Exception as error:
        findings.add(
            "pickle",
            f"the rule cannot be pickled ({raised(error)}): other processes need it. Make `rule` a "
            f"frozen dataclass that holds numbers, not the environment",
        )


def _note_solved_starts(rule: GoalRule, whole: list[CheckedEpisode], findings: Findings) -> None:
    starts = [(e.goals("achieved_goal")[:1], e.goals("desired_goal")[:1]) for e in whole]
    solved = sum(bool(rule.success(*pair)[0]) for pair in starts)
    if 2 * solved > len(starts):
        findings.add("solved start", f"{solved} of {len(starts)} episodes start solved", note=True)


def _shaped(name: str, value: Array, rows: int, findings: Findings) -> bool:
    if value.shape == (rows,):
        return True
    findings.add(
        "batch",
        f"{name} of {rows} goals has shape {value.shape} instead of ({rows},): compute along the "
        f"last axis, as in np.linalg.norm(achieved - desired, axis=-1)",
    )
    return False


def _run_gymnasium_check(env: gym.Env[Any, Any], seed: int, findings: Findings) -> None:
    env.action_space.seed(seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_env(env, skip_render_check=True, skip_close_check=True)
        except Exception as error:
            findings.add("gymnasium", f"gymnasium's checker: {raised(error)}")
    texts = [re.sub(r"\x1b\[[0-9;]*m", "", str(warning.message)) for warning in caught]
    for text in dict.fromkeys(texts):
        if not any(words in text for words in _IRRELEVANT):
            advice = text.removeprefix("WARN: ")
            findings.problems.append(Problem("gymnasium's advice", advice, note=True))
