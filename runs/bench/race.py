"""Races to a score: steps and seconds of training until held-out episodes reach it.

All contestants are examined on the same held-out episodes at the same rhythm, one thread each, one
after the other; the clock counts collecting and learning, not examining.
"""

from __future__ import annotations

import contextlib
import json
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
from rlkit.offpolicy.interface import rule_of
from rlkit.plugins import AGENTS
from rlkit.vec.vec_env import make_vec_env


@dataclass(frozen=True)
class Track:
    """What is to be reached, and how often that is looked at.

    Attributes:
        env: Id of the environment.
        score: What counts of an evaluation: "success_rate" or "return_mean".
        goal: The score to reach.
        every: Environment steps between looks.
        episodes: How many are played in a look.
    """

    env: str
    score: str
    goal: float
    every: int
    episodes: int = 100


class ReachedError(Exception):
    """Training may end."""


class Examiner:
    """Counts training time only, and keeps the curve.

    Args:
        track: What is to be reached.
        seed: Of the contestant's training; its episodes follow from it.
    """

    def __init__(self, track: Track, seed: int) -> None:
        self._track, self._seed, self._next = track, seed, track.every
        self._spent = 0.0
        self._envs = make_vec_env(make, track.env, 4)
        self._rule = rule_of(self._envs)
        self.curve: list[dict[str, float]] = []
        self._began = time.perf_counter()

    def look(self, step: int, policy: Any) -> None:
        """Examines a policy if it is time to.

        Raises:
            ReachedError: If it reaches the score.
        """
        if step < self._next:
            return
        self._next += self._track.every
        self._spent += time.perf_counter() - self._began
        track = self._track
        result = evaluate(policy, self._envs, track.episodes, TEST_SEED + self._seed, self._rule)
        score = float(getattr(result, track.score))
        self.curve.append({"step": step, "score": score, "seconds": round(self._spent, 3)})
        print(f"  step {step:7,} {score:9.3g} {self._spent:7.2f} s", file=sys.stderr)
        if score >= self._track.goal:
            raise ReachedError
        self._began = time.perf_counter()

    def facts(self, name: str) -> dict[str, Any]:
        """What came of the contestant `name`."""
        last = self.curve[-1]
        there = last["score"] >= self._track.goal
        return {
            "name": name,
            "seed": self._seed,
            "solved": there,
            "steps": last["step"] if there else None,
            "seconds": last["seconds"] if there else None,
            "curve": self.curve,
        }


class _Scaled:
    """A policy behind its own observation scaling, so that all see raw observations."""

    def __init__(self, agent: Any, scale: VecNormalize) -> None:
        self._agent, self._scale = agent, scale

    def predict(self, observation: Any, *arguments: Any, **named: Any) -> Any:
        """Its actions for raw observations."""
        return self._agent.predict(self._scale.normalize_obs(observation), *arguments, **named)


class _Look(BaseCallback):
    """Lets the examiner look after every step."""

    def __init__(self, examiner: Examiner, scale: VecNormalize | None) -> None:
        super().__init__()
        self._examiner, self._scale = examiner, scale

    def _on_step(self) -> bool:
        policy = self.model if self._scale is None else _Scaled(self.model, self._scale)
        self._examiner.look(self.num_timesteps, policy)
        return True


def run_peer(
    name: str, agent: Any, steps: int, track: Track, seed: int, scale: VecNormalize | None = None
) -> dict[str, Any]:
    """Trains an agent of Stable-Baselines3's kind until it is there, or for `steps`."""
    examiner = Examiner(track, seed)
    with contextlib.suppress(ReachedError):
        agent.learn(steps, callback=_Look(examiner, scale))
    return examiner.facts(name)


def run_ours(recipe_name: str, track: Track, seed: int) -> dict[str, Any]:
    """Trains a shipped recipe, by the same interface that peers are used through."""
    recipe = load_recipe(recipe_name)
    env = make_vec_env(make, recipe.env, recipe.num_envs, seed)
    policy = "MlpPolicy" if rule_of(env) is None else "MultiInputPolicy"
    agent = AGENTS.load(recipe.agent)(policy, env, seed=seed, **recipe.agent_options)
    examiner = Examiner(track, seed)
    rounds: Iterator[int] = agent.iterate(recipe.steps)
    with contextlib.suppress(ReachedError):
        for step in rounds:
            examiner.look(step, agent)
    return examiner.facts("ours")


def race(
    contestants: Sequence[tuple[str, Sequence[int], Callable[[int], dict[str, Any]]]],
) -> dict[str, Any]:
    """Runs every contestant on each of its seeds; what came of it, ours against each other.

    Args:
        contestants: Name, seeds, and what trains one of them; "ours" is among them.
    """
    runs = []
    for name, seeds, train in contestants:
        for seed in seeds:
            print(f"{name}, seed {seed}", file=sys.stderr)
            runs.append(train(seed))
    medians = {}
    for name, seeds, _ in contestants:
        # One that does not get there has no time; it counts as the slowest.
        spent = [run["seconds"] or np.inf for run in runs if run["name"] == name]
        if seeds and np.isfinite(np.median(spent)):
            medians[name] = float(np.median(spent))
    times = {name: medians[name] / medians["ours"] for name in medians if name != "ours"}
    return {"median_seconds": medians, "times_faster": times, "runs": runs}


def write(outcome: dict[str, Any], packages: Sequence[str], path: Path | None) -> None:
    """Prints an outcome with the versions of packages as JSON, and writes it to a file if asked."""
    versions = {name: version(name) for name in packages} | {"python": platform.python_version()}
    text = json.dumps({"versions": versions} | outcome, indent=1)
    print(text)
    if path:
        path.write_text(text + "\n")
