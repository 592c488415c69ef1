import subprocess
import sys

import numpy as np
import pytest

import rlkit
from rlkit.agents import SAC, TD3
from rlkit.envs.make import make
from rlkit.experiment.recipe import load_recipe
from rlkit.experiment.train import train
from rlkit.io.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from rlkit.trust import UntrustedError

QUICK = [
    *("steps=120", "num_envs=2", "check_env=false", "checkpoint.every=60", "evaluation.every=60"),
    *("evaluation.episodes=2", "evaluation.final_episodes=2", "pictures.video_episodes=0"),
    *("agent_options.learning_starts=20", "agent_options.net_arch=[8]"),
    "agent_options.batch_size=8",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("load") / "run"
    train(load_recipe("goal", QUICK, env="rlkit/PointMaze-Open-v0"), make, path)
    return path


@pytest.fixture
def observation():
    env = make("rlkit/PointMaze-Open-v0")
    found = env.reset(seed=3)[0]
    env.close()
    return found


def test_a_run_is_loaded_by_its_folder(run, observation):
    agent = rlkit.load(run)
    other = SAC.load(run)
    assert type(agent) is type(other) is SAC
    assert agent.num_timesteps == other.num_timesteps == 120
    actions = [one.predict(observation, deterministic=True)[0] for one in (agent, other)]
    np.testing.assert_array_equal(*actions)
    assert len(agent.replay_buffer) > 0
    agent.learn(20, reset_num_timesteps=False)
    agent.get_env().close()
    assert agent.num_timesteps == 140


def test_a_run_trains_on_in_an_environment_that_is_given(run):
    env = make("rlkit/PointMaze-Open-v0")
    agent = SAC.load(run, env, learning_rate=1e-4)
    agent.learn(30)
    assert agent.config.learning_rate == 1e-4
    env.close()


def test_a_checkpoint_is_chosen(run):
    assert rlkit.load(run, checkpoint="60").num_timesteps == 60
    assert rlkit.load(str(run), checkpoint="best").num_timesteps in (60, 120)
    assert SAC.load(run / "checkpoints" / "step-60").num_timesteps == 60
    with pytest.raises(ValueError, match="has no checkpoint '7'"):
        rlkit.load(run, checkpoint="7")


def test_a_file_is_loaded_without_its_class(run, observation, tmp_path):
    agent = SAC.load(run)
    agent.save(tmp_path / "agent.zip")
    loaded = rlkit.load(tmp_path / "agent.zip", device="cpu")
    assert type(loaded) is SAC
    np.testing.assert_array_equal(*(one.predict(observation)[0] for one in (agent, loaded)))
    with pytest.raises(ValueError, match="only a run has checkpoints"):
        rlkit.load(tmp_path / "agent.zip", checkpoint="best")
    with pytest.raises(ValueError, match="a run is loaded with its own environment"):
        rlkit.load(run, env=agent.env)


def test_what_is_missing_is_named(run, tmp_path):
    with pytest.raises(CheckpointError, match="holds a SAC, not a TD3"):
        TD3.load(run)
    with pytest.raises(CheckpointError, match="is a folder without a checkpoint"):
        SAC.load(tmp_path)
    with pytest.raises(ValueError, match=r"is no run: it holds no recipe\.toml"):
        rlkit.load(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        rlkit.load(tmp_path / "nothing.zip")
    state = read_checkpoint(run / "checkpoints" / "step-120")
    del state["agent"]
    write_checkpoint(tmp_path / "checkpoints" / "step-120", state)
    with pytest.raises(CheckpointError, match=r"does not describe its agent.*rlkit\.load"):
        SAC.load(tmp_path)


def test_a_run_of_others_needs_trust(run, tmp_path):
    (tmp_path / "recipe.toml").write_text('env = "my_module:Me-v0"')
    (tmp_path / "checkpoints").symlink_to(run / "checkpoints")
    with pytest.raises(UntrustedError, match="my_module:Me-v0"):
        rlkit.load(tmp_path)
    with pytest.raises(ValueError, match="needs the module 'my_module'"):
        rlkit.load(tmp_path, trust=True)


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, rlkit; rlkit.load; print(*sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "gymnasium"} & set(found.stdout.split())
