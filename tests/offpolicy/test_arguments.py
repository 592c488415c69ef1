"""Arguments of SB3's agents, in SB3's order, each checked by name and value."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from small_envs import Recorder
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from rlkit.agents import DQN, SAC, TD3
from rlkit.envs.make import make
from rlkit.offpolicy.arguments import device_of
from rlkit.vec.vec_env import make_vec_env

SMALL = {"batch_size": 8, "learning_starts": 10, "buffer_size": 500, "seed": 0, "device": "cpu"}


def build(algorithm=SAC, **options):
    env = Recorder(spaces.Discrete(3)) if algorithm is DQN else Recorder()
    return algorithm("MlpPolicy", env, **{**SMALL, "net_arch": [4], **options})


@pytest.mark.parametrize("algorithm", [SAC, TD3, DQN])
def test_arguments_come_in_sb3s_order(algorithm):
    env = Recorder(spaces.Discrete(3)) if algorithm is DQN else Recorder()
    agent = algorithm("MlpPolicy", env, 1e-2, 300, 7, 16, 0.02, 0.9, 3, 2, device="cpu")
    assert (agent.config.learning_rate, agent.buffer_size, agent.learning_starts) == (1e-2, 300, 7)
    assert (agent.batch_size, agent.tau, agent.gamma) == (16, 0.02, 0.9)
    assert (agent.train_freq.frequency, agent.gradient_steps) == (3, 2)


WRONG = {
    "buffer_size": (0, -5, 1e6, "many"),
    "learning_starts": (-1, 2.5, True),
    "train_freq": (0, -3, 1.5, (0, "episode"), (1, "hour"), "step"),
    "gradient_steps": (-2, 0.5),
    "stats_window_size": (0,),
    "seed": (-1, "lucky", 1.0),
    "verbose": (-1, "yes"),
    "learning_rate": (0.0, -1e-3, float("inf"), float("nan"), "fast"),
    "gamma": (1.5, -0.1, "0.9"),
    "tau": (-0.1, 2.0),
    "batch_size": (0, 2.5),
    "ent_coef": (-0.1, "car", "auto_", "auto_x", "auto_-1", "auto_0", float("inf"), True),
    "target_entropy": ("low", None),
}


@pytest.mark.parametrize(("name", "value"), [(k, v) for k, some in WRONG.items() for v in some])
def test_each_is_checked_with_its_name_and_value(name, value):
    with pytest.raises(ValueError) as refused:
        build(**{name: value})
    assert name in str(refused.value)
    assert str(value) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("device", ["tpu", "bad", "cuda:7", "meta", "cuda:-1", ""])
def test_a_device_that_is_not_there_is_named_with_those_that_are(device):
    with pytest.raises(ValueError, match=rf"device = '{device}' is not available.*auto, cpu"):
        build(device=device)


def test_devices():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert device_of("auto").type == expected
    assert device_of(torch.device("cpu")) == torch.device("cpu")


def test_a_gpu_is_the_cpu_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.warns(UserWarning, match='device = "cuda", and there is no GPU here: using'):
        assert build(device="cuda").device.type == "cpu"
    with pytest.raises(ValueError, match="'cuda:0' is not available"):
        build(device="cuda:0")


@pytest.mark.parametrize(("given", "first"), [("auto", 1.0), ("auto_0.1", 0.1), ("auto_2", 2.0)])
def test_an_entropy_weight_starts_where_it_is_told(given, first, tmp_path):
    agent = build(ent_coef=given)
    assert agent.learner.learned
    assert agent.ent_coef_tensor.item() == pytest.approx(first)
    agent.save(tmp_path / "agent")
    assert SAC.load(tmp_path / "agent", device="cpu").config.ent_coef == given


def test_sb3s_other_buffers_switch_hindsight_off():
    env = make_vec_env(make, "rlkit/PointMaze-Open-v0", 1, 0)
    for kind in (DictReplayBuffer, ReplayBuffer):
        agent = SAC("MultiInputPolicy", env, replay_buffer_class=kind, **SMALL)
        assert agent.replay_buffer.weights["original"] == 1.0
    with pytest.raises(ValueError, match="replay_buffer_class = dict is not supported"):
        build(replay_buffer_class=dict)


# The replay buffer under SB3's names


def test_a_deleted_replay_buffer_is_loaded_again(tmp_path):
    agent = build().learn(30)
    before, ends = agent.replay_buffer.observations, agent.replay_buffer.dones
    agent.save_replay_buffer(tmp_path / "replay")
    del agent.replay_buffer
    with pytest.raises(AttributeError):
        _ = agent.replay_buffer
    agent.save(tmp_path / "agent")
    agent.load_replay_buffer(tmp_path / "replay")
    np.testing.assert_array_equal(agent.replay_buffer.observations, before)
    assert agent.replay_buffer.device == agent.device
    np.testing.assert_array_equal(agent.replay_buffer.dones, ends)
    agent.replay_buffer = None
    agent.load_replay_buffer(tmp_path / "replay")
    assert agent.replay_buffer.size() == 30
    loaded = SAC.load(tmp_path / "agent", Recorder(), device="cpu", replay_buffer=None)
    loaded.load_replay_buffer(tmp_path / "replay")
    loaded.learn(12, reset_num_timesteps=False)
    assert loaded.replay_buffer.size() == 42
    loaded.replay_buffer = None
    loaded.learn(5, reset_num_timesteps=False)
    assert loaded.replay_buffer.size() == 5


def test_optimising_memory_changes_nothing():
    one, other = (build(optimize_memory_usage=flag).learn(25) for flag in (False, True))
    for name, value in one.learner.weights().items():
        assert torch.equal(value, other.learner.weights()[name])


def test_a_changed_update_coefficient_counts_as_in_sb3():
    agent = build(TD3, policy_delay=1).learn(20)
    for tau, moves in ((0.0, False), (1.0, True)):
        agent.tau, before = tau, agent.learner.state["critic_target"].clone()
        agent.train(gradient_steps=1)
        assert torch.equal(before, agent.learner.state["critic_target"]) != moves
    assert torch.equal(agent.learner.state["critic"], agent.learner.state["critic_target"])
