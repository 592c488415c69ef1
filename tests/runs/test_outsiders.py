import json
import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "runs" / "conformance"
RESULTS = FOLDER.parent / "results" / "conformance" / "outsiders.json"


@pytest.fixture
def outsiders(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield import_module("outsiders")
    sys.modules.pop("outsiders", None)


def a_test(outcome="passed", touched=True, cause=""):
    return {"outcome": outcome, "touched": touched, "cause": cause}


LISTED = {
    "not_applicable": {r"a\.py::test_internal.*": "an internal"},
    "fails": {r"a\.py::test_known\[SAC\]": "known"},
}


def test_each_outcome_has_its_place(outsiders):
    tests = {
        "a.py::test_fine[SAC]": a_test(),
        "a.py::test_fine[TD3]": a_test(),
        "a.py::test_foreign": a_test("failed", touched=False),
        "a.py::test_internal[1]": a_test("failed"),
        "a.py::test_skipped": a_test("skipped"),
        "a.py::test_known[SAC]": a_test("failed"),
        "a.py::test_known[TD3]": a_test("failed", cause="ValueError: x"),
    }
    found = outsiders.classify(tests, LISTED)
    assert found["applicable"] == 4
    assert found["passed"] == {"a.py::test_fine": 2}
    assert found["fails"] == {"known": ["a.py::test_known[SAC]"]}
    assert found["unexpected"] == {"a.py::test_known[TD3]": "ValueError: x"}
    assert set(found["not_applicable"]) == {"an internal", "skipped by the suite itself"}


def test_what_is_not_as_listed_fails_the_command(outsiders, capsys):
    good = outsiders.classify({"a.py::test_fine": a_test()}, LISTED)
    assert outsiders.report("suite", good)
    stale = outsiders.classify({"a.py::test_known[SAC]": a_test()}, LISTED)
    assert not outsiders.report("suite", stale)
    failing = outsiders.classify({"a.py::test_fine": a_test("failed", cause="E")}, LISTED)
    assert not outsiders.report("suite", failing)
    assert "not listed, fails: a.py::test_fine: E" in capsys.readouterr().out


def test_the_lists_are_of_known_suites_with_valid_patterns(outsiders):
    listed = tomllib.loads((FOLDER / "outsiders.toml").read_text())
    assert set(listed) <= set(outsiders.SUITES)
    for tables in listed.values():
        assert set(tables) <= {"not_applicable", "fails"}
        for table in tables.values():
            for pattern, reason in table.items():
                re.compile(pattern)
                assert reason


def test_the_results_agree_with_the_lists(outsiders):
    listed = tomllib.loads((FOLDER / "outsiders.toml").read_text())
    for name, found in json.loads(RESULTS.read_text()).items():
        failing = [test for tests in found["fails"].values() for test in tests]
        passed = sum(found["passed"].values())
        assert found["applicable"] == passed + len(failing) + len(found["unexpected"])
        reasons = set(listed.get(name, {}).get("not_applicable", {}).values())
        assert set(found["not_applicable"]) <= reasons | {"skipped by the suite itself"}
