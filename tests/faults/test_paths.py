"""Folders with names that are unusual, and places where nothing can be written."""

import os

import pytest
from test_failing_environments import plan

from rlkit.agents import SAC
from rlkit.envs.make import make
from rlkit.experiment.run_folder import RunFolder
from rlkit.experiment.train import resume, train
from rlkit.io.checkpoint import saved_steps

NAMES = [
    "two words",
    "ünï-ñ-日本-🤖",
    "-dash",
    "dots..and.toml",
    "x" * 200,
    "a'b\"c",
    "[1] *?",
    "%41;&",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_lives_in_a_folder_of_any_name(tmp_path, name):
    path = tmp_path / name / name
    outcome = train(plan("Failing", steps=20), make, path)
    assert outcome["run"] == str(path)
    assert resume(path, make, steps=40, trust=True)["steps"] == 40
    assert saved_steps(path / "checkpoints") == [20, 40]
    assert RunFolder.open(path).recipe(trust=True).steps == 40
    assert not [entry for entry in tmp_path.rglob("*") if entry.name.startswith(".")]


@pytest.mark.parametrize("name", NAMES)
def test_an_agent_is_saved_under_any_name(tmp_path, name):
    from failing_envs import Failing

    agent = SAC("MlpPolicy", Failing(), net_arch=[4], buffer_size=100, device="cpu")
    path = tmp_path / f"{name}.zip"
    agent.save(path)
    assert SAC.load(path).get_parameters().keys() == agent.get_parameters().keys()


@pytest.mark.parametrize("place", ["below a file", "no such system"])
def test_where_nothing_can_be_written_it_says_so_before_training(tmp_path, place):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "run" if place == "below a file" else "/proc/none/run"
    with pytest.raises(OSError, match=str(os.path.basename(os.path.dirname(path)))):
        train(plan("Failing", steps=20), make, RunFolder(tmp_path).path.joinpath(path))


def test_videos_that_cannot_be_written_cost_the_videos(tmp_path):
    from rlkit.experiment.recipe import make_recipe

    recipe = make_recipe(plan("Failing", steps=20).__dict__ | {"pictures": {"video_episodes": 1}})
    run = tmp_path / "run"
    run.mkdir()
    (run / "videos").touch()
    with pytest.warns(UserWarning, match="no pictures at step 20"):
        assert train(recipe, make, run)["episodes"] == 2
