"""The replay buffer in plain lists and loops, to compare the real one with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces

from rlkit.goals import DistanceRule, ExactRule, GoalRule
from rlkit.replay import Batch, ReplayBuffer

GOALS: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-9, 9, (2,), np.float64),
    "discrete": spaces.Discrete(4),
    "bits": spaces.MultiBinary(3),
    "pixels": spaces.Box(0, 255, (2, 2, 3), np.uint8),  # the observation is the achieved goal
}
KINDS = ("plain", "image", "dict", *GOALS)


def observation_space(kind: str) -> spaces.Space[Any]:
    tag = spaces.Box(0, 1e6, (3,), np.float32)
    if kind == "plain":
        return tag
    if kind == "image":
        return spaces.Box(0, 255, (2, 2, 3), np.uint8)
    if kind == "dict":
        return spaces.Dict(
            observation=tag, mode=spaces.Discrete(5), image=observation_space("image")
        )
    goal = GOALS[kind]
    if kind == "pixels":
        return spaces.Dict(observation=goal, achieved_goal=goal, desired_goal=goal)
    return spaces.Dict(observation=tag, achieved_goal=goal, desired_goal=goal)


def rule_of(kind: str, terminates: bool) -> GoalRule | None:
    if kind not in GOALS:
        return None
    return DistanceRule(1.5, terminates=terminates) if kind == "box" else ExactRule(terminates)


def hidden_state_of(place: tuple[int, int, int], part: int, shape: tuple[int, ...]) -> Any:
    """One array of a hidden state before a step; its values identify the step."""
    env, episode, t = place
    return np.full(shape, 1 + part + 10 * t + 1e4 * episode + 1e6 * env, np.float32)


@dataclass
class Episode:
    """T steps and T + 1 observations."""

    observations: list[dict[str, Any]]
    actions: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminated: list[bool] = field(default_factory=list)
    truncated: list[bool] = field(default_factory=list)
    running: bool = True

    @property
    def steps(self) -> int:
        return len(self.actions)


class World:
    """Adds random interleaved episodes to a replay buffer and records everything."""

    def __init__(
        self,
        kind: str = "box",
        num_envs: int = 2,
        capacity: int = 30,
        seed: int = 0,
        terminates: bool = False,
        end: float = 0.2,
        new_goal: float = 0.2,
        **options: Any,
    ) -> None:
        self.kind, self.num_envs, self.capacity = kind, num_envs, capacity
        self.rng = np.random.default_rng(seed)
        self.end, self.new_goal = end, new_goal
        self.rule = rule_of(kind, terminates)
        self.options = options
        self.replay = self.new_replay()
        self.envs: list[list[Episode]] = [[] for _ in range(num_envs)]

    def new_replay(self, **changes: Any) -> ReplayBuffer:
        options = {"num_envs": self.num_envs, "rule": self.rule, "seed": 1} | self.options | changes
        action_space = spaces.Box(-1, 1, (2,), np.float32)
        return ReplayBuffer(observation_space(self.kind), action_space, self.capacity, **options)

    # Adding steps

    def play(self, steps: int, *replays: ReplayBuffer) -> None:
        """Adds `steps` vector steps to the own replay buffer and to any others."""
        for _ in range(steps):
            step = self.step()
            for replay in (self.replay, *replays):
                replay.add(*step, self.hidden_state(replay))

    def step(self) -> tuple[Any, ...]:
        """One vector step, as arguments of `Replay.add`."""
        before = [self._current(env) for env in range(self.num_envs)]
        for env in range(self.num_envs):
            self._advance(env)
        episodes = [episodes[-1] for episodes in self.envs]
        return (
            self._stacked(before),
            np.stack([episode.actions[-1] for episode in episodes]),
            np.array([episode.rewards[-1] for episode in episodes]),
            np.array([episode.terminated[-1] for episode in episodes]),
            np.array([episode.truncated[-1] for episode in episodes]),
            self._stacked([episode.observations[-1] for episode in episodes]),
        )

    def hidden_state(self, replay: ReplayBuffer) -> tuple[Any, ...] | None:
        """Hidden states before the newest step, in the shapes that a replay buffer keeps."""
        places = [(env, len(e) - 1, e[-1].steps - 1) for env, e in enumerate(self.envs)]
        shapes = [column.shape[1:] for column in replay.storage.hidden_state]
        return (
            tuple(
                np.stack([hidden_state_of(place, i, shape) for place in places])
                for i, shape in enumerate(shapes)
            )
            or None
        )

    def cut(self) -> None:
        for episodes in self.envs:
            if episodes and episodes[-1].running:
                episodes[-1].running = False
                episodes[-1].truncated[-1] = True
        self.replay.storage.cut()

    def _current(self, env: int) -> dict[str, Any]:
        episodes = self.envs[env]
        if not episodes or not episodes[-1].running:
            episodes.append(Episode([self._observe(env, len(episodes), 0, None)]))
        return episodes[-1].observations[-1]

    def _advance(self, env: int) -> None:
        episode = self.envs[env][-1]
        before = episode.observations[-1]
        goal = None if self.rng.random() < self.new_goal else before.get("desired_goal")
        after = self._observe(env, len(self.envs[env]) - 1, episode.steps + 1, goal)
        ends = self.rng.random() < self.end
        terminated = bool(ends and self.rng.random() < 0.5)  # a fall, which no goal explains
        truncated = bool(ends and not terminated)
        reward = float(self.rng.integers(-3, 4))
        if self.rule is not None:
            pair = (
                np.asarray(after["achieved_goal"])[None],
                np.asarray(before["desired_goal"])[None],
            )
            reward = float(self.rule.reward(*pair)[0])
            terminated |= bool(self.rule.terminated(*pair)[0])
        episode.observations.append(after)
        episode.actions.append(self.rng.uniform(-1, 1, 2).astype(np.float32))
        episode.rewards.append(reward)
        episode.terminated.append(terminated)
        episode.truncated.append(truncated)
        episode.running = not (terminated or truncated)

    def _observe(self, env: int, episode: int, t: int, goal: Any) -> dict[str, Any]:
        """An observation whose values identify its episode and time."""
        tag = np.array([env, episode, t], np.float32)
        image = np.broadcast_to(tag.astype(np.uint8), (2, 2, 3)).copy()
        if self.kind == "image":
            return {"observation": image}
        if self.kind == "dict":
            return {"observation": tag, "mode": int(self.rng.integers(5)), "image": image}
        if self.kind == "plain":
            return {"observation": tag}
        desired = self._goal() if goal is None else goal
        if self.kind == "pixels":
            return {"observation": image, "achieved_goal": image, "desired_goal": desired}
        return {"observation": tag, "achieved_goal": self._goal(), "desired_goal": desired}

    def _goal(self) -> Any:
        if self.kind == "box":
            return self.rng.integers(-2, 3, 2).astype(np.float64)
        if self.kind == "pixels":
            tag = self.rng.integers(0, 3, 3, np.uint8)  # of early times, some of which come true
            return np.broadcast_to(tag, (2, 2, 3)).copy()
        return self.rng.integers(4) if self.kind == "discrete" else self.rng.integers(0, 2, 3)

    def _stacked(self, observations: list[dict[str, Any]]) -> Any:
        keyed = {key: np.stack([o[key] for o in observations]) for key in observations[0]}
        return keyed["observation"] if self.kind in ("plain", "image") else keyed

    # What is expected

    def kept(self, env: int) -> list[tuple[int, int]]:
        """Observations `(episode, t)` that are still stored, oldest first."""
        every = [
            (e, t) for e, episode in enumerate(self.envs[env]) for t in range(episode.steps + 1)
        ]
        slots = -(-self.capacity // self.num_envs) + 2
        running = bool(self.envs[env]) and self.envs[env][-1].running
        return every[-slots if running else 1 - slots :]

    def stored(self) -> list[tuple[int, int, int]]:
        """Steps `(env, episode, t)` that can be drawn."""
        return [
            (env, e, t)
            for env in range(self.num_envs)
            for e, t in self.kept(env)
            if t < self.envs[env][e].steps
        ]

    def origins(self, batch: Batch) -> list[tuple[int, int, int]]:
        """Where each window of a batch begins, after its burn-in."""
        tag = batch.observation["observation"][:, batch.burn_in]
        tag = tag[:, 0, 0] if self.kind in ("image", "pixels") else tag
        return [(int(env), int(e), int(t)) for env, e, t in tag]

    def check_window(self, batch: Batch, row: int, origin: tuple[int, int, int]) -> None:
        """One window of an episode with its original goals, padded with the last observation."""
        env, e, start = origin
        episode = self.envs[env][e]
        for i in range(batch.mask.shape[1] + 1):
            t = min(start + i, episode.steps)
            for key, value in batch.observation.items():
                np.testing.assert_array_equal(value[row, i], episode.observations[t][key], key)
            assert batch.is_first[row, i] == (t == 0)
        for i in range(batch.mask.shape[1]):
            t, valid = min(start + i, episode.steps - 1), start + i < episode.steps
            assert batch.mask[row, i] == valid
            np.testing.assert_array_equal(batch.action[row, i], episode.actions[t])
            assert batch.reward[row, i] == np.float32(episode.rewards[t])
            assert batch.terminated[row, i] == (valid and episode.terminated[t])
            assert batch.truncated[row, i] == (valid and episode.truncated[t])
            if batch.desired_goal is not None:
                goal = episode.observations[t]["desired_goal"]
                np.testing.assert_array_equal(batch.desired_goal[row, i], goal)

    def first_kept(self, env: int, episode: int) -> int:
        """Time of an episode's oldest observation that is still stored."""
        return next(t for e, t in self.kept(env) if e == episode)

    def check_sequence(self, batch: Batch, row: int, origin: tuple[int, int, int]) -> None:
        """A window with its original goals and its burn-in and the inputs of recurrent encoders."""
        env, e, start = origin
        episode, first = self.envs[env][e], self.first_kept(env, e)
        for i in range(batch.observation_count):
            t = min(max(start - batch.burn_in + i, first), episode.steps)
            for key, value in batch.observation.items():
                np.testing.assert_array_equal(value[row, i], episode.observations[t][key], key)
            assert batch.is_first[row, i] == (t == first)
            if batch.previous_action is not None:
                action = episode.actions[t - 1] if t > first else np.zeros(2)
                np.testing.assert_array_equal(batch.previous_action[row, i], action)
            if batch.previous_reward is not None:
                reward = episode.rewards[t - 1] if t > first else 0.0
                assert batch.previous_reward[row, i] == np.float32(reward)
        for i in range(batch.mask.shape[1]):
            t = start - batch.burn_in + i
            happened = first <= t < episode.steps
            assert batch.mask[row, i] == (happened and i >= batch.burn_in)
            if not happened:
                continue
            np.testing.assert_array_equal(batch.action[row, i], episode.actions[t])
            assert batch.truncated[row, i] == episode.truncated[t]
            if i >= batch.burn_in:
                assert batch.reward[row, i] == np.float32(episode.rewards[t])
                assert batch.terminated[row, i] == episode.terminated[t]
            if batch.desired_goal is not None:
                goal = episode.observations[t]["desired_goal"]
                np.testing.assert_array_equal(batch.desired_goal[row, i], goal)
        begin = max(start - batch.burn_in, first)
        for part, value in enumerate(batch.hidden_state or ()):
            shape = value.shape[1:]
            expected = (
                hidden_state_of((env, e, begin), part, shape) if begin > first else np.zeros(shape)
            )
            np.testing.assert_array_equal(value[row], expected)
