"""Runs test suites that others wrote on this suite's agents and environments.

    python runs/conformance/outsiders.py
    python runs/conformance/outsiders.py --suites sb3 --sources DIR --write

The sources are fetched at run time, in the versions that are installed: Stable-Baselines3's
packages from their source distributions, Gymnasium's by `git clone` of the tag. With
`--sources DIR` those in `DIR/<package>/tests` are taken, without the network. Nothing of them is
part of this repository.

`outsiders.toml` lists the tests that do not apply and those that fail, with reasons; all others
must pass. The command exits with 1 if a test fails that is not listed, or passes although listed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
RESULT = FOLDER.parent / "results" / "conformance" / "outsiders.json"
Tests = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Suite:
    """A foreign test suite.

    Attributes:
        package: The package whose tests they are; also the name of the folder of its sources.
        plugin: The pytest plugin that puts this suite's parts in their place.
        paths: Test files and folders, as patterns below `tests/`.
        naming: A regular expression; files without a match in their text are left out.
        repository: Where to clone them from; None where the source distribution has them.
        expression: pytest's `-m`.
    """

    package: str
    plugin: str
    paths: tuple[str, ...]
    naming: str = ""
    repository: str | None = None
    expression: str = ""


_GYMNASIUM = "https://github.com/Farama-Foundation/Gymnasium"
SUITES = {
    "sb3": Suite("stable_baselines3", "sb3_agents", ("test_*.py",), r"\b(SAC|TD3|DQN)\b"),
    "sb3-contrib-lstm": Suite(
        "sb3_contrib", "lstm_agents", ("test_lstm.py",), expression="not slow"
    ),
    "gymnasium-envs": Suite(
        "gymnasium",
        "gymnasium_ids",
        ("envs/test_*.py", "wrappers/test_passive_env_checker.py"),
        repository=_GYMNASIUM,
    ),
    "gymnasium-vector": Suite(
        "gymnasium",
        "gymnasium_ids",
        ("vector/test_[!a]*.py", "vector/test_autoreset_mode.py"),  # not Gymnasium's AsyncVectorEnv
        repository=_GYMNASIUM,
    ),
    "gymnasium-robotics": Suite(
        "gymnasium_robotics",
        "robotics_ids",
        ("test_envs.py",),
        repository="https://github.com/Farama-Foundation/Gymnasium-Robotics",
    ),
}


def fetch(suite: Suite, folder: Path) -> Path:
    """Brings the tests of the installed version below `folder`; returns the package's sources."""
    sources = folder / suite.package
    if (sources / "tests").is_dir():
        return sources
    installed = version(suite.package)
    if suite.repository is not None:
        command = ["git", "clone", "--quiet", "--depth", "1", "--branch", f"v{installed}"]
        subprocess.run([*command, suite.repository, str(sources)], check=True)
        return sources
    download = ["download", "--quiet", "--no-deps", "--no-build-isolation", "--no-binary", ":all:"]
    requirement = f"{suite.package}=={installed}"
    command = [sys.executable, "-m", "pip", *download, "--dest", str(folder), requirement]
    subprocess.run(command, check=True)
    with tarfile.open(folder / f"{suite.package}-{installed}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return (folder / f"{suite.package}-{installed}").rename(sources)


def run(suite: Suite, sources: Path, timeout_s: int, selection: str) -> dict[str, Any]:
    """Outcomes of the tests by name, as the plugins record them."""
    files = [path for pattern in suite.paths for path in sorted((sources / "tests").glob(pattern))]
    files = [path for path in files if re.search(suite.naming, path.read_text())]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        paths = [str(sources), str(FOLDER), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "OUTSIDERS_REPORT": str(report),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        command = [sys.executable, "-m", "pytest", "--quiet", "--tb=short", "-p", suite.plugin]
        command += ["-p", "no:cacheprovider", f"--basetemp={folder}/tests", f"--rootdir={sources}"]
        command += ["-m", suite.expression, "-k", selection, f"--timeout={timeout_s}"]
        names = [str(path.relative_to(sources)) for path in files]
        subprocess.run([*command, *names], cwd=sources, env=environment, check=False)
        found: dict[str, Any] = json.loads(report.read_text())
    return {name.removeprefix("tests/"): test for name, test in found.items()}


def classify(tests: Tests, listed: Mapping[str, Any]) -> dict[str, Any]:
    """What passed, what failed and what does not apply.

    Args:
        tests: Outcomes by name; a test that did not touch this suite's code is left out.
        listed: `not_applicable` and `fails`, each a table of a regular expression for the whole
            name to the reason.

    Returns:
        Counts; `not_applicable` and `fails` by reason; `unexpected` failures with causes, and tests
        that pass although listed (`stale`).
    """
    result: dict[str, Any] = {"applicable": 0, "passed": {}, "fails": {}, "not_applicable": {}}
    result |= {"unexpected": {}, "stale": []}
    for name, test in tests.items():
        if not test["touched"]:
            continue
        function = name.partition("[")[0]
        reason = _reason(name, listed.get("not_applicable", {}))
        known = _reason(name, listed.get("fails", {}))
        if reason is None and test["outcome"] == "skipped":
            reason = "skipped by the suite itself"
        if reason is not None:
            _add(result["not_applicable"], reason, function)
            continue
        result["applicable"] += 1
        if test["outcome"] == "passed":
            _add(result["passed"], function, name)
            result["stale"] += [name] if known is not None else []
        elif known is not None:
            result["fails"].setdefault(known, []).append(name)
        else:
            result["unexpected"][name] = test.get("cause", "")
    result["passed"] = {name: sum(of.values()) for name, of in result["passed"].items()}
    return result


def _reason(name: str, listed: Mapping[str, str]) -> str | None:
    matching = (reason for pattern, reason in listed.items() if re.fullmatch(pattern, name))
    return next(matching, None)


def _add(counts: dict[str, Any], group: str, name: str) -> None:
    of_group = counts.setdefault(group, {})
    of_group[name] = of_group.get(name, 0) + 1


def report(name: str, found: Mapping[str, Any]) -> bool:
    """Prints what a suite gave; True if it is as listed."""
    passed = sum(found["passed"].values())
    print(f"{name}: {passed} of {found['applicable']} applicable tests pass", flush=True)
    for test, cause in found["unexpected"].items():
        print(f"  not listed, fails: {test}: {cause}")
    for test in found["stale"]:
        print(f"  listed, passes: {test}")
    return not found["unexpected"] and not found["stale"]


def main(arguments: Iterable[str] | None = None) -> int:
    """Runs suites, prints what differs from the lists, and writes the results with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suites", nargs="+", choices=sorted(SUITES), default=list(SUITES))
    parser.add_argument("--sources", type=Path, help="folder with <package>/tests")
    parser.add_argument("--select", default="", help="pytest's -k")
    parser.add_argument("--timeout", type=int, default=900, help="seconds for one test")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args(None if arguments is None else list(arguments))
    listed = tomllib.loads((FOLDER / "outsiders.toml").read_text())
    as_listed = True
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.suites:
            suite, started = SUITES[name], time.monotonic()
            sources = fetch(suite, args.sources or Path(temporary))
            tests = run(suite, sources, args.timeout, args.select)
            found = classify(tests, listed.get(name, {}))
            found |= {"package": suite.package, "version": version(suite.package)}
            found["minutes"] = round((time.monotonic() - started) / 60, 1)
            as_listed &= report(name, found)
            if args.write:
                results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
                RESULT.write_text(json.dumps(results | {name: found}, indent=1) + "\n")
    return 0 if as_listed else 1


if __name__ == "__main__":
    sys.exit(main())
