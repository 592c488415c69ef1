"""Networks, activations, optimisers and a features extractor of one's own."""

import sys

import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from rlkit.agents import SAC, TD3

STEPS = int(sys.argv[1])


class Features(BaseFeaturesExtractor):
    def __init__(self, observation_space, features_dim=32):
        super().__init__(observation_space, features_dim)
        self.net = nn.Sequential(nn.Linear(observation_space.shape[0], features_dim), nn.Tanh())

    def forward(self, observations):
        return self.net(observations)


policy_kwargs = {
    "net_arch": {"pi": [32], "qf": [64, 64]},
    "activation_fn": nn.ELU,
    "optimizer_class": torch.optim.RMSprop,
    "optimizer_kwargs": {"alpha": 0.95},
    "features_extractor_class": Features,
    "features_extractor_kwargs": {"features_dim": 16},
}
for algorithm in (SAC, TD3):
    model = algorithm(
        "MlpPolicy",
        "Pendulum-v1",
        policy_kwargs=policy_kwargs,
        learning_starts=20,
        batch_size=32,
        train_freq=4,
        seed=0,
    )
    model.learn(STEPS // 2)
    model.save("mine")
    loaded = algorithm.load("mine", custom_objects={"policy_kwargs": policy_kwargs})
    observation = model.observation_space.sample()
    action = model.predict(observation, deterministic=True)[0]
    assert (loaded.predict(observation, deterministic=True)[0] == action).all()
    assert model.policy.actor.features_extractor.net.get_submodule("0").weight.shape == (16, 3)
