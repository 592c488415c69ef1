"""Steps and seconds of training until held-out episodes reach a score.

All candidates are evaluated on the same held-out episodes at the same intervals, on one thread
each, one after the other. Time counts collecting and learning, not evaluation.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize

from rlkit.envs.make import make
from rlkit.experiment.evaluate import TEST_SEED, evaluate
from rlkit.experiment.recipe import load_recipe
from rlkit.offpolicy.spaces import rule_of
from rlkit.plugins import AGENTS
from rlkit.vec.vec_env import make_vec_env


@dataclass(frozen=True)
class Target:
    """The score to reach, and how often it is evaluated.

    Attributes:
        env: Id of the environment.
        metric: Metric of an evaluation: "success_rate" or "return_mean".
        score: Value of the metric that ends training.
        every: Environment steps between evaluations.
        episodes: Episodes per evaluation.
        minutes: Time for collecting and learning after which a training ends without the score.
    """

    env: str
    metric: str
    score: float
    every: int
    episodes: int = 100
    minutes: float = math.inf


class TrainingEndedError(Exception):
    """Ends a training."""


class Stopwatch:
    """Evaluates a policy during its training; counts only the time between evaluations.

    Args:
        target: The score to reach.
        seed: Seed of the training; the held-out episodes follow from it.
        action_repeat: Steps for which the policy's actions are held.
    """

    def __init__(self, target: Target, seed: int, action_repeat: int = 1) -> None:
        self._target, self._seed, self._next = target, seed, target.every
        self._spent = 0.0
        self._envs = make_vec_env(make, target.env, 4, action_repeat=action_repeat)
        self._rule = rule_of(self._envs)
        self.curve: list[dict[str, float]] = []
        self._began = time.perf_counter()

    def evaluate(self, step: int, policy: Any) -> None:
        """Evaluates a policy if an evaluation is due.

        Raises:
            TrainingEndedError: If it reaches the score, or its time is over.
        """
        if step < self._next:
            return
        self._next += self._target.every
        self._spent += time.perf_counter() - self._began
        target = self._target
        result = evaluate(policy, self._envs, target.episodes, TEST_SEED + self._seed, self._rule)
        score = float(getattr(result, target.metric))
        self.curve.append({"step": step, "score": score, "seconds": round(self._spent, 3)})
        print(f"  step {step:7,} {score:9.3g} {self._spent:7.2f} s", file=sys.stderr)
        if score >= target.score or self._spent > 60 * target.minutes:
            raise TrainingEndedError
        self._began = time.perf_counter()

    def result(self, name: str) -> dict[str, Any]:
        """The result of the candidate `name`."""
        last = self.curve[-1]
        is_reached = last["score"] >= self._target.score
        return {
            "name": name,
            "seed": self._seed,
            "solved": is_reached,
            "steps": last["step"] if is_reached else None,
            "seconds": last["seconds"] if is_reached else None,
            "curve": self.curve,
        }


class _Scaled:
    """A policy with its own observation scaling, so that it takes raw observations."""

    def __init__(self, agent: Any, scale: VecNormalize) -> None:
        self._agent, self._scale = agent, scale

    def predict(self, observation: Any, *arguments: Any, **named: Any) -> Any:
        """Its actions for raw observations."""
        return self._agent.predict(self._scale.normalize_obs(observation), *arguments, **named)


class _EvaluationCallback(BaseCallback):
    """Calls the stopwatch after every step."""

    def __init__(self, stopwatch: Stopwatch, scale: VecNormalize | None) -> None:
        super().__init__()
        self._stopwatch, self._scale = stopwatch, scale

    def _on_step(self) -> bool:
        policy = self.model if self._scale is None else _Scaled(self.model, self._scale)
        self._stopwatch.evaluate(self.num_timesteps, policy)
        return True


def run_peer(
    name: str, agent: Any, steps: int, target: Target, seed: int, scale: VecNormalize | None = None
) -> dict[str, Any]:
    """Trains an agent of another library until it reaches the score, or for `steps`."""
    stopwatch = Stopwatch(target, seed)
    with contextlib.suppress(TrainingEndedError):
        agent.learn(steps, callback=_EvaluationCallback(stopwatch, scale))
    return stopwatch.result(name)


def run_ours(recipe_name: str, target: Target, seed: int) -> dict[str, Any]:
    """Trains a shipped recipe through the Python interface."""
    recipe = load_recipe(recipe_name)
    repeat = recipe.action_repeat
    env = make_vec_env(make, recipe.env, recipe.num_envs, seed, action_repeat=repeat)
    policy = "MlpPolicy" if rule_of(env) is None else "MultiInputPolicy"
    agent = AGENTS.load(recipe.agent)(policy, env, seed=seed, **recipe.agent_options)
    stopwatch = Stopwatch(target, seed, repeat)
    rounds: Iterator[int] = agent.iterate(recipe.steps)
    with contextlib.suppress(TrainingEndedError):
        for step in rounds:
            stopwatch.evaluate(step, agent)
    return stopwatch.result("ours")


def compare(
    candidates: Sequence[tuple[str, Sequence[int], Callable[[int], dict[str, Any]]]],
) -> dict[str, Any]:
    """Trains every candidate on each of its seeds and compares the median seconds.

    Args:
        candidates: Name, seeds, and a function that trains one seed; "ours" is among them.
    """
    runs = []
    for name, seeds, train in candidates:
        for seed in seeds:
            print(f"{name}, seed {seed}", file=sys.stderr)
            runs.append(train(seed))
    medians = {}
    for name, seeds, _ in candidates:
        # A run that does not reach the score counts as the slowest.
        spent = [run["seconds"] or np.inf for run in runs if run["name"] == name]
        if seeds and np.isfinite(np.median(spent)):
            medians[name] = float(np.median(spent))
    times = {name: medians[name] / medians["ours"] for name in medians if name != "ours"}
    return {"median_seconds": medians, "times_faster": times, "runs": runs}


def write(outcome: dict[str, Any], packages: Sequence[str], path: Path | None) -> None:
    """Prints an outcome with package versions as JSON; also writes it to `path` if given."""
    versions = {name: version(name) for name in packages} | {"python": platform.python_version()}
    text = json.dumps({"versions": versions} | outcome, indent=1)
    print(text)
    if path:
        path.write_text(text + "\n")
