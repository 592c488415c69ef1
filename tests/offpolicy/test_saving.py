"""Agents as files: loading restores what was saved and executes nothing."""

import io
import pickle
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from small_envs import Recorder
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.utils import LinearSchedule

from rlkit.agents import DQN, SAC, TD3
from rlkit.envs.make import make
from rlkit.io.archive import read_archive, write_archive
from rlkit.io.checkpoint import CheckpointError
from rlkit.io.spaces import space_from_plain, space_to_plain
from rlkit.vec.vec_env import make_vec_env

SMALL = {"net_arch": [8], "batch_size": 8, "learning_starts": 10, "seed": 0, "device": "cpu"}
MAZE = "rlkit/PointMaze-Open-v0"
AGENTS = [SAC, TD3, DQN]


def environment(algorithm, num_envs=2):
    return make_vec_env(make, "rlkit/BitFlip-v0" if algorithm is DQN else MAZE, num_envs, 0)


def trained(algorithm=SAC, steps=60, **options):
    agent = algorithm("MultiInputPolicy", environment(algorithm), **{**SMALL, **options})
    return agent.learn(steps)


def observations(algorithm):
    env = environment(algorithm, 5)
    env.seed(4)
    return env.reset()


def same(one, other):
    mine, theirs = one.learner.weights(), other.learner.weights()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


@pytest.mark.parametrize("algorithm", AGENTS)
def test_a_loaded_agent_acts_the_same_without_an_environment(algorithm, tmp_path):
    agent = trained(algorithm)
    agent.save(tmp_path / "agent")
    assert [path.name for path in tmp_path.iterdir()] == ["agent.zip"]
    for name in ("agent", "agent.zip"):
        loaded = algorithm.load(str(tmp_path / name), device="cpu")
        x = observations(algorithm)
        expected = agent.predict(x, deterministic=True)[0]
        np.testing.assert_array_equal(loaded.predict(x, deterministic=True)[0], expected)
        assert loaded.num_timesteps == 60
        assert loaded.config == agent.config
        assert loaded.observation_space == agent.observation_space
        assert loaded.action_space == agent.action_space
    assert loaded.random_fraction() == agent.random_fraction()


@pytest.mark.parametrize("algorithm", AGENTS)
def test_a_loaded_agent_trains_on(algorithm, tmp_path):
    agent = trained(algorithm, replay={"steps": 2, "hindsight": "final"}, train_freq=(1, "episode"))
    agent.save(tmp_path / "agent")
    agent.save_replay_buffer(tmp_path / "replay")
    loaded = algorithm.load(tmp_path / "agent", environment(algorithm), device="cpu")
    loaded.load_replay_buffer(tmp_path / "replay")
    assert loaded.replay_buffer.weights == agent.replay_buffer.weights
    assert loaded.replay_buffer.steps == 2
    assert len(loaded.replay_buffer) == len(agent.replay_buffer)
    loaded.learn(60, reset_num_timesteps=False)
    assert loaded.num_timesteps >= agent.num_timesteps + 60
    assert loaded._n_updates > agent._n_updates
    assert not same(loaded, agent)


@pytest.mark.slow
def test_an_agent_loaded_without_an_environment_can_be_given_one(tmp_path):
    trained().save(tmp_path / "agent")
    loaded = SAC.load(tmp_path / "agent", device="cpu")
    with pytest.raises(AssertionError):
        loaded.learn(10)
    loaded.set_env(environment(SAC))
    loaded.learn(200)
    assert loaded.replay_buffer.sample(500).relabelled.mean() > 0.6
    assert loaded.learner.bounds == pytest.approx((-100, 0))


def test_binary_files_serve_as_well(tmp_path):
    agent, stream = trained(), io.BytesIO()
    agent.save(stream)
    assert same(SAC.load(stream, device="cpu"), agent)
    with (tmp_path / "agent.bin").open("wb") as file:
        agent.save(file)
    with (tmp_path / "agent.bin").open("rb") as file:
        assert same(SAC.load(file, device="cpu"), agent)


@pytest.mark.slow
def test_loading_takes_changed_options(tmp_path):
    trained().save(tmp_path / "agent")
    loaded = SAC.load(tmp_path / "agent", device="cpu", learning_rate=1e-5, verbose=1, seed=9)
    assert (loaded.config.learning_rate, loaded.verbose, loaded.seed) == (1e-5, 1, 9)
    unknown = {"learning_rate": 1e-4, "replay_buffer": None}
    loaded = SAC.load(tmp_path / "agent", device="cpu", custom_objects=unknown)
    assert loaded.config.learning_rate == 1e-4
    with pytest.raises(ValueError, match="net_arch differ"):
        SAC.load(tmp_path / "agent", net_arch=[9])


def test_attributes_can_be_left_out(tmp_path):
    agent = trained()
    agent.save(tmp_path / "agent", exclude=["num_timesteps", "seed"], include=["seed"])
    loaded = SAC.load(tmp_path / "agent", device="cpu")
    assert (loaded.num_timesteps, loaded.seed) == (0, 0)


@pytest.mark.parametrize(
    ("schedule", "kept", "near"),
    [
        (lambda left: 1e-3 * left + 1e-5, 2, 1e-12),
        (lambda left: 1e-3 * left**2, 1001, 1e-9),
        (LinearSchedule(1e-3, 1e-4, 0.5), 1001, 1e-9),
        (lambda left: 1e-3 if left > 0.25 else 1e-4, 1001, 1e-3),  # a step, off by 0.1 % of it
    ],
)
def test_schedules_are_saved_as_tables_of_their_values(tmp_path, schedule, kept, near):
    trained(learning_rate=schedule).save(tmp_path / "agent")
    loaded = SAC.load(tmp_path / "agent", device="cpu")
    assert len(loaded.options["learning_rate"]["schedule"]) == kept
    for left in np.linspace(0, 1, 37):
        assert abs(loaded.lr_schedule(left) - schedule(left)) <= near


def test_a_table_of_a_schedule_is_checked():
    for wrong in ({"schedule": [1e-3]}, {"schedule": [1e-3, -1.0]}, {"schedul": [1, 2]}):
        with pytest.raises(ValueError, match=r"learning_rate = \{.*must"):
            trained(learning_rate=wrong)


def test_parameters_can_be_taken_and_given_through_the_policy():
    one, other = trained(), trained(seed=5)
    assert not same(one, other)
    other.set_parameters(one.get_parameters())
    assert same(one, other)
    other.policy.load_state_dict({k: v + 1 for k, v in one.policy.state_dict().items()})
    assert torch.equal(other.learner.state["actor"], one.learner.state["actor"] + 1)


# Files of other classes, and damaged ones


@pytest.mark.slow
def test_foreign_files_are_named_as_such(tmp_path):
    trained().save(tmp_path / "agent")
    with pytest.raises(CheckpointError, match="holds a SAC, not a TD3"):
        TD3.load(tmp_path / "agent")
    with pytest.raises(CheckpointError, match="does not exist"):
        SAC.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="holds no replay"):
        trained().load_replay_buffer(tmp_path / "agent.zip")
    trained().save_replay_buffer(tmp_path / "replay")
    with pytest.raises(CheckpointError, match="holds no agent"):
        SAC.load(tmp_path / "replay.replay")
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(CheckpointError, match="damaged or no archive"):
        SAC.load(tmp_path / "text.zip")


def test_another_environment_is_refused(tmp_path):
    trained().save(tmp_path / "agent")
    with pytest.raises(ValueError, match="spaces do not match"):
        SAC.load(tmp_path / "agent", make_vec_env(make, "rlkit/PlanarReach-v0", 2, 0))


def test_sb3s_own_archive_is_not_opened(tmp_path):
    stable_baselines3.SAC("MlpPolicy", gym.make("Pendulum-v1")).save(tmp_path / "theirs")
    with pytest.raises(CheckpointError, match="pickles, which could run code"):
        SAC.load(tmp_path / "theirs")


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was executed')",)


def test_a_pickle_is_never_executed(tmp_path):
    (tmp_path / "bare.zip").write_bytes(pickle.dumps(Bomb()))
    with zipfile.ZipFile(tmp_path / "zipped.zip", "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Bomb()))
    trained().save(tmp_path / "agent")
    with zipfile.ZipFile(tmp_path / "agent.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name in members:
        with zipfile.ZipFile(tmp_path / f"in-{name}.zip", "w") as archive:
            for other, content in members.items():
                archive.writestr(other, pickle.dumps(Bomb()) if other == name else content)
    files = sorted(tmp_path.glob("*.zip"))
    assert len(files) == len(members) + 3
    for path in files:
        if path.name != "agent.zip":
            with pytest.raises(CheckpointError):
                SAC.load(path)


def test_members_outside_of_the_archive_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "agent.zip", "w") as archive:
        archive.writestr("../escaped", b"")
        archive.writestr("manifest.json", b"{}")
    with pytest.raises(CheckpointError, match="not plain files"):
        SAC.load(tmp_path / "agent.zip")
    assert not (tmp_path.parent / "escaped").exists()


def test_every_damage_is_noticed(tmp_path):
    stream = io.BytesIO()
    write_archive(stream, {"weights": {"a": torch.arange(3.0)}, "agent": {"n": np.arange(400)}})
    whole = stream.getvalue()
    expected = read_archive(stream)
    rng = np.random.default_rng(0)
    for index in rng.integers(0, len(whole), 400):
        damaged = bytearray(whole)
        damaged[index] ^= 1 << int(rng.integers(8))
        try:
            state = read_archive(io.BytesIO(bytes(damaged)))
        except CheckpointError:
            continue
        # A flipped bit may change a date or an unused attribute; content never differs.
        assert torch.equal(state["weights"]["a"], expected["weights"]["a"])
        np.testing.assert_array_equal(state["agent"]["n"], expected["agent"]["n"])
    for end in rng.integers(0, len(whole), 50):
        with pytest.raises(CheckpointError):
            read_archive(io.BytesIO(whole[:end]))


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    agent = trained()
    agent.save(tmp_path / "agent")
    before = (tmp_path / "agent.zip").read_bytes()

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rlkit.io.archive.os.fsync", refuse)
    with pytest.raises(CheckpointError, match="No space left on device"):
        agent.learn(60).save(tmp_path / "agent")
    assert [path.name for path in tmp_path.iterdir()] == ["agent.zip"]
    assert (tmp_path / "agent.zip").read_bytes() == before


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1.5, np.inf, (2, 3), np.float64),
        spaces.Box(0, 255, (4, 4, 3), np.uint8),
        spaces.Discrete(4, start=-2),
        spaces.MultiBinary(5),
        spaces.MultiBinary([2, 3]),
        spaces.MultiDiscrete([2, 3], start=[1, 0]),
        spaces.MultiDiscrete([2, 3], np.int16),
        spaces.Discrete(4, dtype=np.int32),
        spaces.Dict(b=spaces.Dict(c=spaces.Discrete(2)), a=spaces.Box(-1, 1, (1,))),
    ],
    ids=str,
)
def test_spaces_come_back_from_files(space):
    stream = io.BytesIO()
    write_archive(stream, {"space": space_to_plain(space)})
    restored = space_from_plain(read_archive(stream)["space"])
    assert restored == space
    if isinstance(space, spaces.Dict):
        assert list(restored.spaces) == list(space.spaces)


def test_spaces_that_no_agent_supports_are_named():
    with pytest.raises(ValueError, match=r"Text.*cannot be saved"):
        space_to_plain(spaces.Text(3))
    with pytest.raises(ValueError, match="no space is described"):
        space_from_plain({"kind": "Box"})


def test_plain_observations_are_saved_too(tmp_path):
    agent = SAC("MlpPolicy", Recorder(), **SMALL).learn(30)
    agent.save(tmp_path / "agent")
    loaded = SAC.load(tmp_path / "agent", Recorder(), device="cpu")
    assert same(agent, loaded)
    assert loaded.learn(30)._n_updates == 40


@pytest.mark.parametrize("algorithm", AGENTS)
def test_a_policy_and_the_network_that_acts_are_saved_and_loaded(algorithm, tmp_path):
    agent = trained(algorithm)
    x = observations(algorithm)
    expected = agent.predict(x, deterministic=True)[0]
    acting = agent.q_net if algorithm is DQN else agent.policy.actor
    assert set(acting.state_dict()) < {k.partition(".")[2] for k in agent.policy.state_dict()}
    for part in (agent.policy, acting):
        np.testing.assert_array_equal(part.predict(x, deterministic=True)[0], expected)
        part.save(tmp_path / "part")
        loaded = type(part).load(tmp_path / "part.zip", device="cpu")
        assert loaded.state_dict().keys() == part.state_dict().keys()
        np.testing.assert_array_equal(loaded.predict(x, deterministic=True)[0], expected)


def test_the_network_that_acts_shares_the_policys_parameters():
    policy = trained().policy
    policy.actor.load_state_dict({k: v + 1 for k, v in policy.actor.state_dict().items()})
    for name, value in policy.actor.state_dict().items():
        assert torch.equal(policy.state_dict()[f"actor.{name}"], value)


@pytest.mark.slow
def test_cnn_policy_learns_from_images_end_to_end(tmp_path):
    env = FakeImageEnv(screen_height=36, screen_width=36, n_channels=2, discrete=False)
    features = {"features_extractor_kwargs": {"features_dim": 7}}
    agent = SAC("CnnPolicy", env, policy_kwargs=features, **SMALL)
    before = {name: tensor.clone() for name, tensor in agent.learner.weights().items()}
    agent.learn(30)
    encoder = [name for name in before if name.startswith("latent.encoder.")]
    assert encoder
    assert all(not torch.equal(before[name], agent.learner.weights()[name]) for name in encoder)
    assert agent.options["latent"]["dims"] == 7
    agent.save(tmp_path / "agent")
    loaded = SAC.load(tmp_path / "agent", env, device="cpu")
    assert same(agent, loaded)
    x = env.observation_space.sample()
    np.testing.assert_array_equal(
        agent.predict(x, deterministic=True)[0], loaded.predict(x, deterministic=True)[0]
    )
    with pytest.raises(ValueError, match=r"no option 'feature_dim'. Did you mean 'features_dim'"):
        SAC("CnnPolicy", env, policy_kwargs={"features_extractor_kwargs": {"feature_dim": 7}})
    with pytest.raises(ValueError, match="needs images"):
        SAC("CnnPolicy", "Pendulum-v1")
