"""Batch norm, dropout and frozen parameters in an agent's networks."""

import pytest
import torch
from gymnasium import spaces
from resuming import assert_resumes, build_walk
from small_envs import Recorder
from torch import nn

from rlkit.agents import DQN, SAC, TD3

SMALL = {"batch_size": 8, "learning_starts": 10, "buffer_size": 500, "seed": 0, "device": "cpu"}
AGENTS = [SAC, TD3, DQN]


class Features(nn.Module):
    """Batch norm and dropout, over a frozen layer."""

    def __init__(self, observation_space, rate=0.5):
        super().__init__()
        width = spaces.flatdim(observation_space)
        self.frozen = nn.Linear(width, 4)
        self.frozen.requires_grad_(False)
        self.norm, self.dropout = nn.BatchNorm1d(4), nn.Dropout(rate)

    def forward(self, observations):
        return self.dropout(self.norm(self.frozen(observations.flatten(1))))


class Head(nn.Sequential):
    def __init__(self, inputs, outputs):
        super().__init__(nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, outputs))


KINDS = {
    "extractor": {"features_extractor_class": Features, "net_arch": [4]},
    "networks": {"network": {"all": Head}},
}


def build(algorithm, kind="extractor", **options):
    env = Recorder(spaces.Discrete(3)) if algorithm is DQN else Recorder()
    return algorithm("MlpPolicy", env, policy_kwargs=KINDS[kind], **{**SMALL, **options})


def held(agent, *kinds):
    named = agent.learner.weights().items()
    return {name: value.clone() for name, value in named if any(kind in name for kind in kinds)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("algorithm", AGENTS)
def test_moments_move_in_updates_and_targets_follow_at_once(algorithm, kind):
    agent = build(algorithm, kind, tau=0.0).learn(10)
    before = held(agent, "running")
    agent.predict(agent.env.reset(), deterministic=False)
    assert all(torch.equal(value, before[name]) for name, value in held(agent, "running").items())
    weights = held(agent, "_target.")
    agent.learn(20)
    after = held(agent, "running")
    for name, value in after.items():
        assert not torch.equal(value, before[name])
        source = name.replace("_target.", ".")
        torch.testing.assert_close(value, after[source], rtol=0, atol=0)
    for name, value in held(agent, "_target.").items():
        assert "running" in name or torch.equal(value, weights[name])  # tau = 0


@pytest.mark.parametrize("algorithm", AGENTS)
def test_targets_wait_for_their_interval(algorithm):
    agent = build(algorithm, target_update_interval=100).learn(20)
    found = held(agent, "running_mean")
    assert not found["critic_target.features_extractor.norm.running_mean"].any()
    assert found["critic.features_extractor.norm.running_mean"].any()


@pytest.mark.parametrize("algorithm", AGENTS)
def test_evaluation_is_repeatable_and_saved(algorithm, tmp_path):
    agent = build(algorithm).learn(30)
    x = agent.env.reset()
    first = agent.predict(x, deterministic=True)[0]
    assert (agent.predict(x, deterministic=True)[0] == first).all()
    agent.save(tmp_path / "agent")
    loaded = algorithm.load(tmp_path / "agent", device="cpu", trust=True)
    assert (loaded.predict(x, deterministic=True)[0] == first).all()


def test_dropout_draws_from_the_learner_and_leaves_torchs_generator():
    one, other = (build(SAC).learn(12) for _ in range(2))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one.train(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    other.train(3)
    found = zip(held(one, "").values(), held(other, "").values(), strict=True)
    assert all(torch.equal(*pair) for pair in found)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", AGENTS)
def test_a_training_continues_exactly(algorithm, tmp_path):
    walk = {"discrete": True} if algorithm is DQN else {}
    setting = (algorithm, build_walk, "walk", 1, {"policy_kwargs": KINDS["extractor"]})
    assert_resumes(tmp_path, *setting, rounds=(44, 25, 6), **walk)


@pytest.mark.parametrize("optimiser", ["adamw", "SGD"])
def test_no_optimiser_steps_frozen_parameters(optimiser):
    agent = build(SAC, optimiser=optimiser, weight_decay=0.5)
    before = held(agent, "frozen")
    agent.learn(30)
    assert before
    assert all(torch.equal(value, before[name]) for name, value in held(agent, "frozen").items())
