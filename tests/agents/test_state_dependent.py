"""State-dependent exploration of SAC, against Stable-Baselines3's distribution."""

import numpy as np
import pytest
import torch
from resuming import assert_resumes
from small_envs import Bandit, Recorder
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from rlkit.agents import DQN, SAC, TD3
from rlkit.envs.make import make

SMALL = {"batch_size": 8, "learning_starts": 10, "buffer_size": 500, "seed": 0, "device": "cpu"}


def build(env=None, **options):
    settings = {**SMALL, "net_arch": [6, 5], "use_sde": True, **options}
    return SAC("MlpPolicy", Recorder() if env is None else env, **settings)


@pytest.mark.parametrize("use_expln", [False, True])
def test_actions_and_their_density_are_sb3s(use_expln):
    learner = build(policy_kwargs={"use_expln": use_expln, "log_std_init": 0.3}).learner
    vector, head = learner.state["actor"], learner.state_dependent
    x = torch.randn(7, 3)
    inputs = (x[:, :0], x, x[:, :0])
    mean, features = learner.actor(vector, inputs)[0].split([2, 5], dim=-1)
    reference = StateDependentNoiseDistribution(
        2, use_expln=use_expln, squash_output=True, learn_features=True
    )
    log_std = head.views(vector)["log_std"]
    torch.testing.assert_close(head.deviations(vector), reference.get_std(log_std))
    noise = torch.randn(5, 2)
    reference.exploration_mat = reference.get_std(log_std) * noise
    reference.exploration_matrices = reference.exploration_mat[None]
    reference.proba_distribution(mean, log_std, features)
    expected = reference.sample()
    action, log_prob = learner._sample(vector, inputs, noise)
    torch.testing.assert_close(action, expected)
    torch.testing.assert_close(log_prob, reference.log_prob(expected), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(learner.policy(inputs, explore=False), reference.mode())


def test_each_environment_has_noise_of_its_own():
    learner = build(log_std_init=1.0).learner
    x = torch.ones(3, 3)
    inputs = (x[:, :0], x, x[:, :0])
    learner.reset_noise(3)
    actions = learner.policy(inputs, explore=True)
    assert torch.equal(actions, learner.policy(inputs, explore=True))  # until it is drawn anew
    assert not torch.equal(actions[0], actions[1])
    learner.reset_noise(3)
    assert not torch.equal(actions, learner.policy(inputs, explore=True))
    assert learner.policy(tuple(part[:2] for part in inputs), explore=True).shape == (2, 2)


@pytest.mark.parametrize(("every", "expected"), [(-1, [0, 6]), (4, [0, 4, 6, 10])])
def test_noise_changes_at_each_rollout_and_as_often_as_asked(every, expected, monkeypatch):
    agent = build(DummyVecEnv([Recorder] * 2), train_freq=6, sde_sample_freq=every)
    drawn, reset = [], agent.learner.reset_noise
    monkeypatch.setattr(
        agent.learner,
        "reset_noise",
        lambda n: (drawn.append((agent.num_timesteps // 2, n)), reset(n)),
    )
    agent.learn(24)
    assert drawn == [(step, 2) for step in expected]


def test_it_replaces_uniform_actions_at_warmup_if_asked():
    for at_warmup, least in ((True, 0.0), (False, 0.3)):
        agent = build(learning_starts=60, use_sde_at_warmup=at_warmup, log_std_init=-6.0).learn(50)
        spread = agent.replay_buffer.actions.std()
        assert (spread > 0.4) != at_warmup
        assert spread > least


@pytest.mark.parametrize("options", [{}, {"encoder": "gru", "window": 4}], ids=str)
@pytest.mark.slow
def test_a_training_continues_exactly(options, tmp_path):
    details = {"use_sde": True, "sde_sample_freq": 4, "train_freq": 6, "gradient_steps": 3}
    setting = (SAC, make, "rlkit/PointMaze-Open-v0", 1, {**details, **options})
    assert_resumes(tmp_path, *setting, rounds=(16, 9, 4))


def test_agents_are_saved_with_it(tmp_path):
    agent = build(policy_kwargs={"log_std_init": -2, "clip_mean": 1.0}).learn(20)
    agent.save(tmp_path / "agent")
    loaded = SAC.load(tmp_path / "agent", device="cpu")
    assert loaded.config == agent.config
    x = agent.observation_space.sample()
    np.testing.assert_array_equal(
        loaded.predict(x, deterministic=True)[0], agent.predict(x, deterministic=True)[0]
    )
    agent.policy.reset_noise()
    torch.testing.assert_close(
        agent.actor.get_std(), agent.learner.weights()["actor.log_std"].exp()
    )


@pytest.mark.slow
def test_a_task_is_learned():
    """Chance earns less than -3; so does ignoring the observation."""
    env = Bandit()
    agent = build(env, net_arch=[32], learning_rate=3e-3, batch_size=64, log_std_init=0.0)
    mean, _ = evaluate_policy(agent.learn(600), Monitor(env), n_eval_episodes=20)
    assert mean > -1.0


def test_what_does_not_go_together_is_refused():
    for options, message in (
        ({"coloured_noise": 0.5}, "coloured_noise = 0.5 does not go with use_sde"),
        ({"net_arch": []}, "use_sde = True needs the actor's last hidden layer"),
        ({"sde_sample_freq": 0}, "sde_sample_freq = 0 must be"),
        ({"clip_mean": -1.0}, "clip_mean = -1.0 must be >= 0"),
    ):
        with pytest.raises(ValueError, match=message):
            build(**options)
    for algorithm in (TD3, DQN):
        with pytest.raises(ValueError, match=r"use_sde = True: .* has no state-dependent"):
            algorithm("MlpPolicy", Recorder(), use_sde=True)
    with pytest.raises(ValueError, match="noise to reset with use_sde = True alone"):
        build(use_sde=False).policy.reset_noise()
