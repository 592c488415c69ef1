from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces, wrappers
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize

from rlkit.envs.make import make
from rlkit.goals import DistanceRule, GoalWrapper
from rlkit.vec.env_state import (
    Stateful,
    env_state,
    set_env_state,
    set_vec_env_state,
    vec_env_state,
)
from rlkit.vec.vec_env import make_vec_env

ENV_ID = "rlkit/PointMaze-U-v0"


class RandomWalk(gym.Env[Any, Any]):
    """A random walk with a state, which is not registered."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.position = self.np_random.normal(size=2)
        return self.position.copy(), {}

    def step(self, action: Any) -> Any:
        self.position = self.position + action + self.np_random.normal(size=2)
        return self.position.copy(), float(self.position.sum()), False, False, {}

    def get_state(self) -> dict[str, Any]:
        return {"position": self.position.copy(), "generator": self.np_random.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        self.position = np.array(state["position"])
        self.np_random.bit_generator.state = state["generator"]


class Smooth(gym.Wrapper[Any, Any, Any, Any]):
    """A wrapper that keeps data between steps and gives its state."""

    previous = 0.0

    def step(self, action: Any) -> Any:
        observation, reward, *rest = self.env.step(action)
        self.previous = 0.5 * self.previous + float(reward)
        return observation, self.previous, *rest

    def get_state(self) -> dict[str, Any]:
        return {"previous": self.previous}

    def set_state(self, state: dict[str, Any]) -> None:
        self.previous = state["previous"]


class Silent(gym.Wrapper[Any, Any, Any, Any]):
    """A wrapper that gives no state."""


def stacked() -> gym.Env[Any, Any]:
    goals = GoalWrapper(
        wrappers.PassiveEnvChecker(RandomWalk()),
        achieved=lambda observation: observation,
        rule=DistanceRule(0.5),
        goal_space=spaces.Box(-5.0, 5.0, (2,), np.float64),
    )
    limited = wrappers.TimeLimit(wrappers.OrderEnforcing(Smooth(goals)), 40)
    return Monitor(wrappers.ClipAction(limited))


def trace(env: gym.Env[Any, Any], steps: int, seed: int) -> list[Any]:
    env.action_space.seed(seed)
    steps_taken: list[Any] = []
    for _ in range(steps):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        episode = info.get("episode", {})
        steps_taken.append((flat(observation), reward, terminated, truncated, episode.get("r")))
        if terminated or truncated:
            steps_taken.append(flat(env.reset()[0]))
    return steps_taken


def flat(observation: Any) -> Any:
    parts = observation if isinstance(observation, dict) else {"observation": observation}
    return {key: value.tolist() for key, value in parts.items()}


def vec_trace(venv: VecEnv, steps: int, seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    steps_taken: list[Any] = []
    for _ in range(steps):
        actions = rng.uniform(-1, 1, (venv.num_envs, 2)).astype(np.float32)
        observation, reward, done, infos = venv.step(actions)
        returns = [info["episode"]["r"] for info in infos if "episode" in info]
        steps_taken.append((flat(observation), reward.tolist(), done.tolist(), returns))
    return steps_taken


def is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return value is None or isinstance(value, np.ndarray) or type(value) in (str, int, float, bool)


def through_json(state: Any) -> Any:
    """What a checkpoint does: arrays to disk, the rest through JSON."""
    if isinstance(state, dict):
        return {key: through_json(value) for key, value in state.items()}
    if isinstance(state, list):
        return [through_json(value) for value in state]
    return state.copy() if isinstance(state, np.ndarray) else json.loads(json.dumps(state))


@pytest.mark.parametrize("build", [stacked, lambda: Monitor(make(ENV_ID))])
def test_a_fresh_stack_continues_bit_for_bit(build: Any) -> None:
    one, two = build(), build()
    one.reset(seed=1)
    trace(one, 73, seed=0)
    state = env_state(one)
    assert state is not None
    assert is_plain(state)
    set_env_state(two, through_json(state))
    assert trace(one, 150, seed=2) == trace(two, 150, seed=2)


def test_a_state_does_not_change_when_the_environment_moves_on() -> None:
    env = stacked()
    env.reset(seed=1)
    trace(env, 5, seed=0)
    state = env_state(env)
    first = trace(env, 60, seed=3)
    assert state is not None
    set_env_state(env, state)
    assert trace(env, 60, seed=3) == first


def test_monitors_keep_their_episodes() -> None:
    one, two = stacked(), stacked()
    one.reset(seed=1)
    trace(one, 100, seed=0)
    state = env_state(one)
    assert state is not None
    set_env_state(two, state)
    assert isinstance(one, Monitor)
    assert isinstance(two, Monitor)
    assert len(two.get_episode_rewards()) == 2
    assert two.get_episode_rewards() == one.get_episode_rewards()
    assert two.get_episode_lengths() == one.get_episode_lengths()
    assert two.get_total_steps() == 100


@pytest.mark.parametrize(
    "env",
    [
        Silent(RandomWalk()),
        Monitor(Silent(wrappers.TimeLimit(RandomWalk(), 5))),
        gym.make("CartPole-v1"),
        wrappers.FrameStackObservation(RandomWalk(), 2),
    ],
    ids=["unknown wrapper", "unknown inside", "no state", "stateful wrapper of gymnasium"],
)
def test_a_part_without_a_state_makes_it_none(env: gym.Env[Any, Any]) -> None:
    env.reset(seed=0)
    assert env_state(env) is None
    with pytest.raises(ValueError, match="cannot restore a state"):
        set_env_state(env, {"wrappers": [], "env": {}})


def test_a_subclass_of_a_known_wrapper_is_unknown() -> None:
    class Counting(wrappers.TimeLimit):
        pass

    env = Counting(RandomWalk(), 5)
    env.reset(seed=0)
    assert env_state(env) is None


def test_other_wrappers_are_refused() -> None:
    one, two = wrappers.TimeLimit(RandomWalk(), 5), Monitor(RandomWalk())
    one.reset(seed=0)
    state = env_state(one)
    assert state is not None
    with pytest.raises(ValueError, match=r"\['TimeLimit'\], the environment has \['Monitor'\]"):
        set_env_state(two, state)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["native", "dummy", "subprocess", "plain dummy"])
def test_vector_environments_continue_bit_for_bit(kind: str) -> None:
    num_envs = 1 if kind == "subprocess" else 3  # each process imports torch

    def build() -> VecEnv:
        if kind == "native":
            return make_vec_env(make, ENV_ID, num_envs, 5)
        if kind == "plain dummy":
            return DummyVecEnv([lambda: Monitor(make(ENV_ID))] * num_envs)
        kinds: dict[str, type[DummyVecEnv] | type[SubprocVecEnv]] = {
            "dummy": DummyVecEnv,
            "subprocess": SubprocVecEnv,
        }
        return kinds[kind]([lambda: Stateful(Monitor(make(ENV_ID)))] * num_envs)

    one, two = build(), build()
    one.seed(5)
    one.reset()
    two.seed(77)
    two.reset()
    vec_trace(one, 130, seed=1)
    states = vec_env_state(one)
    assert len(states) == num_envs
    assert is_plain(states)
    assert None not in states
    set_vec_env_state(two, through_json(states))
    assert vec_trace(one, 120, seed=2) == vec_trace(two, 120, seed=2)
    one.close()
    two.close()


def test_only_the_environments_without_a_state_are_none() -> None:
    venv = DummyVecEnv([lambda: make(ENV_ID), lambda: Silent(make(ENV_ID))])
    venv.seed(0)
    venv.reset()
    states = vec_env_state(venv)
    assert [state is None for state in states] == [False, True]
    expected = vec_trace(venv, 5, seed=0)
    set_vec_env_state(venv, states)
    again = vec_trace(venv, 5, seed=0)
    for key in ("observation", "achieved_goal"):
        assert [step[0][key][0] for step in again] == [step[0][key][0] for step in expected]
        assert [step[0][key][1] for step in again] != [step[0][key][1] for step in expected]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["no state", "no method", "normalised"])
def test_vector_environments_without_a_state_give_none(kind: str) -> None:
    venv: VecEnv
    if kind == "no state":
        venv = make_vec_env(gym.make, "MountainCarContinuous-v0", 2)
    elif kind == "no method":
        venv = SubprocVecEnv([lambda: make(ENV_ID)] * 2)  # without Stateful
    else:
        venv = VecNormalize(DummyVecEnv([lambda: make(ENV_ID)] * 2), norm_obs=False)
    venv.reset()
    states = vec_env_state(venv)
    assert states == [None, None]
    set_vec_env_state(venv, states)
    with pytest.raises(ValueError):
        set_vec_env_state(venv, [{"wrappers": [], "env": {}}, None])
    venv.close()


def test_a_wrong_number_of_states_is_named() -> None:
    with pytest.raises(ValueError, match="got 3 states for 2 environments"):
        set_vec_env_state(make_vec_env(make, ENV_ID, 2), [None, None, None])
