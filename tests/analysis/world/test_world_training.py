import dataclasses
import json
import os
import shutil
import signal

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlkit.analysis.world.data import Source
from rlkit.analysis.world.training import Fitting, load_world, train_world
from rlkit.envs.make import make
from rlkit.world import World

TANKS = Source("tanks", gather=400)
SMALL = ("members=2", "hidden=[8]")
QUICK = Fitting(steps=12, batch_size=16)


class Interrupted(Exception):
    pass


class Interrupting(Fitting):
    """A fit that is interrupted right after its seventh step, in the way that a test chooses."""

    way = None

    def iterate(self, world, data, generator):
        for metrics in super().iterate(world, data, generator):
            if world.steps == 7 and self.way is not None:
                self.way()
            yield metrics


def trained(folder, **changes):
    arguments = {"settings": SMALL, "fitting": QUICK, **changes}
    return train_world("ensemble", TANKS, make, folder, **arguments)


def curve(folder):
    events = EventAccumulator(str(folder)).Reload()
    return [(point.step, point.value) for point in events.Scalars("world/loss")]


def killed(tmp_path, monkeypatch, **changes):
    """The folder of a training that was killed in the middle of its eighth step."""

    def kill():
        raise Interrupted

    monkeypatch.setattr(Interrupting, "way", staticmethod(kill))
    fitting = Interrupting(**dataclasses.asdict(QUICK))
    with pytest.raises(Interrupted):
        trained(tmp_path / "killed", fitting=fitting, **changes)
    monkeypatch.setattr(Interrupting, "way", None)
    return tmp_path / "killed"


@pytest.mark.slow
def test_training_leaves_a_world_and_what_was_done(tmp_path):
    found = trained(tmp_path / "a")
    assert {path.name for path in (tmp_path / "a").iterdir()} - {"world", "training.json"} == {
        path.name for path in (tmp_path / "a").glob("events*")
    }
    world, facts = load_world(tmp_path / "a", "cpu")
    assert (world.steps, world.layout.observation, world.model.members) == (12, 3, 2)
    assert facts["outcome"]["steps"] == 12
    assert facts["source"]["gather"] == 400
    assert (found["stopped"], found["parameters"]) == (None, world.model.size)
    assert found["held_out"].keys() == {"loss", "nll", "error"}
    assert [step for step, _ in curve(tmp_path / "a")] == list(range(1, 13))


@pytest.mark.slow
def test_the_seed_repeats_a_training(tmp_path):
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        trained(tmp_path / name, seed=seed)
    a, b, c = (World.load(tmp_path / name / "world").parameters for name in "abc")
    assert (a == b).all()
    assert (a != c).any()


@pytest.mark.slow
@pytest.mark.parametrize("save_every_s", [0.0, 1000.0])
def test_a_killed_training_continues_bit_for_bit(tmp_path, monkeypatch, save_every_s):
    trained(tmp_path / "whole")
    folder = killed(tmp_path, monkeypatch, save_every_s=save_every_s)
    # From the newest checkpoint on, or from the start where there was none yet.
    saved = sorted(path.name for path in (folder / "checkpoints").glob("step-*"))
    assert saved == (["step-5", "step-6"] if save_every_s == 0 else [])
    with pytest.raises(ValueError, match="not finished; the same command continues it"):
        load_world(folder)
    found = trained(folder)
    assert found["steps"] == 12
    whole, resumed = (load_world(tmp_path / name, "cpu")[0] for name in ("whole", "killed"))
    assert torch.equal(whole.parameters, resumed.parameters)
    for name, value in whole.state_dict().items():
        other = resumed.state_dict()[name]
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
    assert curve(folder) == curve(tmp_path / "whole")
    assert not (folder / "checkpoints").exists()


@pytest.mark.slow
def test_a_signal_saves_and_the_rest_follows(tmp_path, monkeypatch):
    trained(tmp_path / "whole")
    ask = staticmethod(lambda: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(Interrupting, "way", ask)
    found = trained(tmp_path / "a", fitting=Interrupting(**dataclasses.asdict(QUICK)))
    assert (found["stopped"], found["steps"]) == ("SIGTERM", 7)
    assert trained(tmp_path / "a")["stopped"] is None
    worlds = [World.load(tmp_path / name / "world") for name in ("whole", "a")]
    assert torch.equal(worlds[0].parameters, worlds[1].parameters)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 3}, "began with seed 0, not 3"),
        ({"settings": ("members=2", "hidden=[9]")}, "began with model"),
        ({"fitting": Fitting(steps=13)}, "began with fitting"),
    ],
)
def test_only_the_same_training_continues(tmp_path, monkeypatch, changes, message):
    folder = killed(tmp_path, monkeypatch, save_every_s=0.0)
    before = (folder / "training.json").read_bytes()
    with pytest.raises(ValueError, match=message):
        trained(folder, **changes)
    assert (folder / "training.json").read_bytes() == before


@pytest.mark.slow
def test_other_data_under_the_same_name_are_noticed(tmp_path, monkeypatch):
    folder = killed(tmp_path, monkeypatch)
    facts = json.loads((folder / "training.json").read_text())
    facts["training_data"] = "0" * 64
    (folder / "training.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="began with data 0000"):
        trained(folder)


@pytest.mark.slow
def test_a_world_is_not_overwritten(tmp_path):
    trained(tmp_path / "a")
    with pytest.raises(ValueError, match="already holds a world"):
        trained(tmp_path / "a")


@pytest.mark.slow
def test_without_a_folder_each_training_gets_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert trained(None)["folder"] == "runs/out/worlds/tanks/ensemble-seed0"
    second = "runs/out/worlds/tanks/ensemble-seed0-2"
    assert trained(None)["folder"] == second
    shutil.rmtree(tmp_path / second / "world")
    assert trained(None)["folder"] == second  # as if it had been killed at its end
    assert trained(None, seed=1)["folder"] == "runs/out/worlds/tanks/ensemble-seed1"


@pytest.mark.slow
def test_a_closed_form_is_one_step(tmp_path):
    found = train_world("linear", TANKS, make, tmp_path / "a", fitting=Fitting(steps=500))
    assert found["steps"] == 1
    assert World.load(tmp_path / "a" / "world").steps == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "ensembel"}, "Did you mean 'ensemble'?"),
        ({"settings": ["member=2"]}, "'members'"),
        ({"settings": ["ensemble.members=2"]}, "is no setting of a world model"),
        ({"settings": ["members=0"]}, "members must be"),
        ({"fitting": Fitting(steps=0)}, "steps must be >= 1"),
        ({"source": Source("none.csv")}, "there is no file"),
    ],
)
def test_mistakes_leave_nothing(tmp_path, changes, message):
    arguments = {
        "name": "ensemble",
        "source": TANKS,
        "settings": SMALL,
        "fitting": QUICK,
        **changes,
    }
    with pytest.raises(ValueError) as error:
        train_world(make=make, folder=tmp_path / "new", **arguments)
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []
