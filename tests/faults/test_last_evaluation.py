"""What fails after the training: the last checkpoint exists, and a resumed run evaluates it."""

import json
import shutil

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_failing_environments import plan

from rlkit.envs.make import make
from rlkit.experiment import pictures, run_folder
from rlkit.experiment.recipe import make_recipe
from rlkit.experiment.run_folder import RunFolder
from rlkit.experiment.run_logger import read_metrics
from rlkit.experiment.train import resume, train
from rlkit.io.checkpoint import load_latest, saved_steps


class Killed(BaseException):
    """Stands for the kill of a process."""


def drawing(env="Failing", **settings):
    content = plan(env, steps=40).__dict__ | {"pictures": {"video_episodes": 1}}
    return make_recipe(content | settings)


def curves(path):
    rows = read_metrics(path)
    return [{key: row[key] for key in row if not key.startswith("time/")} for row in rows]


def weights(path):
    return (path / "checkpoints" / "step-40" / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "whole"
    train(plan("Failing", steps=40), make, path)
    return path


@pytest.mark.slow
def test_a_crash_in_drawing_costs_the_video_and_not_the_process(whole, tmp_path):
    with pytest.warns(UserWarning, match="no pictures at step 40: .*ended by signal 11"):
        outcome = train(drawing("CrashesDrawing"), make, tmp_path / "run")
    assert (outcome["episodes"], outcome["stopped"]) == (2, None)
    assert weights(tmp_path / "run") == weights(whole)


@pytest.mark.parametrize("place", ["evaluation", "drawing", "evaluations.json"])
def test_a_kill_after_the_training_repeats_the_evaluation_alone(
    whole, tmp_path, monkeypatch, place
):
    def killed(*arguments, **options):
        raise Killed

    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        owner, name = {
            "evaluation": ("rlkit.experiment.session.Session", "evaluate"),
            "drawing": ("rlkit.experiment.pictures", "draw"),
            "evaluations.json": ("rlkit.experiment.run_folder.RunFolder", "add_evaluation"),
        }[place]
        patch.setattr(f"{owner}.{name}", killed)
        with pytest.raises(Killed):
            train(plan("Failing", steps=40), make, path)
    assert saved_steps(path / "checkpoints") == [40]
    with monkeypatch.context() as patch:
        patch.setattr("rlkit.agents.sac.SAC.train", killed)  # it would be called by any step
        assert resume(path, make, trust=True)["episodes"] == 2
    assert curves(path) == curves(whole)
    assert weights(path) == weights(whole)
    tags = EventAccumulator(str(path)).Reload()
    assert [event.step for event in tags.Scalars("eval/mean_reward")] == [40]


def test_a_full_disk_at_the_last_evaluation_leaves_the_checkpoint(tmp_path, monkeypatch):
    replace = run_folder.replace_file

    def full(path, data):
        if path.name == "evaluations.json":
            raise OSError(28, "No space left on device", str(path))
        replace(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "replace_file", full)
        with pytest.raises(OSError, match="No space left on device"):
            train(plan("Failing", steps=40), make, tmp_path / "run")
    assert resume(tmp_path / "run", make, trust=True)["episodes"] == 2


def test_a_picture_that_cannot_be_drawn_costs_the_picture(tmp_path, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("no such axis")

    monkeypatch.setattr(pictures, "goal_heat_map", broken)
    with pytest.warns(UserWarning, match="no pictures at step 40: no such axis"):
        assert train(plan("Failing", steps=40), make, tmp_path / "run")["episodes"] == 2


def test_a_stopped_evaluation_in_training_is_made_by_the_resumed_run(tmp_path, monkeypatch):
    from rlkit.experiment.evaluate import EvaluationStopped
    from rlkit.experiment.session import Session

    recipe = make_recipe(plan("Failing", steps=40).__dict__ | {"evaluation": {"every": 20}})
    train(recipe, make, tmp_path / "whole")

    def stopped(self, episodes, seed, stop=None):
        stop.set("SIGTERM")
        raise EvaluationStopped

    with monkeypatch.context() as patch:
        patch.setattr(Session, "evaluate", stopped)
        assert train(recipe, make, tmp_path / "run")["steps"] == 20
    resume(tmp_path / "run", make, trust=True)
    for run in ("whole", "run"):
        steps = [row["step"] for row in RunFolder(tmp_path / run).evaluations()]
        assert steps == [20, 40], run


def test_a_run_folder_that_was_deleted_is_an_error(tmp_path, monkeypatch):
    from rlkit.agents import SAC

    path, iterate = tmp_path / "run", SAC.iterate

    def deleting(self, *arguments, **options):
        for step in iterate(self, *arguments, **options):
            if step == 30:
                shutil.rmtree(path)
            yield step

    monkeypatch.setattr(SAC, "iterate", deleting)
    with pytest.raises(FileNotFoundError, match="was deleted while it was trained"):
        train(plan("Failing", steps=40), make, path)
    assert not path.exists()


@pytest.mark.parametrize("content", [b"[{", b'{"step": 3}', b"\xff\xfe", b"[3]"])
def test_damaged_evaluations_are_named_with_what_to_do(whole, tmp_path, content):
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    (path / "evaluations.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"evaluations.json is damaged .*move it away"):
        resume(path, make, trust=True)
    (path / "evaluations.json").unlink()
    assert resume(path, make, trust=True)["episodes"] == 2


def test_settings_change_on_resuming_and_what_cannot_is_named(whole, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(whole, path)

    def change(*settings):
        return resume(path, make, steps=80, settings=settings, trust=True)

    for setting, message in {
        "agent=td3": "agent cannot change from 'sac' to 'td3'",
        "num_envs=3": "num_envs cannot change from 1 to 3",
        "seed=5": "seed cannot change",
        "agent_options.net_arch=[9]": r"cannot be resumed with agent_options.net_arch = \[9\]",
        "agent_options.no_such=1": "no_such",
        "evaluation.evry=3": "unknown recipe key",
    }.items():
        with pytest.raises(ValueError, match=message):
            change(setting)
    outcome = change("agent_options.learning_rate=0.001", "agent_options.ent_coef=0.5")
    assert outcome["steps"] == 80
    (row,) = json.loads((path / "changes.json").read_text())
    assert row["step"] == 40
    assert row["settings"]["agent_options.ent_coef"] == [None, 0.5]
    _, state = load_latest(path / "checkpoints")
    np.testing.assert_allclose(state["optimiser"]["log_ent_coef"], np.log(0.5), rtol=1e-5)
