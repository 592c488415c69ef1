"""Agents in environments that hold actions: steps, discount, files, resumed trainings."""

import numpy as np
import pytest
from gymnasium import spaces
from resuming import assert_resumes
from small_envs import Clock

from rlkit.agents import DQN, MPC, SAC, TD3
from rlkit.envs.make import make
from rlkit.goals import ActionRepeat
from rlkit.vec.vec_env import GymVecEnv, action_repeat_of, make_vec_env

SMALL = {"net_arch": [8], "batch_size": 8, "learning_starts": 24, "device": "cpu", "seed": 0}
MAZE = "rlkit/PointMaze-U-v0"


def maze_agent(repeat, num_envs=2, **options):
    env = make_vec_env(make, MAZE, num_envs, 0, action_repeat=repeat)
    return SAC("MultiInputPolicy", env, **{**SMALL, "gamma": 0.9, **options})


@pytest.mark.parametrize("subprocess", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_vector_environments_hold_actions_where_episodes_end_in_between(subprocess):
    venv = make_vec_env(
        make, MAZE, 2, 5, action_repeat=3, subprocess=subprocess, max_episode_steps=10
    )
    assert action_repeat_of(venv) == 3
    singles = [ActionRepeat(make(MAZE, max_episode_steps=10), 3) for _ in range(2)]
    observation = venv.reset()
    for i, single in enumerate(singles):
        first, _ = single.reset(seed=5 + i)
        np.testing.assert_array_equal(observation["observation"][i], first["observation"])
    generator = np.random.default_rng(0)
    for step in range(9):
        actions = generator.uniform(-1, 1, (2, 2)).astype(np.float32)
        observation, rewards, dones, infos = venv.step(actions)
        for i, single in enumerate(singles):
            expected, reward, _, truncated, info = single.step(actions[i])
            assert truncated == (step % 4 == 3)
            assert (rewards[i], dones[i]) == (reward, truncated)
            assert infos[i]["environment_steps"] == info["environment_steps"]
            if truncated:
                last = infos[i]["terminal_observation"]
                np.testing.assert_array_equal(last["observation"], expected["observation"])
                assert infos[i]["TimeLimit.truncated"]
                expected, _ = single.reset()
            np.testing.assert_array_equal(observation["observation"][i], expected["observation"])
    venv.close()


def test_without_held_actions_the_native_form_is_used():
    assert isinstance(make_vec_env(make, MAZE, 2), GymVecEnv)
    assert action_repeat_of(make_vec_env(make, MAZE, 2)) == 1


@pytest.mark.parametrize("repeat", [1, 2, 5])
def test_the_agent_counts_steps_of_the_environment(repeat):
    agent = maze_agent(repeat, update_ratio=0.5)
    agent.learn(60)
    assert agent.num_timesteps == 60
    assert len(agent.replay_buffer) == 60 // repeat
    after = 60 - 20 * (repeat == 5) - 24 * (repeat != 5)  # rounds of 2 * repeat steps
    assert agent._n_updates == after // 2


def test_learning_starts_counts_steps_of_the_environment():
    agent = maze_agent(2, num_envs=1, learning_starts=30)
    for step in agent.iterate(40):
        assert (agent._n_updates > 0) == (step > 30)


@pytest.mark.parametrize("repeat", [1, 3])
def test_every_discount_is_that_of_one_decision(repeat):
    agent = maze_agent(repeat, replay={"steps": 2})
    assert agent.gamma == 0.9
    assert agent.config.gamma == pytest.approx(0.9**repeat)
    assert agent.replay_buffer.gamma == agent.config.gamma
    assert agent.learner.config.gamma == agent.config.gamma
    assert agent.learner.bounds[0] == pytest.approx(-1 / (1 - 0.9**repeat))


def test_a_bootstrapped_value_is_discounted_by_the_steps_in_between():
    clock = Clock(action_space=spaces.Box(-1, 1, (2,), np.float32), length=10)
    agent = SAC("MlpPolicy", ActionRepeat(clock, 4), **SMALL, gamma=0.5)
    agent.learn(60)
    discount = agent.replay_buffer.sample(32).discount
    assert set(np.unique(discount)) == {np.float32(0.5**4)}


def test_every_agent_plans_or_learns_with_that_discount():
    for kind, discrete in ((TD3, False), (DQN, True), (MPC, False)):
        env_id = "rlkit/BitFlip-v0" if discrete else MAZE
        env = make_vec_env(make, env_id, 1, 0, action_repeat=2)
        options = {"seed": 0, "device": "cpu", "gamma": 0.9, "learning_starts": 10}
        agent = kind("MultiInputPolicy", env, **options)
        assert agent.learner.config.gamma == pytest.approx(0.81), kind


def test_a_saved_agent_keeps_its_discount_with_and_without_an_environment(tmp_path):
    agent = maze_agent(2)
    agent.learn(40)
    agent.save(tmp_path / "agent")
    for env in (None, make_vec_env(make, MAZE, 2, 0, action_repeat=2)):
        loaded = SAC.load(tmp_path / "agent", env, device="cpu")
        assert (loaded.action_repeat, loaded.gamma) == (2, 0.9)
        assert loaded.config.gamma == agent.config.gamma
        observation = make(MAZE).reset(seed=1)[0]
        expected, _ = agent.predict(observation, deterministic=True)
        np.testing.assert_array_equal(loaded.predict(observation, deterministic=True)[0], expected)
    loaded.learn(20, reset_num_timesteps=False)
    assert loaded.num_timesteps == 60


def test_environments_that_hold_actions_for_another_time_are_refused():
    agent = maze_agent(2)
    before = agent.env
    with pytest.raises(ValueError, match=r"holds actions for 1 steps.*ActionRepeat\(env, 2\)"):
        agent.set_env(make_vec_env(make, MAZE, 2))
    assert agent.env is before
    agent.set_env(make_vec_env(make, MAZE, 2, action_repeat=2))


HELD = {"random_action_repeat": 4, "learning_starts": 60}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        (SAC, {**HELD, "random_fraction": 0.3}),
        (TD3, {**HELD, "random_fraction": 0.3, "encoder": {"name": "gru", "hidden": 6}}),
        (SAC, {"encoder": {"name": "gru", "hidden": 6}, "window": 5}),
    ],
)
def test_held_actions_resume(tmp_path, algorithm, options):
    setting = (algorithm, make, MAZE, 2, options)
    agent = assert_resumes(tmp_path, *setting, rounds=(35, 21, 12), action_repeat=2)
    assert agent.episodes_cut == 0
    assert agent.num_timesteps == 68 * 2 * 2


@pytest.mark.slow
def test_held_random_actions_of_dqn_resume(tmp_path):
    options = {"random_action_repeat": 3, "exploration_fraction": 0.02}
    assert_resumes(tmp_path, DQN, make, "rlkit/BitFlip-v0", 3, options, bits=6)


@pytest.mark.slow
def test_an_encoder_reads_the_held_action(tmp_path):
    agent = maze_agent(2, encoder={"name": "gru", "hidden": 6}, window=6, random_action_repeat=3)
    agent.learn(120)
    batch = agent.replay_buffer.sample(16)
    inside = ~batch.is_first[:, 1 : batch.action.shape[1]]
    previous = batch.previous_action[:, 1 : batch.action.shape[1]]
    np.testing.assert_array_equal(previous[inside], batch.action[:, :-1][inside])
