"""Trainings that are stopped and resumed, compared with ones that were not stopped."""

import itertools

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from rlkit.io.checkpoint import read_checkpoint, write_checkpoint
from rlkit.vec.vec_env import make_vec_env

SMALL = {"net_arch": [16], "batch_size": 16, "learning_starts": 40, "buffer_size": 300}
TOTAL = 10_000


class RandomWalk(gym.Env):
    """A random walk whose state cannot be saved: its episodes have to be cut."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, discrete=False):
        self.action_space = (
            spaces.Discrete(3, start=-1) if discrete else spaces.Box(-2.0, 1.0, (1,), np.float32)
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.time = self.np_random.normal(size=2).astype(np.float32), 0
        return self.position.copy(), {}

    def step(self, action):
        noise = self.np_random.normal(size=2)
        self.position = (self.position + 0.1 * noise + 0.1 * np.mean(action)).astype(np.float32)
        self.time += 1
        is_out = bool(np.abs(self.position).max() > 3)
        return (
            self.position.copy(),
            -float(np.abs(self.position).sum()),
            is_out,
            self.time == 25,
            {},
        )


def build_walk(env_id, **kwargs):
    return RandomWalk(**kwargs)


def start(algorithm, build, env_id, num_envs, options, noise=None, **env_kwargs):
    env = make_vec_env(build, env_id, num_envs, 7, **env_kwargs)
    policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
    small = {name: value for name, value in SMALL.items() if name in algorithm.option_names()}
    settings = {**small, **options, "action_noise": noise() if noise else None}
    return algorithm(policy, env, seed=3, device="cpu", **settings)


def advance(agent, rounds):
    """Some rounds of a training of TOTAL steps."""
    done = agent.num_timesteps
    training = agent.iterate(TOTAL - done, reset_num_timesteps=done == 0)
    for _ in itertools.islice(training, rounds):
        pass


def assert_same(one, other, path=()):
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], (*path, key))
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, (*path, i))
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, torch.as_tensor(other)), path
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other, err_msg=str(path))
    else:
        assert one == other, path


def assert_resumes(tmp_path, *setting, rounds=(60, 55, 20), **details):
    """Returns the agent that was never stopped."""
    whole = start(*setting, **details)
    advance(whole, rounds[0])
    write_checkpoint(tmp_path / "step-1", whole.state_dict())
    advance(whole, rounds[1])
    write_checkpoint(tmp_path / "step-2", whole.state_dict())
    advance(whole, rounds[2])
    write_checkpoint(tmp_path / "step-3", whole.state_dict())

    # Only now: agents in one process share the global generators, which are part of the state.
    for saved in (1, 2):
        resumed = start(*setting, **details)
        resumed.load_state_dict(read_checkpoint(tmp_path / f"step-{saved}"))
        advance(resumed, rounds[saved])
        write_checkpoint(tmp_path / "resumed", resumed.state_dict())
        expected = read_checkpoint(tmp_path / f"step-{saved + 1}")
        assert_same(forget_clocks(expected), forget_clocks(read_checkpoint(tmp_path / "resumed")))
    assert whole._n_updates > 20
    assert whole.learner.updates == whole._n_updates
    return whole


def forget_clocks(state):
    """Without the seconds that `Monitor` counts."""
    if isinstance(state, dict):
        return {k: forget_clocks(v) for k, v in state.items() if k not in ("t", "episode_times")}
    return [forget_clocks(v) for v in state] if isinstance(state, list) else state
