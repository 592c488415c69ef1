"""The laws of goals: what hindsight needs of an environment's rule."""

from __future__ import annotations

import pickle
import types
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from rlkit.goals.checked_episode import CheckedEpisode, raised
from rlkit.goals.env import GOAL_KEYS, goal_rule
from rlkit.goals.findings import Findings, Level, place_of, place_of_error, place_of_method
from rlkit.goals.rule import Array, ComputedRule, FurtherTerms, GoalRule, NotBatchedError

_PLAIN = (int, float, complex, str, bytes, bool, type(None), np.ndarray, np.generic, type)


def check_goals(env: gym.Env[Any, Any], whole: list[CheckedEpisode], findings: Findings) -> None:
    """Compares an environment's rule with what its episodes returned, and with itself in batches.

    Args:
        env: An environment with goal keys.
        whole: Sound episodes in it.
        findings: Where broken laws are kept.
    """
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
    except ValueError as error:
        findings.add("rule", str(error))
        return
    try:
        for episode in whole:
            _check_rule(rule, episode, findings)
        if whole:
            _check_batches(env, rule, whole, findings)
            _note_solved_starts(rule, whole, findings)
    except NotBatchedError as error:
        findings.add("batch", str(error), where=_place_of_rule(env, rule, "reward"))
    except Exception as error:
        text = f"the goal rule failed on arrays of goals: {raised(error)}"
        findings.add("rule", text, where=_place_of_failure(env, rule, error))
    _check_pickle(env, rule, findings)


def _place_of_rule(env: gym.Env[Any, Any], rule: GoalRule, method: str) -> str:
    """The class of a rule, or of an environment whose rule is one of the suite's."""
    if isinstance(rule, ComputedRule):
        return place_of(env, f"compute_{method}")
    if isinstance(rule, FurtherTerms):
        return _place_of_rule(env, rule.rule, method)
    if type(rule).__module__.startswith("rlkit."):
        return place_of(env, "__init__")
    return place_of_method(type(rule), method)


def _place_of_failure(env: gym.Env[Any, Any], rule: GoalRule, error: Exception) -> str:
    place = _place_of_rule(env, rule, "reward")
    return place_of_error(env, error, "compute_reward") if isinstance(rule, ComputedRule) else place


def _check_rule(rule: GoalRule, episode: CheckedEpisode, findings: Findings) -> None:
    achieved, desired = episode.goals("achieved_goal"), episode.goals("desired_goal")
    after, wanted = achieved[1:], desired[1:]
    rewards, where = np.array(episode.rewards), f"seed {episode.seed}"
    expected = np.asarray(rule.reward(after, wanted))
    if expected.shape != (len(after),):
        raise NotBatchedError(_unbatched("rule.reward", expected, len(after)))
    if not isinstance(rule, FurtherTerms):
        _compare_rewards(rewards, expected, rule.reward(achieved[:-1], wanted), where, findings)
    low, high = rule.reward_range
    if (rewards < low - 1e-6).any() or (rewards > high + 1e-6).any():
        findings.add(
            "reward range",
            f"{where}: rewards from {rewards.min():g} to {rewards.max():g} leave the rule's "
            f"reward_range ({low:g}, {high:g}); bounded value targets would be wrong",
        )
    if (desired != desired[0]).any():
        findings.add("goal changes", f"{where}: the goal changes within the episode")
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
        + ". Hindsight would learn another task: compute both with one rule. If the reward has "
        "terms beside the goal's, such as a penalty, keep them in relabelled rewards with "
        "--set agent_options.replay.further_terms=true",
    )


def _check_ends(
    rule: GoalRule, episode: CheckedEpisode, after: Array, wanted: Array, findings: Findings
) -> None:
    ends, success = np.asarray(rule.terminated(after, wanted)), rule.success(after, wanted)
    terminated, where = np.array(episode.terminated), f"seed {episode.seed}"
    if ends.shape != (len(after),):
        raise NotBatchedError(_unbatched("rule.terminated", ends, len(after)))
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
    # Without compute_success a computed rule can only guess: a reward as high as the goal's own.
    of_goal = rule.rule if isinstance(rule, FurtherTerms) else rule
    is_guess = isinstance(of_goal, ComputedRule) and of_goal.compute_success is None
    level: Level | None = "note" if is_guess else None
    reported = [
        (t, bool(i["is_success"])) for t, i in enumerate(episode.infos) if "is_success" in i
    ]
    for t, claimed in reported:
        if claimed != bool(success[t]):
            findings.add(
                "success",
                f'{where}, step {t + 1}: info["is_success"] is {claimed}, the rule says '
                f"{bool(success[t])}",
                level,
            )
    if not np.asarray(rule.success(wanted, wanted)).all():
        findings.add(
            "success of the goal",
            f"{where}: an achieved goal that equals the desired one is no success",
            level,
            _place_of_rule(findings.env, rule, "success"),
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
    for name in ("reward", "success", "terminated"):
        where = _place_of_rule(env, rule, name)
        wrong = _batch_defect(f"rule.{name}", getattr(rule, name), achieved[rows], wanted)
        if wrong is not None:
            findings.add("batch", wrong, where=where)
    is_sound = all(finding.law != "batch" for finding in findings.found)
    has_another = env.has_wrapper_attr("compute_reward") and not isinstance(rule, ComputedRule)
    if is_sound and has_another:
        compute = env.get_wrapper_attr("compute_reward")
        wrong = _batch_defect(
            "compute_reward", lambda a, d: compute(a, d, {}), achieved[rows], wanted
        )
        if wrong is not None:  # of use to other libraries alone
            findings.add("batch", wrong, "warning")


def _batch_defect(
    name: str, function: Callable[[Array, Array], Any], achieved: Array, desired: Array
) -> str | None:
    """How a function of goals fails on a batch of them; None if it does not."""
    batch = np.asarray(function(achieved, desired))
    if batch.shape != (len(achieved),):
        return _unbatched(name, batch, len(achieved))
    singles = [
        np.asarray(function(achieved[i : i + 1], desired[i : i + 1])).item()
        for i in range(len(achieved))
    ]
    if np.allclose(batch.astype(float), np.array(singles, float), rtol=1e-5, atol=1e-6):
        return None
    return f"{name} of a batch differs from a loop over its rows: rows must not mix"


def _check_pickle(env: gym.Env[Any, Any], rule: GoalRule, findings: Findings) -> None:
    # Pickling something live, and even more dropping its copy, can end the simulator behind it.
    live = _live_part(rule, "rule")
    if live is None:
        try:
            pickle.loads(pickle.dumps(rule))
        except Exception as error:
            findings.add("pickle", f"the rule cannot be pickled: {raised(error)}")
        return
    if isinstance(rule, ComputedRule):
        findings.add(
            "live rule",
            "hindsight calls compute_reward of the live environment. It needs the environment "
            "wherever it trains further; a `rule` such as rlkit.goals.DistanceRule does not",
        )
    else:
        findings.add(
            "pickle",
            f"{live}: other processes need a rule that can be pickled. Make it a frozen dataclass "
            f"that holds numbers, not the environment",
            where=_place_of_rule(env, rule, "__init__"),
        )


def _live_part(value: Any, name: str, depth: int = 6) -> str | None:
    """What in a nest of objects is more than plain data, in words; None if nothing is."""
    if isinstance(value, _PLAIN) or _is_importable(value):
        return None
    if depth == 0 or isinstance(value, gym.Env) or hasattr(value, "__del__"):
        return f"{name} holds a {type(value).__name__}"
    if isinstance(value, dict):
        parts: Iterable[tuple[str, Any]] = ((f"{name}[{key!r}]", one) for key, one in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        parts = ((f"{name}[{i}]", one) for i, one in enumerate(value))
    elif isinstance(value, partial):
        parts = ((name, one) for one in (value.func, *value.args, *value.keywords.values()))
    elif isinstance(value, types.MethodType):
        parts = [(name, value.__self__)]
    elif hasattr(value, "__dict__") and not isinstance(value, types.FunctionType):
        parts = ((f"{name}.{key}", one) for key, one in vars(value).items())
    else:  # a local function, a lock, a file, an object of another language
        return f"{name} is a {type(value).__name__}"
    return next(filter(None, (_live_part(one, key, depth - 1) for key, one in parts)), None)


def _is_importable(value: Any) -> bool:
    is_function = isinstance(value, types.FunctionType | types.BuiltinFunctionType)
    return is_function and "<" not in value.__qualname__


def _note_solved_starts(rule: GoalRule, whole: list[CheckedEpisode], findings: Findings) -> None:
    starts = [(e.goals("achieved_goal")[:1], e.goals("desired_goal")[:1]) for e in whole]
    solved = sum(bool(rule.success(*pair)[0]) for pair in starts)
    if 2 * solved > len(starts):
        findings.add("solved start", f"{solved} of {len(starts)} episodes start solved")


def _unbatched(name: str, value: Array, rows: int) -> str:
    return (
        f"{name} of {rows} goals has shape {value.shape} instead of ({rows},): compute along the "
        f"last axis, as in np.linalg.norm(achieved - desired, axis=-1)"
    )
