"""A sound environment with goals, and copies of it with one defect each."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from rlkit.goals import DistanceRule, GoalEnv

LIMIT = 30
FRESH = itertools.count()


class Line(GoalEnv[Any]):
    """A sound environment: a point on a plane is pushed about; the mutants below break it."""

    observation_space: spaces.Space[Any]

    def __init__(self) -> None:
        self.rule = DistanceRule(0.3, terminates=True)
        box = spaces.Box(-1.0, 1.0, (2,), np.float64)
        self.observation_space = spaces.Dict(
            observation=spaces.Box(-1.0, 1.0, (2,), np.float64), achieved_goal=box, desired_goal=box
        )
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        self.position = self.np_random.uniform(-1, 1, 2)
        self.goal = self.np_random.uniform(-1, 1, 2)
        return self.observe(), {}

    def move(self, action: Any) -> None:
        self.position = np.clip(self.position + 0.1 * action, -1, 1)

    def observe(self) -> Any:
        return {
            "observation": self.position.copy(),
            "achieved_goal": self.position.copy(),
            "desired_goal": self.goal.copy(),
        }

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.move(action)
        pair = self.position[None], self.goal[None]
        info = {"is_success": bool(self.rule.success(*pair)[0])}
        ends = bool(self.rule.terminated(*pair)[0]), self.steps >= LIMIT
        return self.observe(), float(self.rule.reward(*pair)[0]), *ends, info


class Late(Line):
    """Breaks the outcome of the 20th step of an episode."""

    def step(self, action: Any) -> Any:
        outcome = list(super().step(action))
        if self.steps == 20:
            self.spoil(outcome)
        return tuple(outcome)

    def spoil(self, outcome: list[Any]) -> None:
        raise NotImplementedError


class OutOfBounds(Late):
    def spoil(self, outcome: list[Any]) -> None:
        outcome[0]["observation"] += 5.0


class NanObservation(Late):
    def spoil(self, outcome: list[Any]) -> None:
        outcome[0]["observation"][0] = np.nan


class NanReward(Late):
    def spoil(self, outcome: list[Any]) -> None:
        outcome[1] = float("nan")


class OtherShape(Late):
    def spoil(self, outcome: list[Any]) -> None:
        outcome[0]["observation"] = np.zeros(3)


class OtherType(Late):
    def spoil(self, outcome: list[Any]) -> None:
        outcome[0]["observation"] = outcome[0]["observation"].astype(np.longdouble)


class MissingKey(Late):
    def spoil(self, outcome: list[Any]) -> None:
        del outcome[0]["observation"]


class HugeReward(Late):
    def spoil(self, outcome: list[Any]) -> None:
        outcome[1] = 1e12


class ArrayReward(Late):
    def spoil(self, outcome: list[Any]) -> None:
        outcome[1] = np.zeros(1)


class NumberEnds(Late):
    def spoil(self, outcome: list[Any]) -> None:
        outcome[2] = 0


class CounterKeeps(Line):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        kept = getattr(self, "steps", 0)
        observation = super().reset(seed=seed)
        self.steps = kept
        return observation


class NeverEnds(Line):
    def step(self, action: Any) -> Any:
        observation, reward, _, _, info = super().step(action)
        return observation, reward, False, False, info

    def __init__(self) -> None:
        super().__init__()
        self.rule = DistanceRule(0.3)


class WritesAction(Line):
    def move(self, action: Any) -> None:
        action *= 0.5
        super().move(action)


class IgnoresAction(Line):
    def move(self, action: Any) -> None:
        super().move(np.array([0.1, -0.2]))


class CrashesAtBound(Line):
    def move(self, action: Any) -> None:
        if (action == 1.0).all():
            raise OverflowError("motor")
        super().move(action)


class TimeoutTerminates(Line):
    def __init__(self) -> None:
        super().__init__()
        self.rule = DistanceRule(0.3)

    def step(self, action: Any) -> Any:
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, truncated, False, info


class DeadSensor(Line):
    def observe(self) -> Any:
        observation = super().observe()
        observation["observation"][1] = 0.25
        return observation


@dataclass(frozen=True)
class HoldingRule(DistanceRule):
    holds: Any = None


class UnpicklableRule(Line):
    def __init__(self) -> None:
        super().__init__()
        self.rule = HoldingRule(0.3, terminates=True, holds=lambda: self)


class IgnoresSeed(Line):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=next(FRESH) + 1000)


class GlobalNoise(Line):
    def move(self, action: Any) -> None:
        super().move(action + np.random.normal(size=2))  # noqa: NPY002


class AliasedBuffer(Line):
    def observe(self) -> Any:
        self.buffer = getattr(self, "buffer", np.zeros(2))
        self.buffer[:] = self.position
        return super().observe() | {"observation": self.buffer}


class LeakingState(Line):
    drift = 0.0

    def move(self, action: Any) -> None:
        self.drift += 0.01
        super().move(action + self.drift)


class StaleObservation(Line):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        observation = super().reset(seed=seed)
        self.last = super().observe()
        return observation

    def step(self, action: Any) -> Any:
        _, *outcome = super().step(action)
        last, self.last = self.last, self.observe()
        return last, *outcome


class EarlyReward(Line):
    def step(self, action: Any) -> Any:
        early = float(self.rule.reward(self.position[None], self.goal[None])[0])
        observation, _, *outcome = super().step(action)
        return observation, early, *outcome


class OtherReward(Line):
    def step(self, action: Any) -> Any:
        observation, reward, *outcome = super().step(action)
        return observation, reward - 0.5, *outcome


@dataclass(frozen=True)
class WholeBatchRule(DistanceRule):
    def reward(self, achieved: Any, desired: Any) -> Any:
        return -np.float64(np.linalg.norm(achieved - desired) > self.threshold)


class UnbatchedRule(Line):
    def __init__(self) -> None:
        super().__init__()
        self.rule = WholeBatchRule(0.3, terminates=True)

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.move(action)
        pair = self.position[None], self.goal[None]
        reached = bool(self.rule.success(*pair)[0])
        return self.observe(), float(reached) - 1.0, reached, self.steps >= LIMIT, {}


@dataclass(frozen=True)
class MixingRule(DistanceRule):
    def reward(self, achieved: Any, desired: Any) -> Any:
        rows = super().reward(achieved, desired)
        return rows if len(set(map(tuple, desired))) == 1 else np.full_like(rows, rows.max())


class MixesRows(Line):
    def __init__(self) -> None:
        super().__init__()
        self.rule = MixingRule(0.3, terminates=True)


class UnbatchedCompute(Line):
    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any = None) -> Any:
        return -float(np.linalg.norm(achieved_goal - desired_goal) > 0.3)


class TerminatesUnruled(Line):
    def __init__(self) -> None:
        super().__init__()
        self.rule = DistanceRule(0.3)

    def step(self, action: Any) -> Any:
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, info["is_success"], truncated, info


class RuleTerminatesAlone(Line):
    def step(self, action: Any) -> Any:
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, False, truncated, info


class WrongSuccess(Line):
    def step(self, action: Any) -> Any:
        *outcome, info = super().step(action)
        return *outcome, {"is_success": not info["is_success"]}


class GoalShapes(Line):
    def __init__(self) -> None:
        super().__init__()
        inner = dict(self.observation_space.spaces)  # type: ignore[attr-defined]
        inner["desired_goal"] = spaces.Box(-1.0, 1.0, (1,), np.float64)
        self.observation_space = spaces.Dict(inner)

    def observe(self) -> Any:
        return super().observe() | {"desired_goal": self.goal[:1].copy()}


class HalfGoals(Line):
    def __init__(self) -> None:
        super().__init__()
        inner = dict(self.observation_space.spaces)  # type: ignore[attr-defined]
        del inner["achieved_goal"]
        self.observation_space = spaces.Dict(inner)

    def observe(self) -> Any:
        observation = super().observe()
        del observation["achieved_goal"]
        return observation


@dataclass(frozen=True)
class NarrowRule(DistanceRule):
    @property
    def reward_range(self) -> tuple[float, float]:
        return (0.0, 1.0)


class WrongRange(Line):
    def __init__(self) -> None:
        super().__init__()
        self.rule = NarrowRule(0.3, terminates=True)


class ResetFails(Line):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if self.np_random.random() < 0.5:
            raise ConnectionError("simulator")
        return self.observe(), {}


class NoRule(Line):
    compute_reward: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.inner_rule = self.rule
        del self.rule

    def __getattribute__(self, name: str) -> Any:
        if name in ("compute_reward", "compute_terminated"):
            raise AttributeError(name)
        return super().__getattribute__(name)

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.move(action)
        return self.observe(), -1.0, False, self.steps >= LIMIT, {}


class GoalMoves(Line):
    def move(self, action: Any) -> None:
        super().move(action)
        self.goal = np.clip(self.goal + 0.01, -1, 1)


class FourValues(Line):
    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, info


class ResetsWithoutInfo(Line):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)[0]


class NoInfo(Late):
    def spoil(self, outcome: list[Any]) -> None:
        outcome[4] = None


class NoReward(Late):
    def spoil(self, outcome: list[Any]) -> None:
        outcome[1] = None


class Unbounded(Line):
    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)


class StartsOutside(Line):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        observation, info = super().reset(seed=seed)
        observation["observation"] += 5.0
        return observation, info


class SharedState(Line):
    pushed: list[float] = []  # noqa: RUF012  the defect

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.pushed.clear()
        return super().reset(seed=seed)

    def move(self, action: Any) -> None:
        self.pushed.append(float(action[0]))
        super().move(action + 0.1 * sum(self.pushed[-2:]))


class CloseFails(Line):
    def close(self) -> None:
        raise RuntimeError("no window")


SEEDED: dict[type[Line], str] = {
    # bad values after step 20
    OutOfBounds: "space",
    NanObservation: "finite",
    NanReward: "finite",
    OtherShape: "space",
    # what the checkers of Gymnasium and Stable-Baselines3 miss
    CounterKeeps: "replay",
    NeverEnds: "end",
    WritesAction: "action",
    IgnoresAction: "action effect",
    CrashesAtBound: "crash",
    TimeoutTerminates: "timeout",
    HugeReward: "reward scale",
    DeadSensor: "dead sensor",
    UnpicklableRule: "pickle",
    # what Gymnasium's finds
    IgnoresSeed: "seed",
    GlobalNoise: "replay",
    AliasedBuffer: "aliasing",
    LeakingState: "replay",
    StaleObservation: "stale observation",
    # what both find
    OtherType: "space",
    MissingKey: "space",
    ArrayReward: "reward type",
    NumberEnds: "end type",
    FourValues: "result",
    ResetsWithoutInfo: "reset",
    NoInfo: "info",
    ResetFails: "reset",
    Unbounded: "action space",
    StartsOutside: "space",
}
"""Defects that are no matter of goals, each with the law that must name it."""
OF_GOALS: dict[type[Line], str] = {
    EarlyReward: "reward",
    OtherReward: "reward",
    UnbatchedRule: "batch",
    MixesRows: "batch",
    UnbatchedCompute: "batch",
    TerminatesUnruled: "termination",
    RuleTerminatesAlone: "termination",
    WrongSuccess: "success",
    GoalShapes: "goal shape",
    HalfGoals: "goals",
    WrongRange: "reward range",
    NoRule: "rule",
}
MORE: dict[type[Line], str] = {
    NoReward: "reward type",
    SharedState: "shared state",
    CloseFails: "close",
}
