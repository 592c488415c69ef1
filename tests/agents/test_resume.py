"""A run that was saved, loaded in a fresh agent and continued equals one that went on."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise

from rlkit.agents import DQN, SAC, TD3
from rlkit.envs.construct import make
from rlkit.experiment.checkpoint import read_checkpoint, write_checkpoint
from rlkit.experiment.vec_env import make_vec_env

SMALL = {"net_arch": [16], "batch_size": 16, "learning_starts": 40, "buffer_size": 300}
TOTAL = 10_000


class Walk(gym.Env):
    """A random walk that nobody can save: its episodes have to be cut."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, discrete=False):
        self.action_space = (
            spaces.Discrete(3, start=-1) if discrete else spaces.Box(-2.0, 1.0, (1,), np.float32)
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.time = self.np_random.normal(size=2).astype(np.float32), 0
        return self.place.copy(), {}

    def step(self, action):
        noise = self.np_random.normal(size=2)
        self.place = (self.place + 0.1 * noise + 0.1 * np.mean(action)).astype(np.float32)
        self.time += 1
        lost = bool(np.abs(self.place).max() > 3)
        return self.place.copy(), -float(np.abs(self.place).sum()), lost, self.time == 25, {}


def build_walk(env_id, **kwargs):
    return Walk(**kwargs)


def start(algorithm, build, env_id, num_envs, options, noise=None, **env_kwargs):
    env = make_vec_env(build, env_id, num_envs, 7, **env_kwargs)
    policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
    settings = {**SMALL, **options, "action_noise": noise() if noise else None}
    return algorithm(policy, env, seed=3, device="cpu", **settings)


def advance(agent, rounds):
    """Some rounds of a training of TOTAL steps."""
    done = agent.num_timesteps
    course = agent.iterate(TOTAL - done, reset_num_timesteps=done == 0)
    for _ in itertools.islice(course, rounds):
        pass


def assert_same(one, other, place=()):
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_same(one[key], other[key], (*place, key))
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, (*place, i))
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, torch.as_tensor(other)), place
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other, err_msg=str(place))
    else:
        assert one == other, place


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


CONTINUOUS = [
    ("rlkit/PointMaze-U-v0", {}),
    ("rlkit/PlanarReach-v0", {"replay": {"steps": 3}, "update_ratio": 0.3}),
]


@pytest.mark.parametrize("algorithm", [SAC, TD3])
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize(("env_id", "options"), CONTINUOUS)
def test_environments_with_a_state_go_on_in_mid_episode(
    tmp_path, algorithm, num_envs, env_id, options
):
    agent = assert_resumes(tmp_path, algorithm, make, env_id, num_envs, options)
    assert agent.episodes_cut == 0


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("replay", [{}, {"steps": 3, "hindsight": {"final": 0.5, "played": 0.5}}])
def test_dqn_goes_on(tmp_path, num_envs, replay):
    assert_resumes(tmp_path, DQN, make, "rlkit/BitFlip-v0", num_envs, {"replay": replay})


def test_exploration_goes_on_where_it_was(tmp_path):
    options = {"exploration_fraction": 0.05, "exploration_final_eps": 0.0}
    agent = assert_resumes(tmp_path, DQN, make, "rlkit/BitFlip-v0", 2, options, bits=6)
    assert 0.3 < agent.exploration_rate < 0.6


def test_schedules_go_on(tmp_path):
    options = {"learning_rate": lambda left: 1e-3 * left, "max_grad_norm": 1.0}
    agent = assert_resumes(tmp_path, SAC, make, "rlkit/PointMaze-Open-v0", 2, options)
    assert 0 < agent.learner.learning_rate < 1e-3


@pytest.mark.parametrize("algorithm", [SAC, TD3, DQN])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_episodes_are_cut_where_an_environment_cannot_give_its_state(tmp_path, algorithm, num_envs):
    details = {"discrete": algorithm is DQN}
    agent = assert_resumes(tmp_path, algorithm, build_walk, "", num_envs, {}, **details)
    assert agent.episodes_cut > 0


def gaussian():
    return NormalActionNoise(np.zeros(2), 0.3 * np.ones(2))


def correlated():
    return OrnsteinUhlenbeckActionNoise(np.zeros(2), 0.3 * np.ones(2))


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("noise", [gaussian, correlated])
def test_action_noise_goes_on(tmp_path, num_envs, noise):
    assert_resumes(tmp_path, TD3, make, "rlkit/PointMaze-U-v0", num_envs, {}, noise)


@pytest.mark.parametrize("frequency", [7, (1, "episode")])
def test_every_rhythm_of_updates_goes_on(tmp_path, frequency):
    setting = (SAC, make, "rlkit/PointMaze-Open-v0", 1)
    options = {"train_freq": frequency, "gradient_steps": 4}
    assert_resumes(tmp_path, *setting, options, rounds=(8, 6, 3))


@pytest.mark.parametrize("algorithm", [SAC, TD3])
def test_a_simulated_robot_goes_on(tmp_path, algorithm):
    pytest.importorskip("gymnasium_robotics")
    agent = assert_resumes(tmp_path, algorithm, make, "FetchReach-v4", 1, {})
    assert agent.episodes_cut == 0


def test_state_of_other_settings_is_refused():
    setting = (make, "rlkit/PointMaze-U-v0", 2)
    agent = start(SAC, *setting, {})
    advance(agent, 3)
    state = agent.state_dict()
    with pytest.raises(ValueError, match="net_arch differ"):
        start(SAC, *setting, {"net_arch": [17]}).load_state_dict(state)
    with pytest.raises(ValueError, match="same environments, spaces and capacity"):
        start(SAC, make, "rlkit/PointMaze-U-v0", 3, {}).load_state_dict(state)
    with pytest.raises(ValueError, match="another agent"):
        start(TD3, *setting, {}).load_state_dict(state)
