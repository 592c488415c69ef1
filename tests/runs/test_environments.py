"""The collection of other packages' environments, and the script that works through it."""

import functools
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import gymnasium as gym
import pytest

from rlkit.envs.make import make, prefer_egl
from rlkit.experiment.recipe import load_recipe
from rlkit.goals.check import check_env
from rlkit.goals.findings import errors

ROOT = Path(__file__).parents[2]
COLLECTION = tomllib.loads((ROOT / "runs/studies/environments.toml").read_text())
NAMES = list(COLLECTION)
every_environment = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def script():
    return import_module("environments")


@pytest.fixture
def rows():
    return import_module("environment_rows")


def the_trial(script, name):
    return next(trial for trial in script.read_collection() if trial.name == name)


def a_result(reached, random, **changes):
    return {
        "env": "some_package:Task-v0",
        "failed": None,
        "check": {"error": [], "warning": ["dead sensor: ..."], "note": ["goals: ..."]},
        "steps": 5000,
        "training_s": 61.4,
        "time_was_up": False,
        "trained": reached,
        "random": random,
        "video": {"frames": 20},
        **changes,
    }


def successes(rate, low, high):
    return {"episodes": 100, "success_rate": rate, "success_ci95": [low, high], "return_mean": -9.0}


def returns(mean, deviation):
    spread = {"return_mean": mean, "return_std": deviation}
    return {"episodes": 101, "success_rate": None, "success_ci95": None, **spread}


@every_environment
def test_commands_are_ones_that_a_user_can_type(script, name):
    trial = the_trial(script, name)
    words = trial.words
    assert words[0] == "train"
    settings = words[words.index("--set") + 1 :] if "--set" in words else []
    assert all("=" in setting for setting in settings), "--set comes last"
    plan = load_recipe(words[1], settings, env=trial.env, steps=trial.steps)
    assert plan.check_env
    assert plan.env == trial.env
    assert COLLECTION[name]["source"].startswith("https://")
    assert COLLECTION[name]["published"]


def test_the_extra_installs_every_package():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*extras["optional-dependencies"]["environments"]]
    needed += extras["optional-dependencies"]["robotics"]
    installed = {re.match(r"[\w-]+", requirement)[0] for requirement in needed}
    assert {facts["package"] for facts in COLLECTION.values()} <= installed


@pytest.mark.slow
@every_environment
def test_the_check_finds_no_error(script, name):
    trial = the_trial(script, name)
    if ":" in trial.env:
        pytest.importorskip(trial.env.partition(":")[0], exc_type=ImportError)
    prefer_egl()
    try:
        version(trial.package)
        make(trial.env).close()
    except (PackageNotFoundError, gym.error.DependencyNotInstalled) as error:
        pytest.skip(f"not installed: {error}")
    findings = check_env(functools.partial(make, trial.env), episodes=1, steps=60, seconds=5)
    assert errors(findings) == []


@pytest.mark.slow
def test_highway_env_draws_without_a_display():
    pytest.importorskip("highway_env", exc_type=ImportError)
    code = (
        "from rlkit.cli.main import _silence_others as silence; silence()\n"
        "from rlkit.envs.make import make\n"
        "env = make('highway_env:parking-v0', render_mode='rgb_array')\n"
        "env.reset(seed=0)\n"
        "assert env.render().std() > 1, 'the picture is empty'\n"
    )
    bare = {name: os.environ[name] for name in os.environ if "DISPLAY" not in name}
    bare.pop("SDL_VIDEODRIVER", None)
    shown = subprocess.run([sys.executable, "-c", code], env=bare, stderr=subprocess.PIPE)
    assert (shown.returncode, shown.stderr.decode()) == (0, "")


@pytest.mark.slow
def test_classic_control_is_killed_resumed_evaluated_and_recorded(script, tmp_path):
    """CartPole needs nothing but Gymnasium; without pygame it draws nothing, and says so."""
    command = "rlkit train plain-discrete --env CartPole-v1 --steps 6_000"
    trial = script.Trial("cart-pole", "gymnasium", command, episodes=10)
    found = script.attempt(trial, tmp_path, seconds=120)
    assert found["failed"] is None
    assert found["check"]["error"] == []
    assert found["steps"] == 6000
    assert 3000 <= found["resumed_from"] < 6000
    assert (tmp_path / "cart-pole/checkpoints/step-6000").is_dir()
    assert found["trained"]["episodes"] == found["random"]["episodes"] == 10
    assert 5 < found["random"]["return_mean"] < 60
    if "refused" in found["video"]:
        assert "pygame" in found["video"]["refused"]
    else:
        assert found["video"]["frames"] > found["trained"]["length_mean"] / 2
    path = tmp_path / "results.json"
    path.write_text(json.dumps(found))
    assert script.is_complete(path, trial)
    assert not script.is_complete(path, the_trial(script, "cart-pole")), "another command"


@pytest.mark.slow
def test_a_stage_that_fails_is_named(script, tmp_path):
    trial = script.Trial("none", "gymnasium", "rlkit train plain --env No-v0 --steps 100")
    found = script.attempt(trial, tmp_path, seconds=60)
    assert found["failed"].startswith("check: exit code 2: error: unknown environment 'No-v0'")
    path = tmp_path / "results.json"
    path.write_text(json.dumps(found))
    assert not script.is_complete(path, trial), "tried again by the next call"


def test_success_counts_where_it_is_known_and_returns_elsewhere(rows):
    assert rows.score(successes(0.5, 0.4, 0.6)) == (0.5, 0.4, 0.6)
    mean, low, high = rows.score(returns(10.0, 5.0))
    assert (mean, low, high) == pytest.approx((10.0, 9.02, 10.98))


@pytest.mark.parametrize(("low", "apart"), [(0.3, True), (0.2, False), (0.1, False)])
def test_intervals_are_apart_if_they_share_no_value(rows, low, apart):
    found = a_result(successes(0.4, low, 0.5), successes(0.1, 0.05, 0.2))
    assert rows.is_apart(found) is apart


def test_a_row_says_what_was_reached_by_which_means(rows, tmp_path, monkeypatch):
    texts = tmp_path / "environments.toml"
    texts.write_text(
        '[one]\ncommand = "rlkit train goal --env some_package:Task-v0 --steps 5_000"\n'
        'package = "some-package"\npublished = "1.0"\nsource = "https://x.org"\n'
        '[two]\ncommand = "c"\npublished = "2.0"\nsource = "https://y.org"\n'
        '[three]\ncommand = "c"\npublished = "3.0"\nsource = "https://z.org"\n'
        '[four]\ncommand = "not run yet"\n'
    )
    monkeypatch.setattr(rows, "_TEXTS", texts)
    folder = tmp_path / "environments"
    folder.mkdir()
    one = a_result(successes(0.9, 0.82, 0.95), successes(0.0, 0.0, 0.04))
    two = a_result(returns(3.25, 1.0), returns(3.0, 2.0), video={"refused": "no"}, time_was_up=True)
    three = a_result({}, {}, failed="train: exit code 2: error: no")
    for name, found in (("one", one), ("two", two), ("three", three)):
        (folder / f"{name}.json").write_text(json.dumps(found))
    first, second, third = rows.environment_rows(tmp_path)
    assert first == [
        *("`Task-v0`", "**90 % [82, 95]**", "0 % [0, 4]", "5,000", "61"),
        *("1 warning", "yes", "1.0 ([source](https://x.org))"),
    ]
    assert second[1:3] == ["3.25 [3.05, 3.45]", "3.00 [2.61, 3.39]"]
    assert second[3] == "5,000 (time limit)"
    assert second[6] == "no"
    assert third[1] == "failed: train: exit code 2: error: no"
    assert len(third) == len(first) == len(rows.COLUMNS)
