"""Evaluation of an agent on held-out episodes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from rlkit.experiment.stop_requests import StopRequest
from rlkit.goals import STEPS_TAKEN, GoalRule, is_goal_space
from rlkit.goals.failure import NonFiniteError
from rlkit.vec.checked_vec_env import require_finite_actions
from rlkit.vec.workers import row_of

EVALUATION_SEED = 1_000_000
"""EpisodeResult i of an evaluation during training starts with this plus the run's seed plus i."""
TEST_SEED = 2_000_000
"""The same for the evaluation at the end and for `rlkit eval`; training never uses these seeds."""
MAX_STEPS = 10_000
"""Steps after which an episode of an evaluation counts as a failure, unless told otherwise."""
_TOO_EASY = 10  # give up when so many times the wanted episodes start at their goal


class EvaluationStopped(Exception):
    """A stop was requested during an evaluation, and has no result."""


class Predicts(Protocol):
    """What can be evaluated: a policy with the signature of Stable-Baselines3's."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """Actions `(N, *action)` and the next hidden state for observations `(N, ...)`."""


@dataclass(frozen=True)
class EpisodeResult:
    """One evaluated episode; the goals are None without goal keys.

    Attributes:
        seed: What the environment was reset with.
        success: Whether the goal was reached at the last step.
        start: The goal achieved at the start `(G,)`.
        goal: The desired goal `(G,)`.
        final: The goal achieved at the end `(G,)`.
        ended: Whether it ended by itself, within the step limit of the evaluation.
    """

    seed: int
    length: int
    return_: float
    success: bool | None
    start: NDArray[Any] | None = None
    goal: NDArray[Any] | None = None
    final: NDArray[Any] | None = None
    ended: bool = True


@dataclass(frozen=True)
class EvaluationResult:
    """The results of held-out episodes, and their statistics.

    Attributes:
        rows: The episodes, in the order of their seeds.
        excluded: Episodes left out because their start satisfied the goal already.
    """

    rows: list[EpisodeResult]
    excluded: int

    @property
    def success_rate(self) -> float | None:
        """Share of episodes whose last step satisfies the goal; None where success is unknown."""
        known = [row.success for row in self.rows if row.success is not None]
        return sum(known) / len(known) if known else None

    @property
    def return_mean(self) -> float:
        """Mean undiscounted return."""
        return float(np.mean([row.return_ for row in self.rows]))

    def summary(self) -> dict[str, Any]:
        """The result as plain data."""
        rate, count = self.success_rate, len(self.rows)
        unfinished = sum(not row.ended for row in self.rows)
        return {
            "episodes": count,
            "success_rate": rate,
            "success_ci95": None if rate is None else list(wilson(round(rate * count), count)),
            "return_mean": self.return_mean,
            "return_std": float(np.std([row.return_ for row in self.rows])),
            "length_mean": float(np.mean([row.length for row in self.rows])),
            "excluded_starts": self.excluded,
            **({"unfinished": unfinished} if unfinished else {}),
        }


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a share.

    Unlike the normal approximation it stays in [0, 1] and is honest at 0 and at all successes.
    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    z = 1.959963984540054
    share = successes / trials
    scale = 1 + z**2 / trials
    centre = (share + z**2 / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / scale
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def evaluate(
    agent: Predicts,
    venv: VecEnv,
    episodes: int,
    seed: int,
    rule: GoalRule | None = None,
    stop: StopRequest | None = None,
    max_steps: int = MAX_STEPS,
) -> EvaluationResult:
    """Evaluates a policy on held-out episodes with deterministic actions.

    Every seed is used once and its episode runs to the end, so short episodes are not favoured. An
    episode whose start satisfies the goal is left out and replaced by that of the next seed.

    Args:
        agent: The policy.
        venv: Environments side by side; each wave reseeds all of them.
        episodes: How many to count.
        seed: Seed of the first episode; the others follow one by one.
        rule: Finds starts that satisfy their goal, and success where infos hold no `is_success`.
        stop: Ends the evaluation without a result once it is set.
        max_steps: An episode that has not ended after so many steps is cut off there, with a
            warning, and counts as a failure.

    Raises:
        EvaluationStopped: If `stop` is set.
        ValueError: If nearly every start satisfies its goal.
        FloatingPointError: If the agent's action is not finite.
        NonFiniteError: If a reward is not finite.
    """
    rows: list[EpisodeResult] = []
    excluded = 0
    while len(rows) < episodes:
        if excluded > _TOO_EASY * episodes:
            raise ValueError(
                f"{excluded} of {excluded + len(rows)} starts satisfied their goal already; "
                f"an evaluation would be meaningless. Draw goals further from the start."
            )
        for row, is_solved in _play_wave(
            agent, venv, seed + len(rows) + excluded, rule, stop, max_steps
        ):
            if len(rows) == episodes:
                break
            if is_solved:
                excluded += 1
            else:
                rows.append(row)
    unfinished = sum(not row.ended for row in rows)
    if unfinished:
        warnings.warn(
            f"{unfinished} of {episodes} episodes did not end: each was cut off after {max_steps} "
            f"steps and counts as a failure. Register the environment with max_episode_steps, or "
            f"set evaluation.max_steps",
            stacklevel=2,
        )
    return EvaluationResult(rows, excluded)


def _play_wave(
    agent: Predicts,
    venv: VecEnv,
    seed: int,
    rule: GoalRule | None,
    stop: StopRequest | None,
    max_steps: int,
) -> Iterator[tuple[EpisodeResult, bool]]:
    """One episode per environment, and whether its start satisfied the goal."""
    n = venv.num_envs
    venv.seed(seed)
    observation: Any = venv.reset()
    has_goals = is_goal_space(venv.observation_space)
    first = np.array(observation["achieved_goal"]) if has_goals else np.empty(n)
    solved = _solved_starts(observation, venv.reset_infos, rule)
    returns, lengths = np.zeros(n), np.zeros(n, np.int64)
    finals: list[Any] = [None] * n
    successes: list[bool | None] = [None] * n
    running = ~solved
    starts, hidden_state = np.ones(n, bool), None
    while running.any() and lengths.max() < max_steps:
        if stop is not None and stop.is_set():
            raise EvaluationStopped
        actions, hidden_state = agent.predict(observation, hidden_state, starts, deterministic=True)
        require_finite_actions(actions)
        observation, rewards, dones, infos = venv.step(actions)
        _require_finite(rewards, seed)
        starts = np.asarray(dones, bool)
        returns[running] += rewards[running]
        for i in np.flatnonzero(running).tolist():
            lengths[i] += infos[i].get(STEPS_TAKEN, 1)
        for i in np.flatnonzero(running & (starts | (lengths >= max_steps))).tolist():
            finals[i] = infos[i]["terminal_observation"] if starts[i] else row_of(observation, i)
            success = is_successful(infos[i], finals[i], rule)
            successes[i] = success and bool(starts[i])
        running &= ~starts
    for i in range(n):
        length, ended = int(lengths[i]), not running[i]
        episode = EpisodeResult(seed + i, length, float(returns[i]), successes[i], ended=ended)
        if has_goals and not solved[i]:
            goal, final = (np.array(finals[i][key]) for key in ("desired_goal", "achieved_goal"))
            episode = replace(episode, start=first[i], goal=goal, final=final)
        yield episode, bool(solved[i])


def _require_finite(rewards: NDArray[Any], seed: int) -> None:
    bad = np.flatnonzero(~np.isfinite(rewards))
    if len(bad):
        raise NonFiniteError(
            f"the reward {rewards[bad[0]]} of the episode with seed {seed + int(bad[0])} is not "
            f"finite; `rlkit check-env` helps to find the cause in the environment"
        )


def _solved_starts(
    observation: Any, infos: list[dict[str, Any]], rule: GoalRule | None
) -> NDArray[np.bool_]:
    if rule is not None:
        solved = rule.success(observation["achieved_goal"], observation["desired_goal"])
        return np.asarray(solved, bool)
    return np.array([bool(info.get("is_success", False)) for info in infos])


def is_successful(info: dict[str, Any], observation: Any, rule: GoalRule | None) -> bool | None:
    """Whether the goal is reached after a step: by its info, else by the rule, else unknown."""
    if "is_success" in info:
        return bool(info["is_success"])
    if rule is None:
        return None
    pair = (np.asarray(observation[key])[None] for key in ("achieved_goal", "desired_goal"))
    achieved, desired = pair
    return bool(rule.success(achieved, desired)[0])
