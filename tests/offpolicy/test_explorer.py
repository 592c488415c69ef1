"""The explorer: its rewards, its share of episodes, its exact state, and that it changes goals."""

import numpy as np
import pytest
from gymnasium import spaces

from rlkit.agents import DQN, SAC, TD3
from rlkit.envs.make import make
from rlkit.goals import DistanceRule, GoalEnv
from rlkit.io.checkpoint import read_checkpoint, write_checkpoint
from rlkit.offpolicy.explorer import ExplorerSettings, explorer_settings
from rlkit.vec.vec_env import make_vec_env

SMALL = {"net_arch": [16], "batch_size": 32, "device": "cpu", "seed": 3, "learning_starts": 200}
EXPLORER = {"share": 0.5, "net_arch": [16], "update_every": 4}


def start(algorithm=SAC, env="rlkit/PointMaze-U-v0", num_envs=2, **options):
    """An agent with an explorer that has not collected."""
    settings = {**SMALL, "explorer": EXPLORER, "update_ratio": 0.2, **options}
    return algorithm("MultiInputPolicy", make_vec_env(make, env, num_envs, 7), **settings)


def test_settings_are_checked():
    assert explorer_settings(None) is None
    assert explorer_settings("none") is None
    assert explorer_settings(0.3) == ExplorerSettings(share=0.3)
    assert explorer_settings({"net_arch": [8]}).net_arch == (8,)
    for wrong, message in (
        (0, r"explorer.share must lie in \(0, 1\], got 0"),
        (1.5, "explorer.share"),
        ({"gamma": 1.0}, r"explorer.gamma must lie in \[0, 1\), got 1.0"),
        ({"update_every": 0}, "explorer.update_every must be at least 1, got 0"),
        ({"shares": 0.5}, "share"),
        ("half", 'explorer = .half. must be a share, a table of settings, or "none"'),
    ):
        with pytest.raises(ValueError, match=message):
            explorer_settings(wrong)


def test_it_needs_goals_that_are_vectors():
    for env, algorithm in (("Pendulum-v1", SAC), ("rlkit/BitFlip-v0", DQN)):
        policy = "MlpPolicy" if env == "Pendulum-v1" else "MultiInputPolicy"
        with pytest.raises(ValueError, match="needs goals that are vectors of a Box"):
            algorithm(policy, make_vec_env(make, env, 1, 7), explorer=0.5, device="cpu")


@pytest.mark.parametrize("algorithm", [SAC, TD3])
@pytest.mark.parametrize("encoder", [None, {"name": "gru", "hidden": 8}])
def test_every_agent_trains_with_it(algorithm, encoder):
    agent = start(algorithm, encoder=encoder)
    before = {k: v.clone() for k, v in agent.explorer.learner.weights().items()}
    agent.learn(830, log_interval=None)
    assert agent.metrics.updates == agent._n_updates == int(0.2 * 630)
    after = agent.explorer.learner.weights()
    assert agent.explorer.learner.updates == int(0.2 * 630) // 4
    assert any((after[name] != before[name]).any() for name in before)
    if encoder is not None:  # the encoder reads the actions that were taken
        last = agent.replay_buffer.storage
        slots = last.flat(np.arange(2), last.cursor - 1)
        np.testing.assert_allclose(agent.hidden_state[0].numpy(), last.action[slots])


def test_rewards_equal_a_loop():
    agent = start().learn(600)
    explorer, storage, rule = agent.explorer, agent.replay_buffer.storage, agent.rule
    batch = storage.window(*storage.sample_steps(200, np.random.default_rng(0)), 1)
    found = explorer._rewarded(batch, rule).reward[:, 0]
    stored = storage.has_action.nonzero()[0]
    achieved = storage.observation["achieved_goal"].astype(np.float64)
    moves = [achieved[i + 1] - achieved[i] for i in stored]
    scale = np.sqrt(np.mean([(move**2).sum() for move in moves]))
    asked = storage.goals.take(storage.goal_id[stored])
    low, high = asked.min(axis=0), asked.max(axis=0)
    for i, reward in enumerate(found):
        before, after = batch.observation["achieved_goal"][i].astype(np.float64)
        nearest = np.clip(after, low, high).astype(np.float32)
        inside = rule.success(after[None].astype(np.float32), nearest[None])[0]
        expected = min(np.linalg.norm(after - before) / scale, 1.0) * inside
        assert reward == pytest.approx(expected, abs=1e-4)
    assert (found > 0).any()


def begun(agent, episodes):
    """Of so many episodes that begin, which the explorer begins, and for how many steps."""
    first = np.ones(agent.n_envs, np.bool_)
    action = agent.adapter.random_actions(agent.n_envs, np.random.default_rng(0))
    until = []
    for _ in range(episodes // agent.n_envs):
        agent.explorer.act(agent, agent._last_obs, action, first)
        until.append(agent.explorer._until.copy())
    return np.concatenate(until)


def test_its_share_falls_with_success():
    agent = start(num_envs=4, learning_starts=10**6).learn(800)
    until = begun(agent, 1200)
    assert agent.explorer._longest == 100
    assert (until > 0).mean() == pytest.approx(0.5, abs=0.06)
    assert until[until > 0].mean() == pytest.approx(50.5, abs=6)
    agent.explorer._success = 0.8
    assert (begun(agent, 1200) > 0).mean() == pytest.approx(0.1, abs=0.04)
    agent.explorer._success = 1.0
    assert (begun(agent, 200) == 0).all()


def test_success_counts_episodes_of_the_agent_alone():
    agent = start(num_envs=3)
    explorer, goal = agent.explorer, np.zeros((3, 2), np.float32)
    far = goal + 5
    explorer._until[:] = [0, 7, 0]
    before = {"achieved_goal": goal, "desired_goal": goal}
    rows, ended = np.zeros((3, agent.adapter.sizes.observation), np.float32), np.ones(3, np.bool_)
    after = {"achieved_goal": np.stack([goal[0], goal[0], far[0]]), "desired_goal": goal}
    explorer.observe(before, after, rows, ended, agent.rule)
    assert explorer._success == pytest.approx(0.03 * (1 - 0.03))


def test_training_goes_on_exactly(tmp_path):
    whole, parts = start(), start()
    whole.learn(700)
    write_checkpoint(tmp_path / "whole", whole.state_dict())
    whole.learn(300, reset_num_timesteps=False)
    parts.load_state_dict(read_checkpoint(tmp_path / "whole"))
    parts.learn(300, reset_num_timesteps=False)
    for name, tensor in whole.explorer.learner.weights().items():
        np.testing.assert_array_equal(parts.explorer.learner.weights()[name], tensor)
    storage = (agent.replay_buffer.storage for agent in (whole, parts))
    one, other = (part.action for part in storage)
    np.testing.assert_array_equal(one, other)
    np.testing.assert_equal(
        parts.explorer.state_dict()["rng"], whole.explorer.rng.bit_generator.state
    )


def test_nothing_is_drawn_without_it():
    agent = start(explorer=None)
    assert agent.explorer is None
    assert agent.replay_seed.n_children_spawned == 0


class Switch(GoalEnv):
    """What is achieved moves where the first action lies above 0.6: one random action in five."""

    rule = DistanceRule(0.05)
    action_space = spaces.Box(-1, 1, (2,), np.float32)
    observation_space = spaces.Dict(
        {
            "observation": spaces.Box(-1, 1, (1,), np.float32),
            "achieved_goal": spaces.Box(-9, 9, (1,), np.float32),
            "desired_goal": spaces.Box(-9, 9, (1,), np.float32),
        }
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.at = 0, np.zeros(1, np.float32)
        self.goal = self.np_random.uniform(-3, 3, 1).astype(np.float32)
        return self._observe(), {}

    def step(self, action):
        self.time += 1
        if action[0] > 0.6:
            self.at = self.at + np.float32(0.1)
        reward = self.compute_reward(self.at, self.goal)
        return self._observe(), reward, False, self.time == 20, {}

    def _observe(self):
        return {
            "observation": np.zeros(1, np.float32),
            "achieved_goal": self.at,
            "desired_goal": self.goal,
        }


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_learns_to_change_the_achieved_goal(seed):
    quick = {"learning_rate": 3e-3, "initial_ent_coef": 0.05, "entropy_in_target": False}
    settings = {**SMALL, **quick, "seed": seed, "explorer": EXPLORER}
    agent = SAC("MultiInputPolicy", Switch(), **settings)
    explorer, first = agent.explorer, np.ones(1, np.bool_)
    agent.learning_starts = 10**6
    agent.learn(600)
    x = np.zeros((400, agent.adapter.sizes.observation), np.float32)

    def share():
        action, _ = explorer.learner.act(x, x[:, :0], (), first, explore=True)
        return (action[:, 0] > 0.6).mean()

    assert share() < 0.4
    explorer.learn(agent, 4 * 600)
    assert share() > 0.7
