"""What 0.1.0 saved is loaded, or refused with one sentence that names both versions."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rlkit.agents import SAC
from rlkit.cli.main import main
from rlkit.envs.make import make
from rlkit.experiment.run_folder import RunFolder
from rlkit.experiment.session import Session
from rlkit.experiment.train import resume
from rlkit.io.checkpoint import CheckpointError, write_checkpoint
from rlkit.latents import FittedLatent
from rlkit.version import VERSION, not_readable
from rlkit.world import World

SAVED = Path(__file__).parent / "saved_by_0_1"
REFUSED = re.escape(
    f"was written by rlkit-suite 0.1.0 in a format that rlkit-suite {VERSION} does not read; "
    f"read it with rlkit-suite 0.1.0"
)


def maze():
    return make("rlkit/PointMaze-Open-v0")


@pytest.mark.parametrize(
    "load",
    [
        lambda run: SAC.load(SAVED / "agent.zip"),
        lambda run: SAC("MultiInputPolicy", maze()).load_replay_buffer(SAVED / "buffer.replay"),
        lambda run: resume(run, make),
        lambda run: Session.load(RunFolder.open(run), make),
        lambda run: Session.load(RunFolder.open(run), make, "300"),
    ],
    ids=["agent", "replay buffer", "resume", "last checkpoint", "numbered checkpoint"],
)
def test_agents_replay_buffers_and_runs_are_refused(load, tmp_path):
    shutil.copytree(SAVED / "run", tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        CheckpointError, match=rf"^\S+(agent\.zip|buffer\.replay|step-300) {REFUSED}\.$"
    ):
        load(tmp_path / "run")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_line_refuses_a_run_in_one_sentence(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["rlkit", "eval", str(SAVED / "run")])
    with pytest.raises(SystemExit):
        main()
    error = capsys.readouterr().err
    assert re.search(REFUSED, error)
    assert "Traceback" not in error


def test_the_recipe_of_a_run_names_the_options_that_were_renamed(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["rlkit", "train", str(SAVED / "run" / "recipe.toml")])
    with pytest.raises(SystemExit):
        main()
    assert "'noise_correlation'. It is now called 'coloured_noise'" in capsys.readouterr().err


def test_evaluations_of_a_run_are_still_read():
    assert RunFolder.open(SAVED / "run").last_evaluation()["step"] == 300


@pytest.mark.parametrize("name", ["vae", "pca"])
def test_latent_models_are_loaded(name):
    latent = FittedLatent.load(SAVED / f"latent-{name}")
    expected = np.load(SAVED / f"latent-{name}.npy")
    assert np.array_equal(latent.encode(np.load(SAVED / "frames.npy")), expected)


@pytest.mark.parametrize("name", ["ensemble", "rssm"])
def test_world_models_are_loaded(name, tmp_path):
    folder = SAVED / f"world-{name}"
    World.load(folder).save(tmp_path / "again")
    first, second = (
        load_file(path / "weights.safetensors") for path in (folder, tmp_path / "again")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_world_model_of_an_environment_with_goals_is_refused():
    with pytest.raises(ValueError, match=rf"^the world in \S+world-goals {REFUSED}$"):
        World.load(SAVED / "world-goals")


def test_every_file_names_the_version_that_wrote_it(tmp_path):
    write_checkpoint(tmp_path / "step-1", {"weights": {}})
    World.load(SAVED / "world-ensemble").save(tmp_path / "world")
    FittedLatent.load(SAVED / "latent-pca").save(tmp_path / "latent")
    for name in ("step-1/manifest.json", "world/manifest.json", "latent/manifest.json"):
        assert json.loads((tmp_path / name).read_text())["rlkit"] == VERSION


def test_a_file_without_a_version_was_written_by_0_1_0():
    assert "read it with rlkit-suite 0.1.0" in not_readable("the file", None)
