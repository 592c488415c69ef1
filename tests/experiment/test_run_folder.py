import json
import os

import pytest

from rlkit.experiment import run_folder
from rlkit.experiment.recipe import make_recipe
from rlkit.experiment.run_folder import RunFolder, describe_system
from rlkit.trust import UntrustedError

RECIPE = make_recipe({"env": "my_pkg:Me-v0", "agent": "pkg.mod:Class", "seed": 3})


def row(step, success, mean=-1.0, final=False):
    return {"step": step, "success_rate": success, "return_mean": mean, "final": final}


def test_a_run_repeats_its_recipe(tmp_path):
    run = RunFolder.create(tmp_path / "a" / "b", RECIPE)
    assert RunFolder.open(run.path).recipe(trust=True) == RECIPE
    with pytest.raises(UntrustedError, match=r"recipe.toml names 'my_pkg:Me-v0' as env"):
        RunFolder.open(run.path).recipe()
    assert "torch" in json.loads((run.path / "environment.json").read_text())["versions"]


def test_two_runs_are_never_mixed(tmp_path):
    RunFolder.create(tmp_path, RECIPE)
    with pytest.raises(ValueError, match=r"already holds a run.*rlkit resume"):
        RunFolder.create(tmp_path, RECIPE)


def test_a_folder_without_a_run_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"is no run: it holds no recipe\.toml"):
        RunFolder.open(tmp_path)


def test_nothing_names_a_person_or_a_host(monkeypatch):
    home = os.path.expanduser("~")
    argv = [f"{home}/bin/rlkit", "train", "--out", f"{home}/secret"]
    monkeypatch.setattr(run_folder.sys, "argv", argv)
    facts = describe_system()
    assert facts["command"] == ["rlkit", "train", "--out", "~/secret"]
    assert os.uname().nodename not in json.dumps(facts)


def test_best_is_by_success_then_return_then_first(tmp_path):
    run = RunFolder(tmp_path)
    assert run.best_step() is None
    for step in (1, 2, 3, 4):
        (run.checkpoints / f"step-{step}").mkdir(parents=True)
    for entry in (
        row(1, 0.5),
        row(2, 0.9, -5.0),
        row(3, 0.9, -3.0),
        row(4, 0.9, -3.0),
        row(9, 1.0),
    ):
        run.add_evaluation(entry)
    assert run.best_step() == 3
    (run.checkpoints / "step-3").rmdir()
    assert run.best_step() == 4


def test_saving_keeps_the_last_two_and_the_best(tmp_path):
    run = RunFolder(tmp_path)
    for step, success in ((1, 0.2), (2, 0.9), (3, 0.4), (4, 0.5), (5, 0.6)):
        run.add_evaluation(row(step, success))
        run.save_checkpoint(step, {"step": step})
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-2", "step-4", "step-5"]


def test_rewinding_forgets_what_came_later(tmp_path):
    run = RunFolder(tmp_path)
    run.rewind(5)
    for step in (5, 10):
        run.add_evaluation(row(step, 0.1))
    run.videos.mkdir()
    for name in ("step-5.mp4", "step-10.mp4", "mine.mp4"):
        (run.videos / name).touch()
    run.rewind(5)
    assert [entry["step"] for entry in run.evaluations()] == [5]
    assert sorted(path.name for path in run.videos.iterdir()) == ["mine.mp4", "step-5.mp4"]


def test_one_process_trains_a_run_at_a_time(tmp_path):
    run = RunFolder(tmp_path)
    with run.lock(), pytest.raises(ValueError, match="trained by another process"), run.lock():
        pass
    with run.lock():
        pass
