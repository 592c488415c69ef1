"""Environments in processes of their own."""

import sys

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from rlkit.agents import SAC

STEPS = int(sys.argv[1])

if __name__ == "__main__":
    env = make_vec_env("Pendulum-v1", n_envs=2, seed=0, vec_env_cls=SubprocVecEnv)
    model = SAC("MlpPolicy", env, learning_starts=20, batch_size=32, gradient_steps=-1, seed=0)
    model.learn(STEPS)
    assert model.num_timesteps == STEPS
    assert model.replay_buffer.actions.shape == (STEPS // 2, 2, 1)
    env.close()
