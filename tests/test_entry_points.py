"""`rlkit train` uses parts of another package that are registered by entry points alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlkit.experiment.run_folder import RunFolder
from rlkit.io.checkpoint import load_latest

MODULE = """
from dataclasses import dataclass

import gymnasium

from rlkit.agents import SAC
from rlkit.envs.point_maze import PointMaze
from rlkit.latents import PCA
from rlkit.networks.encoders import GRU
from rlkit.planning import CEM
from rlkit.world import LinearDynamics


class MyAgent(SAC):
    pass


{parts}

class MyMaze(PointMaze):
    pass


gymnasium.register("mine/Maze-v0", "my_parts:MyMaze", max_episode_steps=50)
"""
PART = """
@dataclass(frozen=True)
class {}({}):
    pass
"""
PARTS = {"MyEncoder": "GRU", "MyLatent": "PCA", "MyPlanner": "CEM", "MyWorld": "LinearDynamics"}
ENTRY_POINTS = """
[rlkit.agents]
mine = my_parts:MyAgent
[rlkit.encoders]
mine = my_parts:MyEncoder
[rlkit.latents]
mine = my_parts:MyLatent
[rlkit.planners]
mine = my_parts:MyPlanner
[rlkit.worlds]
mine = my_parts:MyWorld
[rlkit.envs]
mine = my_parts
"""
SMALL = [
    *("check_env=false", "evaluation.every=0", "evaluation.final_episodes=2"),
    *("pictures.video_episodes=0", "agent_options.learning_starts=40"),
]
NETWORKS = ["agent_options.net_arch=[8]", "agent_options.batch_size=4"]
MODEL = ["agent_options.batch_size=8", "agent_options.particles=2"]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A folder with an installed package that registers a part of each kind."""
    folder = tmp_path_factory.mktemp("site")
    parts = "\n".join(PART.format(*names) for names in PARTS.items())
    (folder / "my_parts.py").write_text(MODULE.replace("{parts}", parts))
    info = folder / "my_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


def rlkit(package, folder, *words):
    done = subprocess.run(
        [sys.executable, "-m", "rlkit.cli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_lists_name_the_parts_of_other_packages(package, tmp_path):
    for group in ("agents", "encoders", "latents", "planners", "worlds"):
        assert "mine" in rlkit(package, tmp_path, "list", group).split()
    assert "mine/Maze-v0" in rlkit(package, tmp_path, "list", "envs").split()


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--agent", "mine"], NETWORKS),
        (["--encoder", "mine"], [*NETWORKS, "agent_options.window=4"]),
        ([], [*NETWORKS, "agent_options.latent={name='mine', dims=2}"]),
        (["--agent", "mpc"], [*MODEL, "agent_options.world=mine", "agent_options.planner=mine"]),
    ],
    ids=["agent", "encoder", "latent", "world and planner"],
)
def test_a_run_trains_and_resumes_with_parts_of_another_package(package, tmp_path, words, options):
    train = ["train", "--env", "mine/Maze-v0", *words, "--out", "run", "--steps", "60"]
    rlkit(package, tmp_path, *train, "--set", *SMALL, *options)
    rlkit(package, tmp_path, "resume", "run", "--steps", "240")
    run = RunFolder.open(Path(tmp_path, "run"))
    assert "mine" in (run.path / "recipe.toml").read_text()
    assert load_latest(run.checkpoints)[0] >= 240
