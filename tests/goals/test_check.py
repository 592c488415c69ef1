from __future__ import annotations

import pickle
import time
from dataclasses import dataclass
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
from rlkit.goals.findings import Finding, grouped


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
        (OutOfBounds, ["step 20", "observation: component 0 is", "the bounds -1 to 1 of", "clip"]),
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
    text = "\n".join(problem.message for problem in check_env(mutant, steps=100))
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


def test_an_environment_in_place_of_what_builds_one_is_refused() -> None:
    with pytest.raises(TypeError, match="such as Line or lambda: gymnasium"):
        check_env(Line())  # type: ignore[arg-type]


def test_no_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        check_env(lambda: Line(), episodes=0)


class Recall(gym.Env[Any, Any]):
    """The action is answered by the reward alone, and every episode has the same length."""

    def __init__(self) -> None:
        self.observation_space = spaces.Dict(card=spaces.Discrete(2), seat=spaces.Discrete(3))
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.cards = self.np_random.integers(2, size=11)
        self.cards[1] = self.cards[0]  # looks like a late observation
        self.steps = 0
        return self.observe(), {}

    def observe(self) -> Any:
        return {"card": int(self.cards[self.steps]), "seat": 0}

    def step(self, action: Any) -> Any:
        right = action == self.cards[self.steps]
        self.steps += 1
        return self.observe(), float(right), self.steps == 10, False, {}


class Walled(gym.Env[Any, Any]):
    """Most first actions run into a wall, and change nothing."""

    observation_space = spaces.Box(0.0, 9.0, (1,), np.float32)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.at = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.at += int(action == 3)
        return np.full(1, self.at, np.float32), 0.0, self.at == 9, False, {}


def levels(findings: list[Finding]) -> dict[str, str]:
    return {finding.law: finding.level for finding in findings}


def test_fixed_lengths_and_actions_that_only_earn_rewards_are_no_errors() -> None:
    found = levels(check_env(Recall))
    assert found["timeout"] == "warning"
    assert "action effect" not in found
    assert "error" not in found.values()


def test_an_observation_is_stale_only_if_no_first_action_changes_it() -> None:
    for seed in range(8):
        findings = check_env(Walled, seed=seed, episodes=1, steps=50)
        assert "stale observation" not in levels(findings)
    assert "stale observation" in levels(check_env(Recall))  # its second card is always the first


class Handle:
    """A simulator that breaks when a copy of it is dropped."""

    def __init__(self) -> None:
        self.dropped: list[int] = []

    def __getstate__(self) -> Any:
        self.dropped.append(1)
        return {}

    def __del__(self) -> None:
        self.dropped = []


@dataclass(frozen=True)
class RuleWithHandle(DistanceRule):
    handle: Any = None


def test_a_rule_that_holds_something_live_is_not_pickled() -> None:
    handles = []

    class Simulated(Line):
        def __init__(self) -> None:
            super().__init__()
            handles.append(Handle())
            self.rule = RuleWithHandle(0.3, terminates=True, handle=[handles[-1]])

    found = [one for one in check_env(Simulated) if one.law == "pickle"]
    assert found[0].message.startswith("rule.handle[0] holds a Handle")
    assert all(handle.dropped == [] for handle in handles)


class OwnReward(Line):
    """Has `compute_reward` alone, as most environments of others."""

    def __init__(self) -> None:
        super().__init__()
        self.distance = self.rule
        del self.rule

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any = None) -> Any:
        return self.distance.reward(np.atleast_2d(achieved_goal), np.atleast_2d(desired_goal))

    compute_terminated: Any = None

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.move(action)
        reward = self.compute_reward(self.position, self.goal, [{}])[0]
        return self.observe(), float(reward), False, self.steps >= 20, {}


class ArrayOfInfos(OwnReward):
    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any = None) -> Any:
        assert all(one.get("x") is None for one in info)
        assert len(info) == len(np.atleast_2d(achieved_goal))
        return super().compute_reward(achieved_goal, desired_goal)


class NeedsInfo(OwnReward):
    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any = None) -> Any:
        scale = 1.0 if isinstance(info, list) else info["scale"]
        return scale * super().compute_reward(achieved_goal, desired_goal)


def test_compute_reward_alone_is_enough() -> None:
    for kind in (OwnReward, ArrayOfInfos):
        found = levels(check_env(kind))
        assert found.pop("live rule") == "note"
        assert set(found) == {"no rendering"}


def test_a_reward_of_infos_is_refused_in_one_sentence() -> None:
    (found,) = [one for one in check_env(NeedsInfo) if one.level == "error"]
    assert "needs info['scale'], which is unknown for goals that were not pursued" in found.message
    assert found.where.startswith("NeedsInfo.compute_reward (tests/goals/test_check.py:")


def test_the_check_ends_in_time_and_says_what_it_left_out() -> None:
    class Slow(Line):
        def step(self, action: Any) -> Any:
            time.sleep(0.02)
            return super().step(action)

    started = time.monotonic()
    (found,) = [one for one in check_env(Slow, seconds=0.2) if one.law == "length"]
    assert time.monotonic() - started < 2.0
    assert found.level == "note"
    assert found.message.startswith("the check stopped after 0.2 s")


def test_an_environment_that_can_be_built_once_is_checked_alone() -> None:
    built = []

    class Single(Line):
        def __init__(self) -> None:
            super().__init__()
            if built:
                raise OSError("the port is taken")
            built.append(self)

    found = {one.law: one for one in check_env(Single)}
    assert found["second instance"].level == "warning"
    assert "OSError: the port is taken" in found["second instance"].message
    assert "Single.__init__ (tests/goals/test_check.py:" in found["second instance"].where


def test_spaces_that_agents_cannot_hold_are_one_error() -> None:
    class Told(Recall):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Sequence(spaces.Discrete(2))  # type: ignore[assignment]

    (found,) = [one for one in check_env(Told) if one.level == "error"]
    assert "sequence_length" in found.message
    assert found.where.startswith("Told.__init__ (tests/goals/test_check.py:")


def test_findings_are_grouped_by_level_and_name_the_user_s_own_wrapper() -> None:
    class Shifted(gym.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            observation, reward, *rest = self.env.step(action)
            return observation, float(reward) - 0.5, *rest

    findings = check_env(lambda: TimeLimit(Shifted(Line()), 25))
    lines = grouped(findings).splitlines()
    assert lines[0] == "2 warnings (probably a mistake, but it can be trained)"
    assert lines[1].startswith("  [reward] ")
    assert "Shifted.step (tests/goals/test_check.py:" in lines[1]
    assert lines[3] == "1 note (for information)"
    assert len(lines) == 5
