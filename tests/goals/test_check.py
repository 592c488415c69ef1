from __future__ import annotations

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from defective_envs import (
    CrashesAtBound,
    EarlyReward,
    GoalShapes,
    HugeReward,
    Line,
    NeverEnds,
    OutOfBounds,
    StaleObservation,
    TerminatesUnruled,
    UnbatchedRule,
)
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from rlkit.goals import DistanceRule, GoalWrapper
from rlkit.goals.check import check_env
from rlkit.goals.findings import Finding


@pytest.mark.parametrize(("delay", "excused"), [(0, False), (1, True)])
def test_only_what_says_that_it_is_late_may_be(delay: int, excused: bool) -> None:
    env = StaleObservation()
    env.observation_delay = delay
    laws = {problem.law for problem in check_env(lambda: env)}
    assert ("stale observation" in laws) != excused


def test_a_sound_environment_has_no_problems() -> None:
    assert [p.law for p in check_env(Line)] == ["no rendering"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutant", "words"),
    [
        (OutOfBounds, ["step 20", "observation", "shape (2,)", "clip"]),
        (HugeReward, ["1e+12", "scale it down"]),
        (CrashesAtBound, ["OverflowError: motor", "[1., 1.]"]),
        (EarlyReward, ["that of the goal before it"]),
        (TerminatesUnruled, ["no compute_terminated", "terminates=True"]),
        (UnbatchedRule, ["()", "axis=-1"]),
        (NeverEnds, ["2000", "max_episode_steps"]),
        (GoalShapes, ["(2,)", "(1,)"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_messages_name_the_value_and_the_fix(mutant: type[Line], words: list[str]) -> None:
    text = "\n".join(problem.message for problem in check_env(mutant))
    assert [word for word in words if word not in text] == []


def test_a_plain_environment_gets_a_note_on_goals() -> None:
    goals = [p for p in check_env(lambda: gym.make("CartPole-v1")) if p.law == "no goals"]
    assert goals[0].level == "note"
    assert "GoalWrapper" in goals[0].message


def test_a_plain_defective_environment_is_checked_too() -> None:
    class Plain(gym.Env[Any, Any]):
        observation_space = spaces.Box(-1.0, 1.0, (1,), np.float64)
        action_space = spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            return np.zeros(1), {}

        def step(self, action: Any) -> Any:
            return np.full(1, 0.1), 0.0, True, False, {}

    assert "action effect" in {p.law for p in check_env(Plain)}


def test_a_wrapped_environment_with_goals_is_sound() -> None:
    env = GoalWrapper(
        TimeLimit(gym.make("Pendulum-v1").unwrapped, 40),
        achieved=lambda observation: observation[:2],
        rule=DistanceRule(0.3),
        goal_space=spaces.Box(-1.0, 1.0, (2,), np.float32),
    )
    assert [p for p in check_env(lambda: env) if p.level != "note"] == []


def test_the_checker_leaves_global_generators_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]  # noqa: NPY002
    check_env(Line)
    after = np.random.get_state()[1]  # type: ignore[index]  # noqa: NPY002
    np.testing.assert_array_equal(before, after)


def test_findings_are_plain_values() -> None:
    finding = Finding("note", "reward", "too late", "Boat.step (harbour.py:25)")
    assert pickle.loads(pickle.dumps(finding)) == finding
    assert str(finding) == "note [reward] Boat.step (harbour.py:25): too late"


def test_no_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        check_env(lambda: Line(), episodes=0)
