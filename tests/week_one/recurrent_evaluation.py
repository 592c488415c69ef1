"""A recurrent agent, evaluated by `evaluate_policy` and by a loop over states."""

import sys

import numpy as np
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import rlkit.envs  # noqa: F401 (registers the ids)
from rlkit.agents import SAC

STEPS = int(sys.argv[1])

env = make_vec_env("rlkit/Pendulum-HiddenVelocity-v0", n_envs=2, seed=0)
model = SAC("MlpPolicy", env, encoder="gru", window=8, learning_starts=50, batch_size=8, seed=0)
model.learn(STEPS)
mean, _ = evaluate_policy(model, env, n_eval_episodes=2)
assert -2000 < mean < 0

observation, states, starts = env.reset(), None, np.ones(env.num_envs, dtype=bool)
for _ in range(10):
    action, states = model.predict(observation, states, starts, deterministic=True)
    observation, _, starts, _ = env.step(action)
assert states is not None
