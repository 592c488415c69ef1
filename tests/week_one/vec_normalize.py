"""VecNormalize with its statistics saved beside the agent."""

import sys

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from rlkit.agents import TD3

STEPS = int(sys.argv[1])

env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=2, seed=0), norm_obs=True, norm_reward=True)
# The environment scales already, so the agent need not.
model = TD3("MlpPolicy", env, learning_starts=20, batch_size=32, normalise=False, seed=0)
model.learn(STEPS)
model.save("agent")
env.save("statistics.pkl")

env = VecNormalize.load("statistics.pkl", make_vec_env("Pendulum-v1", n_envs=1, seed=1))
env.training, env.norm_reward = False, False
model = TD3.load("agent", env=env)
mean, _ = evaluate_policy(model, env, n_eval_episodes=1)
assert -2000 < mean < 0
