"""DQN on discrete actions, with SB3's names."""

import sys

import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from rlkit.agents import DQN

STEPS = int(sys.argv[1])

env = make_vec_env("CartPole-v1", n_envs=2, seed=0)
model = DQN(
    "MlpPolicy",
    env,
    learning_rate=2.3e-3,
    batch_size=64,
    buffer_size=100_000,
    learning_starts=20,
    gamma=0.99,
    target_update_interval=10,
    train_freq=4,
    gradient_steps=2,
    exploration_fraction=0.16,
    exploration_final_eps=0.04,
    policy_kwargs={"net_arch": [64, 64]},
    seed=0,
)
model.learn(STEPS)
assert abs(model.exploration_rate - 0.04) < 1e-6
observation = torch.as_tensor(env.reset())
values = model.q_net(observation)
assert values.shape == model.q_net_target(observation).shape == (2, 2)
assert (model.predict(observation.numpy(), deterministic=True)[0] == values.argmax(1).numpy()).all()
assert evaluate_policy(model, env, n_eval_episodes=2)[0] >= 8
