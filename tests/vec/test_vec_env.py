from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from stable_baselines3 import SAC, HerReplayBuffer
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from rlkit.envs.make import make
from rlkit.goals import GoalEnv, make_repeating
from rlkit.vec.env_state import Stateful
from rlkit.vec.vec_env import GymVecEnv, action_repeat_of, make_vec_env
from rlkit.vec.workers import ResilientVecEnv

SUITE = ["rlkit/BitFlip-v0", "rlkit/PointMaze-U-v0", "rlkit/PointMaze-Open-Dense-v0"]


def singles(env_id: str, num_envs: int, seed: int) -> DummyVecEnv:
    venv = DummyVecEnv([lambda: Monitor(make(env_id))] * num_envs)
    venv.seed(seed)
    return venv


def synchronous(env_id: str, num_envs: int, seed: int) -> GymVecEnv:
    mode = AutoresetMode.SAME_STEP
    venv = GymVecEnv(SyncVectorEnv([lambda: make(env_id)] * num_envs, autoreset_mode=mode))
    venv.seed(seed)
    return venv


def native(env_id: str, num_envs: int, seed: int) -> VecEnv:
    return make_vec_env(make, env_id, num_envs, seed)


def without_time(info: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in info.items() if key != "terminal_observation"}
    if "episode" in kept:
        kept["episode"] = {key: kept["episode"][key] for key in "rl"}
    return kept


def assert_equal(one: Any, two: Any) -> None:
    assert one.keys() == two.keys()
    for key in two:
        np.testing.assert_array_equal(one[key], two[key])
        assert np.asarray(one[key]).dtype == np.asarray(two[key]).dtype


@pytest.mark.slow
@pytest.mark.parametrize("build", [native, synchronous])
@pytest.mark.parametrize("env_id", SUITE)
@pytest.mark.parametrize("num_envs", [1, 5])
def test_the_vector_environment_equals_single_environments(
    build: Any, env_id: str, num_envs: int
) -> None:
    venv, reference = build(env_id, num_envs, 7), singles(env_id, num_envs, 7)
    assert isinstance(venv, GymVecEnv)
    assert venv.observation_space == reference.observation_space
    assert venv.action_space == reference.action_space
    assert_equal(venv.reset(), reference.reset())
    assert venv.reset_infos == reference.reset_infos
    venv.action_space.seed(0)
    episodes = 0
    for _ in range(230):
        actions = np.array([venv.action_space.sample() for _ in range(num_envs)])
        ours, theirs = venv.step(actions), reference.step(actions)
        assert_equal(ours[0], theirs[0])
        for one, two in zip(ours[1:3], theirs[1:3], strict=True):
            np.testing.assert_array_equal(one, two)
            assert one.dtype == two.dtype
        for one, two in zip(ours[3], theirs[3], strict=True):
            assert without_time(one) == without_time(two)
            assert ("terminal_observation" in one) == ("terminal_observation" in two)
            if "terminal_observation" in two:
                episodes += 1
                assert_equal(one["terminal_observation"], two["terminal_observation"])
    assert episodes >= 2 * num_envs


def test_earlier_outcomes_are_not_overwritten() -> None:
    venv = native("rlkit/BitFlip-v0", 4, 0)
    venv.reset()
    kept: list[Any] = []
    for step in range(12):
        observation, reward, done, infos = venv.step(np.full(4, step % 8))
        kept.append((observation, reward, done, infos))
        if step == 0:
            first = {key: value.copy() for key, value in observation.items()}
    for key, value in first.items():
        np.testing.assert_array_equal(kept[0][0][key], value)
    finals = [i["terminal_observation"] for _, _, _, rows in kept for i in rows if "episode" in i]
    assert len(finals) >= 4
    assert all(final["observation"].shape == first["observation"][0].shape for final in finals)


def test_seeds_are_used_once() -> None:
    venv = native("rlkit/PointMaze-U-v0", 2, 3)
    first, second = venv.reset(), venv.reset()
    assert not np.array_equal(first["desired_goal"], second["desired_goal"])
    venv.seed(3)
    assert_equal(venv.reset(), first)


def test_goal_methods_and_attributes_are_answered() -> None:
    venv = native("rlkit/PointMaze-U-v0", 3, 0)
    observation = venv.reset()
    single = make("rlkit/PointMaze-U-v0").unwrapped
    assert isinstance(single, GoalEnv)
    pair = observation["achieved_goal"], observation["desired_goal"]
    answers = venv.env_method("compute_reward", *pair, [{}] * 3, indices=[0])
    assert len(answers) == 1
    np.testing.assert_array_equal(answers[0], single.compute_reward(*pair))
    np.testing.assert_array_equal(
        venv.env_method("compute_terminated", *pair)[2], single.compute_terminated(*pair)
    )
    assert venv.get_attr("rule") == [single.rule] * 3
    assert venv.get_attr("rule", indices=1) == [single.rule]
    assert not venv.has_attr("no_such_attribute")


def test_attributes_of_single_environments_are_answered_one_by_one() -> None:
    venv = synchronous("rlkit/PointMaze-U-v0", 3, 0)
    observation = venv.reset()
    pair = observation["achieved_goal"], observation["desired_goal"]
    assert len(venv.env_method("compute_reward", *pair, {}, indices=[0, 2])) == 2
    assert len(venv.get_attr("rule", indices=[1])) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_asking_for_an_attribute_leaves_the_environments_as_they_are(kind: Any) -> None:
    build = functools.partial(make_repeating, make, 2, "CartPole-v1")
    venv = GymVecEnv(kind([build] * 2, autoreset_mode=AutoresetMode.SAME_STEP))
    assert not venv.has_attr("rule")
    assert venv.has_attr("action_repeat")
    assert action_repeat_of(venv) == 2
    venv.reset()
    assert venv.step(np.zeros(2, np.int64))[1].tolist() == [2.0, 2.0]
    venv.close()


def test_attributes_are_set_for_all_or_refused() -> None:
    for venv in (native("rlkit/BitFlip-v0", 2, 0), synchronous("rlkit/BitFlip-v0", 2, 0)):
        venv.set_attr("label", 4)
        assert venv.get_attr("label") == [4, 4]
        with pytest.raises(ValueError, match="'label' can only be set for all"):
            venv.set_attr("label", 5, indices=[0])


@pytest.mark.slow
def test_pictures_are_tiled() -> None:
    venv = make_vec_env(make, "rlkit/PointMaze-U-v0", 4, 0, render_mode="rgb_array")
    venv.reset()
    picture = venv.render()
    assert picture is not None
    single = venv.get_images()[0]
    assert single is not None
    assert picture.shape == (2 * single.shape[0], 2 * single.shape[1], 3)
    venv.close()


def test_options_must_agree() -> None:
    venv = native("rlkit/BitFlip-v0", 2, 0)
    venv.set_options([{"a": 1}, {"a": 2}])
    with pytest.raises(ValueError, match="the same options"):
        venv.reset()
    venv.set_options({"a": 1})
    venv.reset()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_modes_are_refused(mode: AutoresetMode) -> None:
    env = SyncVectorEnv([lambda: make("rlkit/BitFlip-v0")], autoreset_mode=mode)
    with pytest.raises(ValueError, match=rf"autoreset_mode {mode}.*make_vec.*SAME_STEP"):
        GymVecEnv(env)


@pytest.mark.slow
def test_the_native_form_is_preferred_and_others_are_monitored() -> None:
    assert isinstance(make_vec_env(make, "rlkit/BitFlip-v0", 2, subprocess=True), GymVecEnv)
    venv = make_vec_env(make, "Pendulum-v1", 2, 0)
    assert isinstance(venv, DummyVecEnv)
    assert isinstance(venv.envs[0], Stateful)
    assert venv.env_is_wrapped(Monitor) == [True, True]
    processes = make_vec_env(make, "Pendulum-v1", 2, 0, subprocess=True)
    assert isinstance(processes, ResilientVecEnv)
    np.testing.assert_array_equal(processes.reset(), venv.reset())
    processes.close()


def test_the_time_limit_comes_from_the_registry_or_the_call() -> None:
    for steps, arguments in ((100, {}), (7, {"max_episode_steps": 7})):
        venv = make_vec_env(make, "rlkit/PointMaze-U-v0", 1, 0, **arguments)
        venv.reset()
        for step in range(1, steps + 1):
            _, _, dones, infos = venv.step(np.zeros((1, 2), np.float32))
            assert dones[0] == (step == steps)
        assert infos[0]["TimeLimit.truncated"] is True
        assert infos[0]["episode"]["l"] == steps


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        make_vec_env(make, "rlkit/BitFlip-v0", 0)
    with pytest.raises(ValueError, match="unknown environment 'NoSuch-v0'"):
        make_vec_env(make, "NoSuch-v0", 1)


def test_a_face_without_a_state_says_so() -> None:
    venv = synchronous("rlkit/BitFlip-v0", 2, 0)
    assert venv.get_state() is None
    with pytest.raises(ValueError, match="cannot restore a state"):
        venv.set_state({})


@pytest.mark.slow
def test_sb3_trains_with_its_own_hindsight_buffer() -> None:
    venv = native("rlkit/PointMaze-Open-v0", 3, 0)
    agent = SAC(
        "MultiInputPolicy",
        venv,
        replay_buffer_class=HerReplayBuffer,
        learning_starts=160,
        batch_size=32,
        buffer_size=2000,
        policy_kwargs={"net_arch": [16]},
        seed=0,
    )
    agent.learn(300)
    assert agent.num_timesteps >= 300
    assert len(agent.ep_info_buffer or []) >= 3
    mean, _ = evaluate_policy(agent, native("rlkit/PointMaze-Open-v0", 2, 1), n_eval_episodes=2)
    assert np.isfinite(mean)


def test_infos_of_every_kind_are_unbatched() -> None:
    class ReportingEnv(gym.Env[Any, Any]):
        observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        action_space = gym.spaces.Discrete(2)
        render_mode = None

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            self.steps = 0
            return np.zeros(1, np.float32), {"start": 1}

        def step(self, action: Any) -> Any:
            self.steps += 1
            info: dict[str, Any] = {"array": np.full(2, self.steps), "nested": {"deep": self.steps}}
            if action:
                info["rare"] = "text"
            return np.zeros(1, np.float32), 1.0, self.steps == 3, False, info

    mode = AutoresetMode.SAME_STEP
    venv = GymVecEnv(SyncVectorEnv([ReportingEnv, ReportingEnv], autoreset_mode=mode))
    venv.reset()
    for step in range(1, 4):
        infos = venv.step(np.array([0, 1]))[3]
        assert [info["nested"]["deep"] for info in infos] == [step, step]
        np.testing.assert_array_equal(infos[0]["array"], [step, step])
        assert "rare" not in infos[0]
        assert infos[1]["rare"] == "text"
        assert "start" not in infos[0]
    assert infos[0]["episode"]["l"] == 3
