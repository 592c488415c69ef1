"""An agent with the surface that training needs, and next to nothing inside."""

import time

import numpy as np
import torch
from gymnasium import spaces

from rlkit.vec.env_state import set_vec_env_state, vec_env_state


class TinyAgent:
    def __init__(self, policy, env, *, seed=0, device="auto", verbose=0, rate=0.1, pause=0.0):
        assert policy == "MultiInputPolicy"
        self.env, self.rate, self.pause = env, rate, pause
        self.rng = np.random.default_rng(seed)
        assert isinstance(env.action_space, spaces.Box)
        size = sum(int(np.prod(space.shape)) for space in env.observation_space.spaces.values())
        self.weight = self.rng.normal(size=(size, env.action_space.shape[0])) * 0.1
        self.velocity = np.zeros_like(self.weight)
        self.num_timesteps = 0
        self.last = None
        self.goals, self.successes = [], []

    @classmethod
    def option_names(cls):
        return {"rate", "pause"}

    @property
    def goal_outcomes(self):
        return np.array(self.goals, float).reshape(-1, 2), np.array(self.successes, bool)

    def set_logger(self, logger):
        self.logger = logger

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        parts = [np.asarray(observation[key], float) for key in sorted(observation)]
        return np.tanh(np.concatenate(parts, axis=-1) @ self.weight).astype(np.float32), None

    def iterate(self, total_timesteps, callback=None, reset_num_timesteps=True):
        end = total_timesteps + (0 if reset_num_timesteps else self.num_timesteps)
        if self.last is None:
            self.last = self.env.reset()
        while self.num_timesteps < end:
            actions, _ = self.predict(self.last)
            noise = self.rng.normal(size=actions.shape).astype(np.float32)
            actions = np.clip(actions + noise, self.env.action_space.low, 1.0)
            self.last, rewards, dones, infos = self.env.step(actions)
            if not np.isfinite(rewards).all():
                raise ValueError(f"reward {rewards} is not finite")
            self.velocity = 0.9 * self.velocity + self.rate * noise.mean() * rewards.mean()
            self.weight = self.weight + 0.01 * self.velocity
            self.num_timesteps += self.env.num_envs
            self.logger.record_mean("train/loss", np.float32(noise.mean()))
            for done, info in zip(dones, infos, strict=True):
                if done:
                    self.goals.append(info["terminal_observation"]["desired_goal"].tolist())
                    self.successes.append(bool(info["is_success"]))
                    self.logger.record("rollout/ep_rew_mean", info["episode"]["r"])
                    self.logger.dump(self.num_timesteps)
            time.sleep(self.pause)
            yield self.num_timesteps

    def state_dict(self):
        return {
            "weights": {"policy": torch.from_numpy(self.weight)},
            "optimiser": {"velocity": torch.from_numpy(self.velocity)},
            "replay": {"goals": np.array(self.goals, float), "successes": self.successes},
            "training": {
                "steps": self.num_timesteps,
                "rng": self.rng.bit_generator.state,
                "envs": vec_env_state(self.env),
                "last": self.last,
            },
        }

    def load_state_dict(self, state):
        training = state["training"]
        self.weight = state["weights"]["policy"].numpy()
        self.velocity = state["optimiser"]["velocity"].numpy()
        self.goals, self.successes = state["replay"]["goals"].tolist(), state["replay"]["successes"]
        self.num_timesteps = training["steps"]
        self.rng.bit_generator.state = training["rng"]
        self.env.reset()
        set_vec_env_state(self.env, training["envs"])
        self.last = training["last"]
