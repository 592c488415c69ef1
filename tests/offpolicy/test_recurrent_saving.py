"""Recurrent agents as files: settings, weights, hidden states, also those in the replay buffer."""

import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from resuming import assert_same
from small_envs import Recorder

from rlkit.agents import DQN, SAC, TD3
from rlkit.envs.make import make
from rlkit.networks.encoders import check_encoder
from rlkit.replay import NonFiniteError
from rlkit.vec.vec_env import make_vec_env

REACH, HIDDEN_REACH = "rlkit/PlanarReach-HiddenVelocity-v0", "rlkit/HiddenGoalReach-v0"
SMALL = {"net_arch": [8], "batch_size": 4, "learning_starts": 10, "seed": 0, "device": "cpu"}
GRU = {"name": "gru", "hidden": 6}
RECURRENT = {**SMALL, "buffer_size": 300, "encoder": GRU, "window": 5}


def environment(algorithm, num_envs=2, env_id=None):
    env_id = env_id or ("rlkit/CueMaze-v0" if algorithm is DQN else REACH)
    return make_vec_env(make, env_id, num_envs, 0)


def trained(algorithm=SAC, env_id=None, steps=60, **options):
    env = environment(algorithm, env_id=env_id)
    return algorithm("MultiInputPolicy", env, **{**RECURRENT, **options}).learn(steps)


def rollout(agent, algorithm, env_id=None, steps=7):
    """Actions in some steps of three episodes, and the hidden state after each."""
    env = environment(algorithm, 3, env_id)
    env.seed(5)
    observation, state, done = env.reset(), None, np.ones(3, np.bool_)
    outcomes = []
    for _ in range(steps):
        action, state = agent.predict(observation, state, done, deterministic=True)
        observation, _, done, _ = env.step(action)
        outcomes.append((action, list(state)))
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "encoder", "options"),
    [
        (SAC, GRU, {"start": "stored", "burn_in": 2}),
        (TD3, {"name": "lstm", "hidden": 5, "layers": 2}, {"goal_mode": "early"}),
        (SAC, "mingru", {"encoder_sharing": "detached"}),
        (DQN, {"name": "transformer", "hidden": 8, "heads": 2, "layers": 1, "context": 5}, {}),
        (DQN, GRU, {"window": 0}),
        (TD3, {"name": "conv", "hidden": 5, "layers": 2}, {"start": "stored"}),
    ],
)
def test_a_loaded_agent_does_the_same_with_and_without_an_environment(
    tmp_path, algorithm, encoder, options
):
    agent = trained(algorithm, encoder=encoder, **options)
    agent.save(tmp_path / "agent")
    expected = rollout(agent, algorithm)
    for env in (None, environment(algorithm)):
        loaded = algorithm.load(tmp_path / "agent", env, device="cpu")
        assert_same(rollout(loaded, algorithm), expected)
        assert loaded.config == agent.config
        assert loaded.learner.recurrent.encoder == agent.learner.recurrent.encoder
    states = [state for _, state in expected]
    assert not torch.equal(states[0][1], states[1][1])


@pytest.mark.slow
@pytest.mark.parametrize("env_id", [REACH, HIDDEN_REACH])
def test_a_loaded_agent_trains_on(tmp_path, env_id):
    options = {"start": "stored"} if env_id == REACH else {"burn_in": 2}
    agent = trained(env_id=env_id, **options)
    agent.save(tmp_path / "agent")
    agent.save_replay_buffer(tmp_path / "replay")
    loaded = SAC.load(tmp_path / "agent", environment(SAC, env_id=env_id), device="cpu")
    loaded.load_replay_buffer(tmp_path / "replay")
    ours, theirs = (
        loaded.replay_buffer.storage.hidden_state,
        agent.replay_buffer.storage.hidden_state,
    )
    assert len(ours) == (2 if env_id == REACH else 0)  # of the actor's encoder and the critics'
    assert_same(list(ours), list(theirs))
    loaded.learn(40, reset_num_timesteps=False)
    assert loaded.num_timesteps == 100
    assert loaded._n_updates > agent._n_updates
    starts = agent.replay_buffer.storage.begins
    assert not starts.all()  # but the step after a load begins an episode
    seams = (
        loaded.replay_buffer.storage.truncated.sum() - agent.replay_buffer.storage.truncated.sum()
    )
    assert seams >= 2


@pytest.mark.slow
def test_without_a_reset_an_episode_continues_with_its_hidden_state(tmp_path):
    agent = trained(steps=62, start="stored")
    assert not agent._last_episode_starts.any()
    agent.save(tmp_path / "agent")
    agent.save_replay_buffer(tmp_path / "replay")
    loaded = SAC.load(tmp_path / "agent", agent.env, device="cpu", force_reset=False)
    loaded.load_replay_buffer(tmp_path / "replay", truncate_last_traj=False)
    assert_same(list(loaded.hidden_state), list(agent.hidden_state))
    loaded.learn(8, reset_num_timesteps=False)
    assert not loaded.replay_buffer.storage.truncated.any()
    fresh = SAC.load(tmp_path / "agent", agent.env, device="cpu")
    assert_same(list(fresh.hidden_state), list(fresh.learner.initial(2)))
    with pytest.raises(ValueError, match=r"start, encoder or number .* force_reset=True"):
        SAC.load(tmp_path / "agent", agent.env, force_reset=False, start="zero")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoder": {"name": "gru", "hidden": 7}}, r"'hidden_state\.0'.*the same hidden state"),
        ({"start": "zero"}, "another hidden state"),
        ({"encoder": {"name": "lstm", "hidden": 6}}, "another hidden state|same hidden state"),
        ({"encoder": None, "start": "zero"}, "another hidden state"),
    ],
)
def test_a_replay_buffer_with_other_hidden_states_is_refused(tmp_path, changed, message):
    trained(start="stored").save_replay_buffer(tmp_path / "replay")
    other = SAC("MultiInputPolicy", environment(SAC), **{**RECURRENT, "start": "stored", **changed})
    with pytest.raises(ValueError, match=message):
        other.load_replay_buffer(tmp_path / "replay")
    assert len(other.replay_buffer) == 0
    assert not other.replay_buffer.storage.action.any()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed", [{"encoder": "lstm"}, {"encoder": None}, {"goal_mode": "early"}]
)
def test_loading_with_another_encoder_is_refused(tmp_path, changed):
    trained().save(tmp_path / "agent")
    with pytest.raises(ValueError, match="encoder"):
        SAC.load(tmp_path / "agent", **changed)


@pytest.mark.slow
def test_an_encoder_that_reads_rewards_needs_the_environment(tmp_path):
    agent = trained(previous_reward=True)
    agent.save(tmp_path / "agent")
    loaded = SAC.load(tmp_path / "agent", device="cpu")
    with pytest.raises(ValueError, match=r"no environment; load it with one, load\(path, env\)"):
        rollout(loaded, SAC)
    loaded.set_env(environment(SAC))
    assert_same(rollout(loaded, SAC), rollout(agent, SAC))


def test_a_mapping_with_sequences_is_saved_as_plain_data(tmp_path):
    agent = SAC("MlpPolicy", Recorder(), **{**RECURRENT, "encoder": {**GRU, "layers": 2}})
    agent.options["encoder"] = {**GRU, "layers": 2, "widths": (1, (2, 3))}
    agent.save(tmp_path / "agent")
    with pytest.raises(ValueError, match="'widths'"):
        SAC.load(tmp_path / "agent")


# Invalid values


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["observation", "restart", "reward"])
def test_a_value_that_is_not_finite_stops_before_it_is_learned_from_or_stored(broken):
    env = Recorder(broken_at=45, broken=broken)
    agent = SAC("MlpPolicy", env, **{**RECURRENT, "start": "stored"})
    weights = []

    def train():
        for _ in agent.iterate(1000):
            weights.append({name: view.clone() for name, view in agent.learner.weights().items()})

    with pytest.raises(NonFiniteError, match="before it could reach the weights"):
        train()
    assert agent._n_updates > 20
    assert_same(weights[-1], dict(agent.learner.weights()))
    stored = (
        *agent.replay_buffer.storage.hidden_state,
        *agent.replay_buffer.storage.observation.values(),
        *agent.hidden_state,
    )
    assert all(np.isfinite(np.asarray(part)).all() for part in stored)


def test_predict_names_the_shapes_of_a_state_that_does_not_fit():
    agent = trained(steps=4, start="zero")
    three, two = (environment(SAC, n).reset() for n in (3, 2))
    _, state = agent.predict(three)
    with pytest.raises(ValueError, match=r"state has shapes \[\(3, 2\), \(3, 6\)\].*or None"):
        agent.predict(two, state)
    with pytest.raises(ValueError, match="state has shapes"):
        agent.predict(three, state[:1])
    arrays = tuple(part.numpy() for part in state)
    one, other = (agent.predict(three, given, deterministic=True) for given in (state, arrays))
    assert_same([one[0], list(one[1])], [other[0], list(other[1])])
    single = {key: part[0] for key, part in two.items()}
    assert agent.predict(single, episode_start=True)[0].shape == (2,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 1.5}, r"window = 1\.5 must be a whole number"),
        ({"burn_in": "4"}, "burn_in = '4' must be a whole number"),
        ({"previous_action": "no"}, "previous_action = 'no' must be true or false"),
        ({"gamma": "high"}, "gamma = 'high' must be a number"),
        ({"encoder_lr": 1e-4, "learning_rate": lambda left: 1 - left}, "begins at 0"),
    ],
)
def test_settings_of_another_kind_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        SAC("MlpPolicy", Recorder(), **{**RECURRENT, **options})


@pytest.mark.parametrize("none", [None, "none", "None", {"name": "none"}])
def test_every_spelling_of_none_gives_a_feed_forward_agent(none):
    agent = SAC("MlpPolicy", Recorder(), encoder=none)
    assert not agent.config.is_recurrent
    assert agent.config.windows == 256
    assert agent.replay_buffer.window == 1
    assert agent.hidden_state == ()


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("stored", r"[\d,]{15,} of them for the hidden state .* start = \"zero\""),
        ("zero", r"[\d,]{15,} bytes of [\d,]+ that are available: lower buffer_size"),
    ],
)
def test_a_replay_that_the_machine_cannot_hold_names_its_size(start, message):
    options = {**RECURRENT, "start": start, "buffer_size": 10**14}
    with pytest.raises(ValueError, match=r"100,000,000,000,000 steps \(buffer_size\).*" + message):
        SAC("MlpPolicy", Recorder(), **options)


# An encoder of the user's own

TRACE = '''
from dataclasses import dataclass, replace

import torch

@dataclass(frozen=True)
class Trace:
    """A fading sum of the inputs, and a step count."""
    fade: float = 0.5
    inputs: int = 0

    features = property(lambda self: self.inputs + 1)
    size = property(lambda self: self.inputs)
    def with_inputs(self, inputs):
        return replace(self, inputs=inputs)
    def views(self, vector):
        return {"gain": vector}
    def initial_parameters(self, generator):
        return torch.ones(self.inputs)
    def initial(self, count, device="cpu"):
        zeros = torch.zeros(count, self.inputs, device=device)
        return zeros, torch.zeros(count, dtype=torch.int64, device=device)
    def step(self, vector, x, hidden_state, is_first):
        trace = self.fade * hidden_state[0] * ~is_first.unsqueeze(-1) + x * vector
        age = hidden_state[1] * ~is_first + 1
        return torch.cat([trace, 1 / age.unsqueeze(-1)], -1), (trace.detach(), age)
    def scan(self, vector, x, hidden_state, is_first, generator=None):
        trace, age, features = hidden_state[0], hidden_state[1], []
        for t in range(x.shape[1]):
            trace = self.fade * trace * ~is_first[:, t, None] + x[:, t] * vector
            age = age * ~is_first[:, t] + 1
            features.append(torch.cat([trace, 1 / age.unsqueeze(-1)], -1))
        return torch.stack(features, 1), (trace.detach(), age)
'''


@pytest.fixture
def my_encoders(tmp_path, monkeypatch):
    """A user's module with the class `Trace`."""
    (tmp_path / "my_encoders.py").write_text(TRACE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield __import__("my_encoders")
    del sys.modules["my_encoders"]


@pytest.mark.slow
@pytest.mark.parametrize("start", ["zero", "stored"])
@pytest.mark.parametrize("algorithm", [SAC, TD3, DQN])
def test_an_encoder_of_the_users_own_trains_saves_and_loads(
    tmp_path, my_encoders, algorithm, start
):
    check_encoder(my_encoders.Trace(fade=0.9))
    encoder = {"name": "my_encoders:Trace", "fade": 0.9}
    env_id = "rlkit/BitFlip-v0" if algorithm is DQN else REACH
    agent = trained(algorithm, env_id, encoder=encoder, start=start)
    gains = [view for name, view in agent.learner.weights().items() if name.endswith("gain")]
    assert any(not torch.equal(gain, torch.ones_like(gain)) for gain in gains)
    agent.save(tmp_path / "agent")
    env = environment(algorithm, env_id=env_id)
    loaded = algorithm.load(tmp_path / "agent", env, device="cpu", trust=True)
    assert_same(rollout(loaded, algorithm, env_id), rollout(agent, algorithm, env_id))
    assert loaded.learn(20, reset_num_timesteps=False)._n_updates > agent._n_updates
    same_object = algorithm(
        "MultiInputPolicy",
        env,
        **{**RECURRENT, "encoder": my_encoders.Trace(0.9), "start": start},
    )
    assert same_object.options["encoder"] == encoder


def test_an_encoder_that_lacks_a_method_is_refused(my_encoders):
    class Half(my_encoders.Trace):
        scan = property()

    with pytest.raises(ValueError, match="it lacks scan"):
        SAC("MlpPolicy", gym.make("Pendulum-v1"), encoder=Half())
