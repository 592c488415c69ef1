import csv
import os
import re
from importlib import import_module
from pathlib import Path

import gymnasium as gym
import pytest
from gymnasium import spaces

RESULT = Path(__file__).parents[2] / "runs" / "results" / "check_strangers.csv"
BOUNDS = {"episodes": 3, "steps": 20, "seconds": 5.0}


class Broken(gym.Env):
    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 7, 0.0, False, True, {}


class Unbuilt(Broken):
    def __init__(self):
        os._exit(3)


class Dying(Broken):
    def step(self, action):
        os._exit(3)


@pytest.fixture(name="registered")
def _registered():
    kinds = {"WrongSpace-v0": Broken, "Dying-v0": Dying, "Unbuilt-v0": Unbuilt}
    for name, kind in kinds.items():
        gym.register(name, kind)
    yield
    for name in kinds:
        del gym.registry[name]


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_every_environment_is_checked_in_a_process_of_its_own(tmp_path):
    script = import_module("check_strangers")

    results = {
        env_id: script.checked(env_id, BOUNDS, 20.0)
        for env_id in ("CartPole-v1", "WrongSpace-v0", "Dying-v0")
    }
    assert results["CartPole-v1"]["error"] == {}
    assert set(results["WrongSpace-v0"]["error"]) == {"space"}
    assert results["Dying-v0"]["error"] == {"process": "its process died"}
    assert script.checked("Unbuilt-v0", BOUNDS, 20.0) == {"unbuilt": "its process died"}
    script.write(tmp_path / "found.csv", results)
    rows = list(csv.DictReader((tmp_path / "found.csv").read_text().splitlines()))
    assert [row["errors"] for row in rows] == ["", "space", "process"]


def test_the_committed_result_has_no_false_error():
    script = import_module("check_strangers")

    rows = list(csv.DictReader(RESULT.read_text().splitlines()))
    assert {row["package"] for row in rows} == {"gymnasium", *script.PACKAGES}
    wrong = [row["id"] for row in rows if row["errors"]]
    assert [one for one in wrong if not any(re.search(p, one) for p in script.KNOWN)] == []
