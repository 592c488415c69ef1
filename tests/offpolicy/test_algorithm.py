"""Stable-Baselines3's interface: what works with its agents works with these."""

import functools
import itertools
import os

import numpy as np
import pytest
import torch
from gymnasium import spaces
from small_envs import Bandit, Recorder
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlkit.agents import DQN, SAC, TD3
from rlkit.envs.make import make
from rlkit.replay import NonFiniteError
from rlkit.vec.vec_env import make_vec_env

SMALL = {"net_arch": [8], "batch_size": 8, "learning_starts": 10, "buffer_size": 500}
MAZE = "rlkit/PointMaze-Open-v0"
AGENTS = [SAC, TD3, DQN]


def build(algorithm, env=None, **options):
    """An agent on plain observations, small and seeded."""
    if env is None:
        env = Recorder(spaces.Discrete(3)) if algorithm is DQN else Recorder()
    settings = {**SMALL, "seed": 0, "device": "cpu", **options}
    return algorithm("MlpPolicy", env, **settings)


def build_on_goals(algorithm=SAC, num_envs=2, **options):
    env_id = "rlkit/BitFlip-v0" if algorithm is DQN else MAZE
    env = make_vec_env(make, env_id, num_envs, 0)
    return algorithm("MultiInputPolicy", env, **{**SMALL, "seed": 0, "device": "cpu", **options})


def weights(agent):
    return {name: value.clone() for name, value in agent.learner.weights().items()}


def unchanged(before, agent):
    return all(torch.equal(value, before[name]) for name, value in agent.learner.weights().items())


@pytest.mark.parametrize("algorithm", AGENTS)
def test_evaluate_policy(algorithm):
    agent = build(algorithm).learn(30)
    mean, deviation = evaluate_policy(agent, agent.get_env(), n_eval_episodes=3, warn=False)
    assert (mean, deviation) == (5.0, 0.0)


def test_callbacks(tmp_path):
    stop = StopTrainingOnRewardThreshold(reward_threshold=4.0)
    evaluation = EvalCallback(
        Monitor(Recorder()),
        callback_on_new_best=stop,
        eval_freq=20,
        n_eval_episodes=2,
        best_model_save_path=str(tmp_path / "best"),
        log_path=str(tmp_path / "log"),
        verbose=0,
    )
    checkpoints = CheckpointCallback(7, str(tmp_path / "saved"), save_replay_buffer=True)
    agent = build(SAC).learn(1000, callback=[checkpoints, evaluation])
    assert agent.num_timesteps == 20  # five points per episode are more than four
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        "rl_model_7_steps.zip",
        "rl_model_14_steps.zip",
        "rl_model_replay_buffer_7_steps.pkl",
        "rl_model_replay_buffer_14_steps.pkl",
    }
    best = SAC.load(tmp_path / "best" / "best_model")
    observation = Recorder().observation_space.sample()
    np.testing.assert_array_equal(
        best.predict(observation, deterministic=True)[0],
        agent.predict(observation, deterministic=True)[0],
    )
    assert np.load(tmp_path / "log" / "evaluations.npz")["results"].shape == (1, 2)


class Counter(BaseCallback):
    """Stops in step `end` and records which hooks ran."""

    def __init__(self, end):
        super().__init__()
        self.end, self.hooks, self.infos = end, [], []

    def _on_training_start(self):
        self.hooks.append("start")

    def _on_rollout_start(self):
        self.hooks.append("rollout")

    def _on_step(self):
        self.infos += self.locals["infos"]
        assert {"rewards", "dones", "new_obs"} <= self.locals.keys()
        return self.n_calls < self.end

    def _on_training_end(self):
        self.hooks.append("end")


def test_a_callback_runs_in_every_step_and_can_stop():
    callback = Counter(end=8)
    agent = build(SAC, train_freq=4).learn(1000, callback=callback)
    assert agent.num_timesteps == 8
    assert callback.hooks == ["start", "rollout", "rollout", "end"]
    assert sum("episode" in info for info in callback.infos) == 1


def test_a_function_serves_as_a_callback():
    steps = []
    build(TD3).learn(6, callback=lambda local, _: steps.append(local["self"].num_timesteps) is None)
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_progress_bar():
    assert build(SAC).learn(20, progress_bar=True).num_timesteps == 20


@pytest.mark.slow
def test_tensorboard_has_the_usual_tags(tmp_path):
    agent = build_on_goals(tensorboard_log=str(tmp_path))
    agent.learn(400, log_interval=1, tb_log_name="mine")
    assert os.listdir(tmp_path) == ["mine_1"]
    curves = EventAccumulator(str(tmp_path / "mine_1")).Reload()
    assert set(curves.Tags()["scalars"]) >= {
        "rollout/ep_rew_mean",
        "rollout/ep_len_mean",
        "rollout/success_rate",
        "train/actor_loss",
        "train/critic_loss",
        "train/ent_coef",
        "train/learning_rate",
        "time/fps",
        "hindsight/relabelled",
    }
    assert len(curves.Scalars("rollout/ep_len_mean")) == 8
    agent.learn(100, log_interval=1)
    assert sorted(os.listdir(tmp_path)) == ["SAC_1", "mine_1"]


@pytest.mark.slow
def test_every_kind_of_vector_environment_gives_the_same_training():
    kinds = {
        "native": lambda: make_vec_env(make, MAZE, 2, 0),
        "dummy": lambda: DummyVecEnv([functools.partial(monitored, MAZE)] * 2),
        "processes": lambda: SubprocVecEnv([functools.partial(monitored, MAZE)] * 2),
    }
    found = {}
    for name, kind in kinds.items():
        env = kind()
        agent = SAC("MultiInputPolicy", env, seed=0, device="cpu", **SMALL).learn(150)
        found[name] = weights(agent)
        assert agent._n_updates > 0
        env.close()
    for name in ("dummy", "processes"):
        for key, value in found["native"].items():
            assert torch.equal(value, found[name][key]), (name, key)


def monitored(env_id):
    return Monitor(make(env_id))


def test_an_environment_is_named_by_its_id():
    assert SAC("MlpPolicy", "Pendulum-v1", **SMALL).learn(20).num_timesteps == 20


def test_predict_passes_the_state_on_and_keeps_shapes():
    agent = build_on_goals()
    env = agent.get_env()
    observation = env.reset()
    one = {key: value[0] for key, value in observation.items()}
    action, state = agent.predict(observation, episode_start=np.ones(2, bool), deterministic=True)
    assert action.shape == (2, 2)
    again, _ = agent.predict(observation, state, np.zeros(2, bool), deterministic=True)
    np.testing.assert_array_equal(action, again)
    single, _ = agent.predict(one, deterministic=True)
    assert single.shape == (2,)
    np.testing.assert_allclose(single, action[0], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="mixing Gym API"):
        agent.predict((observation, {}))


@pytest.mark.slow
def test_discrete_actions_are_numbers_of_the_space():
    env = Recorder(spaces.Discrete(3, start=-1))
    agent = build(DQN, env).learn(100)
    assert {int(action) for action in env.actions} == {-1, 0, 1}
    action, _ = agent.predict(env.observation_space.sample(), deterministic=True)
    assert env.action_space.contains(action)
    some = [agent.predict(env.observation_space.sample())[0] for _ in range(50)]
    assert all(env.action_space.contains(action) for action in some)


@pytest.mark.slow
def test_exploration_fades_and_can_be_set():
    agent = build(DQN, exploration_fraction=0.5, exploration_final_eps=0.1)
    rates = {}
    for step in agent.iterate(100):
        rates[step] = agent.exploration_rate
    assert (rates[1], rates[25], rates[50], rates[100]) == pytest.approx((0.982, 0.55, 0.1, 0.1))
    x = Recorder().observation_space.sample()
    agent.exploration_rate = 0.0
    assert len({int(agent.predict(x)[0]) for _ in range(50)}) == 1
    agent.exploration_rate = 1.0
    assert len({int(agent.predict(x)[0]) for _ in range(50)}) == 3


@pytest.mark.parametrize("algorithm", [SAC, TD3])
def test_actions_are_scaled_to_the_range_of_the_environment(algorithm):
    low, high = np.array([-3, 100], np.float32), np.array([-1, 500], np.float32)
    env = Recorder(spaces.Box(low, high))
    agent = build(algorithm, env, learning_starts=200).learn(200)
    actions = np.stack(env.actions)
    width = high - low
    assert (actions.min(axis=0) < low + 0.1 * width).all()
    assert (actions.max(axis=0) > high - 0.1 * width).all()
    stored = agent.replay_buffer.sample(64).action
    assert np.abs(stored).max() <= 1
    np.testing.assert_allclose(agent.adapter.to_env(np.array([[-1, -1], [0, 1]])), [low, [-2, 500]])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "steps", "updates"),
    [
        ({}, 60, 50),
        ({"gradient_steps": 3}, 60, 150),
        ({"train_freq": 4}, 60, 13),
        ({"train_freq": 4, "gradient_steps": -1}, 60, 52),
        ({"train_freq": (1, "episode")}, 60, 10),
        ({"train_freq": (2, "episode"), "gradient_steps": -1}, 60, 50),
        ({"update_ratio": 0.3}, 110, 30),
        ({"update_ratio": 1 / 64}, 10 + 640, 10),
        ({"update_ratio": 2.5}, 50, 100),
        ({"learning_starts": 60}, 60, 0),
    ],
    ids=str,
)
def test_the_number_of_updates(options, steps, updates):
    agent = build(SAC, **options).learn(steps)
    assert agent._n_updates == agent.learner.updates == updates


@pytest.mark.slow
def test_several_environments_count_all_their_steps():
    assert build_on_goals(num_envs=4, gradient_steps=-1).learn(90)._n_updates == 92 - 8
    assert build_on_goals(num_envs=4, update_ratio=0.25).learn(90)._n_updates == (92 - 8) / 4
    assert build_on_goals(num_envs=4).learn(90)._n_updates == 23 - 2


@pytest.mark.slow
def test_sb3s_hindsight_buffer_is_translated():
    agent = build_on_goals(
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"n_sampled_goal": 3, "goal_selection_strategy": "final"},
    )
    assert agent.replay_buffer.weights == pytest.approx(
        {**dict.fromkeys(agent.replay_buffer.weights, 0.0), "final": 0.75, "original": 0.25}
    )
    agent.learn(200)
    assert abs(agent.replay_buffer.sample(2000).relabelled.mean() - 0.75) < 0.04


@pytest.mark.parametrize("broken", ["reward", "observation", "restart"])
def test_values_that_are_not_finite_never_reach_the_weights(broken):
    env = Recorder(broken_at=30, broken=broken)
    agent = build(SAC, env)
    training = agent.iterate(1000)
    for _ in itertools.islice(training, 29):
        pass
    before = weights(agent)
    with pytest.raises(NonFiniteError, match=r"nan.*check-env"):
        next(training)
    assert agent._n_updates == 19
    assert unchanged(before, agent)
    assert np.isfinite(agent.replay_buffer.sample(200).reward).all()


def test_a_first_observation_that_is_not_finite_is_refused():
    with pytest.raises(NonFiniteError):
        build(SAC, Recorder(broken_at=0, broken="restart")).learn(10)


@pytest.mark.slow
def test_learning_rates_follow_their_schedule():
    falling = {"learning_rate": 1e-3, "final_learning_rate": 1e-4}
    for options, end in (({"learning_rate": lambda left: 1e-3 * left}, 0.0), (falling, 1e-4)):
        agent = build(SAC, **options)
        rates = []
        for _ in agent.iterate(100):
            rates.append(agent.learner.learning_rate.item())
        expected = [end + (1e-3 - end) * (1 - n / 100) for n in range(21, 101)]
        np.testing.assert_allclose(rates[20:], expected, atol=1e-9)


def test_a_schedule_has_no_second_end():
    with pytest.raises(ValueError, match=r"final_learning_rate = 0\.1 does not go with"):
        build(SAC, learning_rate=lambda left: left, final_learning_rate=0.1)
    with pytest.raises(ValueError, match="final_learning_rate = -1 must be >= 0"):
        build(SAC, final_learning_rate=-1)


def test_a_second_learn_starts_new_episodes_in_the_replay():
    env = Recorder()
    agent = build(SAC, env).learn(13)
    agent.learn(13)
    assert agent.num_timesteps == 13
    lengths = agent.replay_buffer.storage.length[agent.replay_buffer.storage.has_action]
    assert sorted(set(lengths.tolist())) == [0, 3, 5]
    agent.learn(4, reset_num_timesteps=False)
    assert agent.num_timesteps == 17
    assert (agent.replay_buffer.storage.step_index == 4).any()


def test_goals_do_not_go_with_running_normalisation():
    env = VecNormalize(make_vec_env(make, MAZE, 2, 0))
    with pytest.raises(ValueError, match="VecNormalize does not go with goals"):
        SAC("MultiInputPolicy", env, **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", AGENTS)
def test_a_task_without_goals_is_learned(algorithm):
    """Chance earns -0.5 (discrete) or worse than -3; so does ignoring the observation."""
    env = Bandit(discrete=algorithm is DQN)
    agent = build(algorithm, env, net_arch=[32], learning_rate=3e-3, batch_size=64).learn(600)
    mean, _ = evaluate_policy(agent, Monitor(env), n_eval_episodes=20)
    assert mean > (-0.01 if algorithm is DQN else -1.0)


def test_wrong_action_spaces_are_refused():
    with pytest.raises(AssertionError, match="Discrete"):
        build(SAC, Recorder(spaces.Discrete(3)))
    with pytest.raises(AssertionError, match="Box"):
        build(DQN, Recorder())


def test_options_are_checked():
    with pytest.raises(ValueError, match=r"no option 'net_arc'. Did you mean 'net_arch'"):
        build(SAC, net_arc=[3])
    with pytest.raises(ValueError, match="update_ratio must be positive, got -1"):
        build(SAC, update_ratio=-1)
    with pytest.raises(ValueError, match="policy_kwargs has no 'dist_kwargs'"):
        build(SAC, policy_kwargs={"dist_kwargs": {}})
    with pytest.raises(ValueError, match="replay has no option 'hindsigt'"):
        build(SAC, replay={"hindsigt": "future"})
    agent = build(SAC, policy_kwargs={"net_arch": [5, 6], "n_critics": 3})
    assert (agent.config.net_arch, agent.config.critics) == ((5, 6), 3)


def test_arguments_of_sb3s_agents_are_accepted():
    agent = build(SAC, n_steps=3, use_sde=False, sde_sample_freq=4)
    assert agent.replay_buffer.steps == agent.options["replay"]["steps"] == 3
    with pytest.raises(ValueError, match=r"use_sde = True.*coloured_noise"):
        build(TD3, use_sde=True)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_training():
    one, other, third = (build(SAC, seed=seed).learn(60) for seed in (1, 1, 2))
    assert unchanged(weights(one), other)
    assert not unchanged(weights(one), third)
