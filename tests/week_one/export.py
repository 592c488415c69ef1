"""A policy traced and saved for a program without this suite, as in SB3's guide."""

import sys
import warnings

import numpy as np
import torch

from rlkit.agents import SAC

STEPS = int(sys.argv[1])


class Actor(torch.nn.Module):
    def __init__(self, actor):
        super().__init__()
        self.actor = actor

    def forward(self, observation):
        return self.actor(observation, deterministic=True)


model = SAC("MlpPolicy", "Pendulum-v1", learning_starts=20, batch_size=32, seed=0).learn(STEPS)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of torch about its own function
    traced = torch.jit.trace(Actor(model.policy.actor).eval(), torch.randn(1, 3))
    torch.jit.save(torch.jit.freeze(traced), "actor.pt")
    actor = torch.jit.load("actor.pt")
observations = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
with torch.no_grad():
    scaled = actor(torch.as_tensor(observations)).numpy()
expected, _ = model.predict(observations, deterministic=True)
np.testing.assert_allclose(model.policy.unscale_action(scaled), expected, rtol=1e-4, atol=1e-5)
