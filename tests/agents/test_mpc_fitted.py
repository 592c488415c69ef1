"""The agent that plans in a world that is fitted already, or of another kind."""

import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from imagined import Records
from safetensors.torch import load_file
from small_envs import Recorder

from rlkit.agents import MPC
from rlkit.cli import main as cli
from rlkit.world import Ensemble, Episodes, Layout, World

TINY = {
    "world": {"name": "ensemble", "members": 2, "hidden": [8]},
    "planner": {"name": "cem", "horizon": 3, "samples": 12, "iterations": 2, "elites": 2},
    "particles": 2,
    "first_fit": 3,
    "batch_size": 8,
    "learning_starts": 10,
    "train_freq": 5,
    "gradient_steps": 2,
    "buffer_size": 500,
    "seed": 0,
    "device": "cpu",
}


def agent_in(env, **options):
    return MPC("MlpPolicy", env, **{**TINY, **options})


def drift_data(seed=0, episodes=20):
    """What `Shift` does under random actions, in the environment's own units."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(episodes):
        action = rng.uniform(-3, 1, (10, 1)).astype(np.float32)
        x = np.concatenate([rng.uniform(-1, 1, (1, 1)), np.zeros((10, 1))]).astype(np.float32)
        for t in range(10):
            x[t + 1] = x[t] + 0.1 * (action[t] + 1)
        reward, terminated = -np.abs(x[1:, 0]), np.zeros(10, bool)
        found.append(
            {"observation": x, "action": action, "reward": reward, "terminated": terminated}
        )
    return Episodes.of(found)


class Shift(gym.Env):
    """A place that actions move by a tenth of their distance from -1; the reward is how near 0."""

    observation_space = spaces.Box(-5, 5, (1,))
    action_space = spaces.Box(-3.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.x.copy(), {}

    def step(self, action):
        self.x = (self.x + 0.1 * (action + 1)).astype(np.float32)
        return self.x.copy(), -float(np.abs(self.x[0])), False, False, {}


@pytest.fixture(scope="module")
def shifting():
    layout = Layout(1, 1, (), ("reward", "terminated"))
    generator = torch.Generator().manual_seed(0)
    world = World(Ensemble(members=2, hidden=(32,)), layout, generator)
    for _ in world.fit(drift_data(), steps=600, learning_rate=3e-3, generator=generator):
        pass
    return world


SEARCH = {"name": "cem", "horizon": 3, "samples": 60, "iterations": 3, "elites": 6}


@pytest.mark.slow
@pytest.mark.parametrize("given", ["object", "folder", "training"])
def test_a_fitted_world_is_planned_in_from_the_first_action_on(shifting, given, tmp_path):
    world = shifting
    if given != "object":
        world = str(tmp_path / "fitted")
        shifting.save(tmp_path / "fitted" / ("world" if given == "training" else ""))
    agent = agent_in(Shift(), world=world, planner=SEARCH, learning_starts=0, gradient_steps=0)
    assert agent.learner.updates == shifting.steps
    x = np.array([[-0.8], [-0.3], [0.3], [0.8]], np.float32)
    action = agent.predict(x, deterministic=True)[0]
    np.testing.assert_array_equal(np.sign(action + 1)[:, 0], [1, 1, -1, -1])
    agent.learn(20)
    assert agent.metrics._counts["world/fallbacks"] == 0
    agent.save(tmp_path / "agent")
    loaded = MPC.load(tmp_path / "agent", device="cpu")
    np.testing.assert_array_equal(loaded.predict(x, deterministic=True)[0], action)
    assert loaded.config.keep_scaling


@pytest.mark.slow
def test_a_fitted_world_is_fitted_further_without_losing_its_scaling(shifting):
    agent = agent_in(Shift(), world=shifting, planner=SEARCH, learning_starts=0)
    before = agent.learner.world.scaling
    agent.learn(20)
    assert agent.learner.updates > shifting.steps
    assert torch.equal(agent.learner.world.scaling.observation.shift, before.observation.shift)


def test_a_world_of_other_columns_is_refused(shifting):
    with pytest.raises(ValueError, match=r"has 1 columns.* needs 3 columns"):
        agent_in(Recorder(), world=shifting)


@pytest.mark.slow
def test_worlds_that_grow_with_the_data_are_planned_in(tmp_path):
    """The nearest records are the parameters, of which there are more after every fit."""
    world = {"name": f"{Records.__module__}:Records"}
    agent = agent_in(Shift(), world=world, planner=SEARCH, learning_starts=40).learn(80)
    assert len(agent.policy.state_dict()["world.inputs"]) > 40
    agent.learn(20, reset_num_timesteps=False)
    assert all(
        torch.equal(agent.policy.state_dict()[k], v) for k, v in agent.learner.weights().items()
    )
    agent.save(tmp_path / "agent")
    loaded = MPC.load(tmp_path / "agent", device="cpu", trust=True)
    x = np.array([[-0.8], [0.8]], np.float32)
    action = loaded.predict(x, deterministic=True)[0]
    np.testing.assert_array_equal(action, agent.predict(x, deterministic=True)[0])


@pytest.mark.slow
def test_terminations_can_be_bernoulli():
    agent = agent_in(Recorder(), binary_termination=True).learn(40)
    assert agent.learner.world.layout.binary == ("terminated",)
    assert torch.equal(agent.learner.world.scaling.outcome.deviation[1:], torch.ones(1))


@pytest.mark.slow
def test_the_command_line_plans_in_a_fitted_world(tmp_path, monkeypatch):
    def rlkit(*words):
        monkeypatch.setattr(sys, "argv", ["rlkit", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0

    monkeypatch.chdir(tmp_path)
    data = ("--data", "Pendulum-v1", "--gather", "200", "--steps", "5", "--out", "fitted")
    rlkit("world", "train", "ensemble", *data, "--set", "members=2", "hidden=[8]")
    options = [f"agent_options.{name}={value}" for name, value in COMMAND.items()]
    run = ("--env", "Pendulum-v1", "--agent", "mpc", "--steps", "20", "--out", "run")
    rlkit("train", *run, "--set", *options, *QUIET)
    (saved,) = (tmp_path / "run" / "checkpoints").rglob("weights.safetensors")
    planned_in = load_file(saved)
    scaling = World.load(tmp_path / "fitted" / "world").scaling
    torch.testing.assert_close(
        planned_in["scaling.observation.shift"], scaling.observation.shift, rtol=0, atol=0
    )


COMMAND = {
    "world": "fitted",
    "learning_starts": 0,
    "planner": '{name="cem",horizon=2,samples=4,iterations=1,elites=2}',
}
QUIET = (
    "goals=false",
    "evaluation.every=0",
    "evaluation.final_episodes=1",
    "pictures.video_episodes=0",
)
