"""Diagnostics of recurrent encoders: they are correct, and recording them changes nothing."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.logger import KVWriter, Logger

from rlkit.agents import DQN, SAC, TD3
from rlkit.envs.make import make
from rlkit.io.checkpoint import read_checkpoint, write_checkpoint
from rlkit.networks.encoders import GRU
from rlkit.offpolicy import diagnostics
from rlkit.offpolicy.diagnostics import LONGEST, SPANS, diagnose
from rlkit.vec.vec_env import make_vec_env

ALGORITHMS = pytest.mark.parametrize("algorithm", [SAC, TD3, DQN])
SMALL = {"net_arch": [16], "batch_size": 4, "encoder": {"name": "gru", "hidden": 8}, "window": 6}
HIDDEN = 8


class Noise(gym.Env):
    """Observations of noise alone, for a given number of steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)

    def __init__(self, length=60, discrete=False):
        self.length = length
        self.action_space = spaces.Discrete(3) if discrete else spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._observe(), {}

    def step(self, action):
        self.time += 1
        return self._observe(), 1.0, False, self.time == self.length, {}

    def _observe(self):
        return self.np_random.normal(size=3).astype(np.float32)


def collected(algorithm=SAC, steps=300, length=60, num_envs=1, **options):
    """An agent that has collected and not learned."""
    env = make_vec_env(
        lambda _, **kw: Noise(**kw), "", num_envs, 7, length=length, discrete=algorithm is DQN
    )
    settings = {**SMALL, "learning_starts": 10**6, "device": "cpu", "seed": 3, **options}
    agent = algorithm("MlpPolicy", env, **settings)
    return agent.learn(steps)


def set_gates(agent, name, update_bias):
    """A GRU that reads its last input only (negative bias) or adds up all of them (positive)."""
    encoder = agent.learner.recurrent.encoder
    views = encoder.views(agent.learner.state[name][: encoder.size])
    views["0.recurrent.weight"].zero_()
    views["0.recurrent.bias"].zero_()
    views["0.input.weight"][HIDDEN : 2 * HIDDEN].zero_()
    views["0.bias"][HIDDEN : 2 * HIDDEN] = update_bias


def networks(algorithm):
    return ["critic"] if algorithm is DQN else ["actor", "critic"]


@pytest.mark.slow
@ALGORITHMS
def test_the_context_is_as_long_as_features_reach_back(algorithm):
    agent = collected(algorithm)
    for name in networks(algorithm):
        set_gates(agent, name, -30.0)
    found = diagnose(agent)
    for name in networks(algorithm):
        assert found[f"recurrent/context_{name}"] == 1
        assert found[f"recurrent/recovery_{name}"] < 1e-5
    set_gates(agent, "critic", 5.0)
    found = diagnose(agent)
    assert found["recurrent/context_critic"] >= 32
    assert found["recurrent/recovery_critic"] > 0.5
    if algorithm is not DQN:
        assert found["recurrent/context_actor"] == 1  # each network for itself


@pytest.mark.slow
@pytest.mark.parametrize(("half_life", "low", "high"), [(0.5, 2, 4), (2, 4, 16), (8, 16, 64)])
def test_the_context_follows_the_rate_of_forgetting(half_life, low, high):
    """With a share of 2^(-k / half-life) left after k steps, 10 % are left after 3.3 half-lives."""
    agent = collected(steps=1200, length=200)
    share = 2 ** (-1 / half_life)
    set_gates(agent, "actor", float(np.log(share / (1 - share))))
    assert low <= diagnose(agent)["recurrent/context_actor"] <= high


@pytest.mark.slow
def test_a_context_longer_than_any_span_is_the_longest():
    agent = collected(steps=600, length=300)
    set_gates(agent, "actor", 9.0)
    assert diagnose(agent)["recurrent/context_actor"] == LONGEST > max(SPANS)


@pytest.mark.slow
def test_an_episode_needs_no_more_context_than_it_has():
    agent = collected(length=4)
    set_gates(agent, "actor", 9.0)
    assert diagnose(agent)["recurrent/context_actor"] <= 4


@pytest.mark.slow
def test_a_longer_burn_in_recovers_more():
    distances = []
    for burn_in in (0, 2, 8, 64):
        agent = collected(burn_in=burn_in)
        set_gates(agent, "critic", 2.0)
        distances.append(diagnose(agent)["recurrent/recovery_critic"])
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.5
    assert 0 < distances[2] < 0.5
    assert distances[3] < 1e-5  # longer than any episode


@pytest.mark.slow
@ALGORITHMS
@pytest.mark.parametrize("num_envs", [1, 2])
def test_stored_hidden_states_become_stale_with_updates(algorithm, num_envs):
    """Before any update they equal those of a scan: it reads what acting read."""
    agent = collected(algorithm, num_envs=num_envs, start="stored", normalise=False)
    names = [f"recurrent/staleness_{name}" for name in networks(algorithm)]
    found = diagnose(agent)
    assert all(found[name] < 1e-5 for name in names)
    agent.train(20, 4)
    found = diagnose(agent)
    assert all(found[name] > 1e-3 for name in names)


@pytest.mark.slow
def test_changing_moments_make_stored_hidden_states_stale_too():
    agent = collected(start="stored", normalise=True)
    assert diagnose(agent)["recurrent/staleness_actor"] > 1e-3


@pytest.mark.parametrize(
    ("options", "kinds", "owners"),
    [
        ({}, {"context", "recovery", "staleness"}, {"actor", "critic"}),
        ({"start": "zero"}, {"context", "recovery"}, {"actor", "critic"}),
        ({"window": 0}, {"context"}, {"actor", "critic"}),
        ({"start": "stored"}, {"context", "recovery", "staleness"}, {"actor", "critic"}),
        ({"encoder_sharing": "detached", "start": "zero"}, {"context", "recovery"}, {"critic"}),
        (
            {"encoder_sharing": "joint", "start": "stored", "burn_in": 3},
            {"context", "recovery", "staleness"},
            {"critic"},
        ),
        ({"encoder": "none"}, set(), set()),
    ],
)
def test_the_diagnostics_follow_from_the_settings(options, kinds, owners):
    found = diagnose(collected(steps=100, **options))
    expected = {f"recurrent/{kind}_{owner}" for kind in kinds for owner in owners}
    assert found.keys() == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"encoder": {"name": "lstm", "hidden": 8, "layers": 2, "dropout": 0.3}},
        {"encoder": {"name": "mingru", "hidden": 8}, "previous_action": False},
        {"encoder": {"name": "conv", "hidden": 8}, "goal_mode": "mixed"},
        {"encoder": {"name": "transformer", "hidden": 8, "context": 8, "layers": 1}},
        {"previous_reward": True, "burn_in": 2, "replay": {"steps": 3}},
        {"start": "stored", "goal_mode": "late", "replay": {"steps": 2}},
    ],
)
def test_every_encoder_and_goal_mode_is_supported(options):
    env = make_vec_env(make, "rlkit/HiddenGoalReach-v0", 2, 7)
    agent = SAC("MultiInputPolicy", env, seed=3, learning_starts=60, **{**SMALL, **options})
    found = diagnose(agent.learn(150))
    assert len(found) >= 4
    for name, value in found.items():
        assert np.isfinite(value)
        assert value in (*SPANS, LONGEST) if "context" in name else value >= 0


@pytest.mark.slow
def test_encoders_read_the_original_goals():
    """Early mode, with an encoder of the visible goal alone: zero after five steps."""
    env = make_vec_env(make, "rlkit/HiddenGoalReach-v0", 1, 7)
    options = {**SMALL, "previous_action": False, "normalise": False, "learning_starts": 10**6}
    agent = SAC("MultiInputPolicy", env, seed=3, **options).learn(300)
    set_gates(agent, "actor", 9.0)
    encoder = agent.learner.recurrent.encoder
    views = encoder.views(agent.learner.state["actor"][: encoder.size])
    views["0.input.weight"][:, :-2] = 0  # all but the goal
    found = diagnose(agent)
    assert found["recurrent/context_actor"] == 64  # back to the start of 50 steps
    assert found["recurrent/recovery_actor"] == 1  # the goal is hidden


# During training


class Rows(KVWriter):
    """Keeps what a logger writes."""

    def __init__(self):
        self.rows = []

    def write(self, key_values, key_excluded, step=0):
        self.rows.append(dict(key_values))

    def close(self):
        pass

    @property
    def diagnosed(self):
        """Updates and diagnostics of the rows that hold any."""
        return [
            (row["train/n_updates"], {k: v for k, v in row.items() if k.startswith("recurrent/")})
            for row in self.rows
            if any(name.startswith("recurrent/") for name in row)
        ]


def start(**options):
    env = make_vec_env(make, "rlkit/PlanarReach-v0", 2, 7)
    encoder = GRU(hidden=8, layers=2, dropout=0.2)
    settings = {**SMALL, "encoder": encoder, "learning_starts": 40, "start": "stored", **options}
    agent = SAC("MultiInputPolicy", env, seed=3, device="cpu", **settings)
    rows = Rows()
    agent.set_logger(Logger(None, [rows]))
    return agent, rows


def advance(agent, rounds):
    done = agent.num_timesteps
    training = agent.iterate(10_000, log_interval=1, reset_num_timesteps=done == 0)
    for _ in itertools.islice(training, rounds):
        pass


@pytest.mark.slow
def test_training_is_the_same_without_diagnostics(monkeypatch):
    monkeypatch.setattr(diagnostics, "INTERVAL", 1)
    watched, rows = start()
    advance(watched, 160)
    assert len(rows.diagnosed) >= 3
    monkeypatch.setattr("rlkit.offpolicy.algorithm.record_diagnostics", lambda agent: None)
    alone, none = start()
    advance(alone, 160)
    assert none.diagnosed == []
    one, other = watched.learner.state_dict(), alone.learner.state_dict()
    assert all(torch.equal(one["weights"][k], other["weights"][k]) for k in one["weights"])
    np.testing.assert_array_equal(one["generator"], other["generator"])
    for rng, again in (
        (watched.replay_buffer.rng, alone.replay_buffer.rng),
        (watched.rng, alone.rng),
    ):
        assert rng.bit_generator.state == again.bit_generator.state


@pytest.mark.slow
def test_diagnostics_come_with_the_first_update_of_every_interval(monkeypatch):
    monkeypatch.setattr(diagnostics, "INTERVAL", 60)
    agent, rows = start()
    advance(agent, 260)
    made = [row["train/n_updates"] for row in rows.rows if "train/n_updates" in row]
    due = [
        now for last, now in itertools.pairwise([0, *made]) if (now - 1) // 60 > (last - 1) // 60
    ]
    assert [updates for updates, _ in rows.diagnosed] == due
    assert 3 <= len(due) < len(made)
    assert {f"recurrent/{kind}_actor" for kind in ("context", "recovery", "staleness")} <= (
        rows.diagnosed[0][1].keys()
    )


@pytest.mark.slow
def test_a_resumed_run_records_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(diagnostics, "INTERVAL", 60)
    whole, rows = start()
    advance(whole, 110)
    write_checkpoint(tmp_path / "step", whole.state_dict())
    before = len(rows.diagnosed)
    advance(whole, 150)
    resumed, again = start()
    resumed.load_state_dict(read_checkpoint(tmp_path / "step"))
    advance(resumed, 150)
    assert len(again.diagnosed) >= 2
    assert rows.diagnosed[before:] == again.diagnosed
