import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import gymnasium as gym
import pytest

import rlkit.envs  # noqa: F401  registers them
from rlkit.experiment.recipe import load_recipe, recipe_names

SCRIPTS = Path(__file__).parents[2] / "runs" / "studies"
RECIPE = """
env = "rlkit/BitFlip-v0"
agent = "dqn"
steps = 60
num_envs = 2
env_options = { bits = 3 }
agent_options = { net_arch = [8], learning_starts = 20 }
evaluation = { every = 30, episodes = 4, final_episodes = 6 }
pictures = { video_episodes = 0 }
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture
def arguments(tmp_path, recipe):
    """Arguments of a study with its files in the test's folder."""
    places = ["--results", str(tmp_path / "results"), "--out", str(tmp_path / "out")]
    return [recipe, "--variants", "agent", *places]


def result_of(tmp_path):
    return json.loads((tmp_path / "results" / "tiny.json").read_text())


def test_every_recurrent_recipe_has_its_controls():
    variants = import_module("variants")
    recurrent = [
        name
        for name in recipe_names()
        if "encoder" in load_recipe(name).agent_options and name not in variants.CONTROLS
    ]
    assert variants.FULL_STATE.keys() == set(recurrent)
    for name in recurrent:
        assert variants.variant_names(name)[:3] == ("recurrent", "feed-forward", "oracle")
        own, feed_forward, full, *further = (
            load_recipe(name, variants.variant_settings(name, variant))
            for variant in variants.variant_names(name)
        )
        assert all(plan.env == own.env and plan != own for plan in further)
        assert own == load_recipe(name)
        assert feed_forward.env == own.env
        assert feed_forward.agent_options["encoder"] == full.agent_options["encoder"] == "none"
        assert (full.env, full.env_options) != (own.env, own.env_options)
        assert own.steps == feed_forward.steps == full.steps


def test_every_recipe_with_a_latent_model_or_a_planner_has_its_controls():
    variants = import_module("variants")
    with_latents = [name for name in recipe_names() if "latent" in load_recipe(name).agent_options]
    with_planners = [name for name in recipe_names() if load_recipe(name).agent == "mpc"]
    assert {*variants.CONTROLS, "latent-recurrent"} == {*with_latents, *with_planners}
    for name, controls in (*variants.CONTROLS.items(), *variants.ABLATIONS.items()):
        plans = [
            load_recipe(name, variants.variant_settings(name, variant)) for variant in controls
        ]
        assert plans[0] == load_recipe(name)
        if name != "reach-mpc":  # whose control needs many times the steps
            assert all(plan.steps == plans[0].steps for plan in plans)
        assert all(plan != other for i, plan in enumerate(plans) for other in plans[:i])


@pytest.mark.parametrize("recipe", ["point-maze-hidden-velocity", "planar-push-hidden-velocity"])
def test_the_oracle_has_the_same_physics(recipe):
    variants = import_module("variants")
    own, full = (
        load_recipe(recipe),
        load_recipe(recipe, variants.variant_settings(recipe, "oracle")),
    )
    physics = dict(gym.spec(own.env).kwargs)
    for key in ("family", "hidden"):
        del physics[key]
    assert physics == {**gym.spec(full.env).kwargs, **full.env_options}


def test_feed_forward_controls_have_the_usual_batch_size(recipe):
    variants = import_module("variants")
    path = Path(recipe)
    assert variants.variant_settings(recipe, "feed-forward") == ("agent_options.encoder=none",)
    path.write_text(RECIPE.replace("[8],", "[8], batch_size = 32,"))
    # A number of windows is not a number of single steps.
    assert "agent_options.batch_size=128" in variants.variant_settings(recipe, "feed-forward")


def test_an_unknown_variant_is_refused(recipe):
    variants = import_module("variants")
    with pytest.raises(ValueError, match=r"unknown variant 'orakel'; known: agent, recurrent, "):
        variants.variant_settings(recipe, "orakel")
    with pytest.raises(
        ValueError, match=r"no oracle is known.*FULL_STATE in runs/studies/variants\.py"
    ):
        variants.variant_settings(recipe, "oracle")


@pytest.mark.slow
def test_only_what_is_missing_is_trained(tmp_path, arguments, capsys):
    main = import_module("evidence").main
    assert main([*arguments, "--seeds", "1"]) == 0
    first = result_of(tmp_path)["variants"]["agent"]["runs"][0]
    assert main([*arguments, "--seeds", "1", "0", "--jobs", "2"]) == 0
    result = result_of(tmp_path)
    runs = result["variants"]["agent"]["runs"]
    assert [run["seed"] for run in runs] == [0, 1]
    assert runs[1] == first
    assert [row[0] for row in first["curve"]] == [30, 60]
    assert first["curve"][-1][1:] == [first["success_rate"], first["return_mean"]]
    assert (first["episodes"], first["steps"], first["stopped"]) == (6, 60, False)
    assert result["variants"]["agent"]["plan"]["steps"] == 60
    assert (tmp_path / "results" / "tiny.png").stat().st_size > 1_000
    assert capsys.readouterr().err.count("tiny, agent, seed") == 2


def test_results_of_other_settings_are_not_mixed(tmp_path, recipe):
    Evidence = import_module("evidence").Evidence
    path = tmp_path / "results" / "tiny.json"
    facts = {"seed": 0, "success_rate": 0.5, "curve": [[30, 0.5, -1.0]], "stopped": False}
    evidence = Evidence(path, recipe)
    assert [one.seed for one in evidence.missing("agent", [1, 0], tmp_path)] == [1, 0]
    evidence.add("agent", facts)
    assert [one.seed for one in Evidence(path, recipe).missing("agent", [1, 0], tmp_path)] == [1]
    with pytest.raises(ValueError, match=r"holds settings = \[\], not \['steps=70'\].*--name"):
        Evidence(path, recipe, ["steps=70"])
    new = Evidence(path, recipe, ["steps=70"], overwrite=True)
    assert [one.seed for one in new.missing("agent", [0], tmp_path)] == [0]
    assert json.loads(path.read_text())["settings"] == []  # until there is something better
    Path(recipe).write_text(RECIPE.replace("[8]", "[9]"))
    evidence = Evidence(path, recipe)
    with pytest.raises(ValueError, match=r"net_arch was \[8\] and is \[9\]\); --overwrite"):
        evidence.missing("agent", [1], tmp_path)
    folder = tmp_path / "agent" / "seed-0"
    folder.mkdir(parents=True)
    evidence.content["variants"]["other"] = {"plan": {}, "runs": []}
    evidence.remove("agent", tmp_path)
    assert not folder.exists()
    assert [*evidence.content["variants"]] == ["agent", "other"]
    assert [one.seed for one in evidence.missing("agent", [0], tmp_path)] == [0]


@pytest.mark.slow
def test_a_training_beyond_its_time_limit_is_evaluated_as_it_is(tmp_path, arguments, recipe):
    Path(recipe).write_text(RECIPE.replace("60", "1_000_000"))
    assert import_module("evidence").main([*arguments, "--seeds", "0", "--minutes", "0.15"]) == 0
    run = result_of(tmp_path)["variants"]["agent"]["runs"][0]
    assert run["stopped"]
    assert 0 < run["steps"] < 1_000_000
    assert run["curve"][-1] == [run["steps"], run["success_rate"], run["return_mean"]]
    assert run["episodes"] == 6


@pytest.mark.slow
def test_an_interrupted_study_saves_and_resumes(tmp_path, arguments, recipe):
    Path(recipe).write_text(RECIPE.replace("60", "1_000_000"))
    command = [sys.executable, str(SCRIPTS / "evidence.py"), *arguments, "--seeds", "0"]
    folder = tmp_path / "out" / "tiny" / "agent" / "seed-0"
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (folder / "evaluations.json").exists() and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    saved = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert saved
    assert not (tmp_path / "results").exists()
    training = import_module("training_runs").TrainingRun(recipe, 0, (), folder)
    assert training.command() == ["resume", str(folder), "--json"]
    other = import_module("training_runs").TrainingRun(recipe, 0, ("steps=70",), folder)
    assert other.command()[0] == "train"


@pytest.mark.slow
def test_a_training_that_fails_does_not_stop_the_others(tmp_path, arguments, recipe, capfd):
    Path(recipe).write_text(RECIPE.replace("bits = 3", "bits = -3"))
    assert import_module("evidence").main([*arguments, "--seeds", "0", "1", "--jobs", "2"]) == 1
    assert capfd.readouterr().err.count("bits") >= 2
    assert not os.path.exists(tmp_path / "results")
