import json

import numpy as np
import pytest

from rlkit.analysis.latent.training import describe_report, report_latent, train_latent
from rlkit.envs.make import make
from rlkit.experiment.recipe import load_recipe
from rlkit.experiment.train import train
from rlkit.latents import FittedLatent

MAZE = "rlkit/PointMaze-U-Pixels-v0"
SMALL = ("channels=[4,4,4]", "hidden=[16]", "dims=3")
QUICK = {"settings": SMALL, "count": 150, "steps": 4, "batch_size": 8}


@pytest.fixture
def moving_dots(tmp_path):
    """A file of images of a dot."""
    frames = np.zeros((200, 32, 32, 1), np.uint8)
    places = np.random.default_rng(0).integers(0, 28, (200, 2))
    for frame, (row, column) in zip(frames, places, strict=True):
        frame[row : row + 4, column : column + 4] = 255
    np.save(tmp_path / "dots.npy", frames)
    return str(tmp_path / "dots.npy")


@pytest.mark.slow
def test_training_leaves_a_latent_and_its_report(tmp_path):
    found = train_latent("vae", MAZE, make, tmp_path / "vae", **QUICK)
    latent = FittedLatent.load(tmp_path / "vae" / "latent")
    assert (latent.dims, latent.steps, latent.version) == (3, 4, 1)
    assert json.loads((tmp_path / "vae" / "training.json").read_text()) == found["training"]
    assert found["training"]["frames"] == 150
    assert found["folder"] == str(tmp_path / "vae")
    assert found["model"]["channels"] == [4, 4, 4]
    assert found["steps"] == 4
    assert "position: R2 at least" in describe_report(found)


@pytest.mark.slow
def test_the_seed_repeats_a_training(tmp_path, moving_dots):
    seeds = {"a": 1, "b": 1, "c": 2}
    vectors = {}
    for name, seed in seeds.items():
        train_latent("vae", moving_dots, make, tmp_path / name, **QUICK, seed=seed)
        vectors[name] = FittedLatent.load(tmp_path / name / "latent").vector
    assert (vectors["a"] == vectors["b"]).all()
    assert (vectors["a"] != vectors["c"]).any()


@pytest.mark.slow
def test_a_report_can_be_written_again_elsewhere(tmp_path, moving_dots):
    trained = train_latent("pca", moving_dots, make, tmp_path / "pca", settings=["dims=3"])
    again = report_latent(tmp_path / "pca", moving_dots, make, count=100)
    same = ("error", "explained", "variance_per_dim", "model", "frames")
    assert {name: again[name] for name in same} == {name: trained[name] for name in same}
    assert "0 of" not in describe_report(again)  # no prior, no active units

    with pytest.raises(ValueError, match="choose another with --out"):
        report_latent(tmp_path / "pca" / "latent", moving_dots, make)
    report_latent(tmp_path / "pca" / "latent", moving_dots, make, tmp_path / "there")
    assert (tmp_path / "there" / "report.json").is_file()
    assert {path.name for path in (tmp_path / "pca" / "latent").iterdir()} == {
        "weights.safetensors",
        "state.json",
        "manifest.json",
    }


@pytest.mark.slow
def test_without_a_folder_each_training_gets_its_own(tmp_path, monkeypatch, moving_dots):
    monkeypatch.chdir(tmp_path)
    for name in ("pca-seed0", "pca-seed0-2"):
        found = train_latent("pca", "dots.npy", make, settings=["dims=2"])
        assert found["folder"] == f"runs/out/latents/dots.npy/{name}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "vea"}, "Did you mean 'vae'?"),
        ({"name": "none", "settings": ()}, "is no latent model"),
        ({"settings": ["dim=8"]}, "'dims'"),
        ({"settings": ["dims=0"]}, "dims must be"),
        ({"settings": ["a.b=0"]}, "is no setting of a latent model"),
        ({"steps": 0}, "steps must be >= 1"),
        ({"count": 50}, "50 frames are too few"),
        ({"data": "rlkit/PointMaze-U-v0"}, "has no images"),
        ({"data": "rlkit/PointMaze-Q-Pixels-v0"}, "unknown environment"),
    ],
)
def test_mistakes_leave_nothing(tmp_path, change, message):
    arguments = {"name": "vae", "data": MAZE, "make": make, "folder": tmp_path / "new", **QUICK}
    with pytest.raises(ValueError) as error:
        train_latent(**(arguments | change))
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_latent_is_not_overwritten(tmp_path, moving_dots):
    train_latent("pca", moving_dots, make, tmp_path / "pca", settings=["dims=2"])
    with pytest.raises(ValueError, match="already holds a latent"):
        train_latent("pca", moving_dots, make, tmp_path / "pca", settings=["dims=3"])
    assert FittedLatent.load(tmp_path / "pca" / "latent").dims == 2


@pytest.mark.slow
def test_an_agents_own_latent_can_be_evaluated(tmp_path):
    options = {
        "agent_options.latent": {"name": "vae", "dims": 3, "channels": [4, 4, 4], "hidden": [16]},
        "agent_options.pretraining": {"frames": 60, "steps": 3},
    }
    changes = [f"{key}={_toml(value)}" for key, value in options.items()]
    small = ["env_options.size=32", "num_envs=2", "evaluation.final_episodes=2", "steps=40"]
    run = tmp_path / "run"
    recipe = load_recipe(
        "goal", [f"env={MAZE}", *changes, *small, "agent_options.learning_starts=100"]
    )
    train(recipe, make, run)
    found = report_latent(run, str(run), make, count=100)
    assert found["folder"] == str(run / "latent")
    assert (found["steps"], found["version"], found["shape"]) == (3, 1, [32, 32, 3])
    assert (run / "latent" / "report.json").is_file()


@pytest.mark.slow
def test_a_run_without_a_latent_says_so(tmp_path):
    recipe = load_recipe("quickstart", ["steps=40", "evaluation.final_episodes=2"])
    train(recipe, make, tmp_path / "run")
    with pytest.raises(ValueError, match=r"has no latent model; train one with --set"):
        report_latent(tmp_path / "run", MAZE, make)
    with pytest.raises(ValueError, match=r"is no run|no latent"):
        report_latent(tmp_path / "nothing", MAZE, make)


def _toml(table):
    inside = ", ".join(
        f"{key} = {_toml(value) if isinstance(value, dict) else json.dumps(value)}"
        for key, value in table.items()
    )
    return f"{{{inside}}}"
