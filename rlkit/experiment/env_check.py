"""The check of a recipe's environment before a training."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import warnings
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env.base_vec_env import CloudpickleWrapper

from rlkit.experiment.recipe import Recipe
from rlkit.goals import is_goal_space, make_repeating
from rlkit.goals.check import check_env
from rlkit.goals.findings import Finding, errors, grouped
from rlkit.vec.vec_env import MakeEnv

# Shorter than `rlkit check-env`, which finds more.
_EPISODES, _STEPS, _SECONDS = 3, 300, 10.0
_START_SECONDS = 60.0  # until a process has imported what the environment needs


def inspect_env(recipe: Recipe, make: MakeEnv, *, check: bool) -> None:
    """Refuses an environment that cannot be trained, and warns of probable mistakes.

    Args:
        recipe: What is trained. With `subprocess` the check runs in a process of its own, too.
        make: Builds environments.
        check: Whether episodes are run to find defects.

    Raises:
        ValueError: If the environment does not take its options, lacks goals that the recipe
            demands, or has errors.
    """
    try:
        env = make(recipe.env, **recipe.env_options)
    except TypeError as error:
        raise ValueError(
            f"{recipe.env} does not take env_options {recipe.env_options}: {error}"
        ) from error
    space = env.observation_space
    with contextlib.suppress(Exception):  # the check reports it
        env.close()
    if recipe.goals is True and not is_goal_space(space):
        raise ValueError(
            f"{recipe.env} has no goals: its observation space is {space}. Give it goals with "
            f"rlkit.goals.GoalWrapper, or train without hindsight: --set goals=auto"
        )
    if check:
        _report(recipe, _findings(recipe, make))


def _report(recipe: Recipe, findings: list[Finding]) -> None:
    if errors(findings):
        raise ValueError(
            f"{recipe.env} cannot be trained as it is:\n{grouped(findings, ('error', 'warning'))}\n"
            f"Correct it, and see `rlkit check-env {recipe.env}`; or train anyway with "
            f"--set check_env=false."
        )
    suspicious = grouped(findings, ("warning",))
    if suspicious:
        warnings.warn(
            f"{recipe.env} is trained, but look at this:\n{suspicious}\n"
            f"`rlkit check-env {recipe.env}` shows all; --set check_env=false skips this check.",
            stacklevel=2,
        )


def _findings(recipe: Recipe, make: MakeEnv) -> list[Finding]:
    replay = recipe.agent_options.get("replay")
    # What the option announces is no finding.
    keeps_terms = isinstance(replay, dict) and bool(replay.get("further_terms"))
    announced = ("reward", "reward range") if keeps_terms else ()
    return [one for one in _all_findings(recipe, make) if one.law not in announced]


def _all_findings(recipe: Recipe, make: MakeEnv) -> list[Finding]:
    build = functools.partial(
        make_repeating, make, recipe.action_repeat, recipe.env, **recipe.env_options
    )
    if not recipe.subprocess:
        return _short_check(build)
    # An environment that may crash or hang must not take the training with it.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_send_findings, args=(sender, CloudpickleWrapper(build)), daemon=True
    )
    process.start()
    sender.close()
    limit = _START_SECONDS + _SECONDS + recipe.worker_timeout_s
    lost = f"the process of the check gave no answer for {limit:g} s"
    try:
        if receiver.poll(limit):
            found: list[Finding] = receiver.recv()
            return found
    except EOFError:
        process.join()
        lost = f"the process of the check ended with code {process.exitcode}"
    finally:
        process.kill()
        process.join()
        receiver.close()
    return [Finding("warning", "crash", f"{lost}; in training, lost processes are replaced")]


def _short_check(build: functools.partial[gym.Env[Any, Any]]) -> list[Finding]:
    return check_env(build, episodes=_EPISODES, steps=_STEPS, seconds=_SECONDS)


def _send_findings(sender: Connection, build: CloudpickleWrapper) -> None:
    sender.send(_short_check(build.var))
