"""Runs many trainings in parallel, each in its own process, and collects their results.

A training whose folder already holds the same recipe resumes from its last checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from rlkit.experiment.recipe import Recipe, load_recipe
from rlkit.experiment.run_folder import RunFolder
from rlkit.io.atomic_write import replace_file

RUNS = Path(__file__).resolve().parents[1]
RESULTS, OUT = RUNS / "results", RUNS / "out"
PACKAGES = ("torch", "numpy", "gymnasium", "stable-baselines3", "gymnasium-robotics", "mujoco")
Facts = dict[str, Any]
_POLL_S, _GRACE_S = 0.2, 120.0


@dataclass(frozen=True)
class TrainingRun:
    """One training.

    Attributes:
        recipe: Name or path of the recipe.
        seed: Its seed.
        settings: Changes of the recipe, as `rlkit train --set` takes them.
        folder: The run's folder; the log of the process is written next to it.
    """

    recipe: str
    seed: int
    settings: tuple[str, ...]
    folder: Path

    def plan(self) -> Recipe:
        """The recipe with its changes."""
        return load_recipe(self.recipe, self.settings, seed=self.seed)

    def command(self) -> list[str]:
        """Arguments of `rlkit` that start the training or resume an interrupted one."""
        if not is_started(self):
            changes = [part for setting in self.settings for part in ("--set", setting)]
            start = ["train", self.recipe, "--seed", str(self.seed), "--out", str(self.folder)]
            return [*start, *changes, "--json"]
        return ["resume", str(self.folder), "--json"]


class Process:
    """The process of a training.

    Args:
        run: The training.
        minutes: Time limit, after which it is stopped, saved and evaluated; None for no limit.
    """

    def __init__(self, run: TrainingRun, minutes: float | None) -> None:
        self._run = run
        run.plan()  # raises on a wrong setting before the process starts
        if not is_started(run):
            shutil.rmtree(run.folder, ignore_errors=True)
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        self._log = run.folder.with_name(f"{run.folder.name}.log")
        with self._log.open("w") as log:
            self._process = _rlkit(run.command(), log)
        self._due = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._is_stopped = False

    def is_running(self) -> bool:
        """Whether it still runs; requests a stop after the time limit."""
        if self._process.poll() is not None:
            return False
        if time.monotonic() > self._due + _GRACE_S:
            self._process.kill()
        elif time.monotonic() > self._due:
            self._request_stop()
        return True

    def stop(self) -> None:
        """Stops it after it has saved a checkpoint."""
        if self._process.poll() is None:
            self._request_stop()
        self._process.communicate()

    def _request_stop(self) -> None:
        # A second signal would end the process before it has saved.
        if not self._is_stopped:
            self._process.terminate()
        self._is_stopped = True

    def facts(self) -> Facts:
        """The result of the training.

        Raises:
            RuntimeError: If it failed; the message has the last lines of its log.
        """
        text, _ = self._process.communicate()
        code = self._process.returncode
        outcome = json.loads(text) if text.strip() else None
        if outcome is None or (code != 0 and not self._is_stopped):
            last = "\n".join(self._log.read_text().splitlines()[-5:])
            raise RuntimeError(f"{self._run.folder} failed with status {code}:\n{last}")
        if outcome["stopped"]:
            outcome |= _evaluated(self._run)
        return _facts(self._run, outcome)


def is_started(run: TrainingRun) -> bool:
    """Whether the folder holds this training, started or finished."""
    if not (run.folder / "recipe.toml").is_file():
        return False
    try:
        return RunFolder.open(run.folder).recipe() == run.plan()
    except ValueError:  # written by another version of the suite
        return False


def run_all(
    runs: Iterable[TrainingRun],
    jobs: int,
    minutes: float | None,
    finished: Callable[[TrainingRun, Facts], Iterable[TrainingRun]],
) -> list[TrainingRun]:
    """Runs all trainings, some in parallel.

    Args:
        runs: What to train.
        jobs: How many run in parallel.
        minutes: Time limit of one training, after which it is stopped and evaluated.
        finished: Called with each result; returns trainings to run next.

    Returns:
        The trainings that failed; a failure does not stop the others.
    """
    waiting, running = deque(runs), dict[TrainingRun, Process]()
    failed: list[TrainingRun] = []
    with _stop_on_termination():
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    running[waiting[0]] = Process(waiting[0], minutes)
                    waiting.popleft()
                time.sleep(_POLL_S)
                for run in [one for one in running if not running[one].is_running()]:
                    process = running.pop(run)
                    try:
                        facts = process.facts()
                    except RuntimeError as error:
                        print(error, file=sys.stderr)
                        failed.append(run)
                    else:
                        waiting.extendleft(reversed(list(finished(run, facts))))
        finally:
            for process in running.values():
                process.stop()
    return failed


@contextlib.contextmanager
def _stop_on_termination() -> Iterator[None]:
    """Makes SIGTERM raise SystemExit, so that the trainings are stopped rather than orphaned."""

    def stop(number: int, _: Any) -> None:
        sys.exit(128 + number)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _rlkit(arguments: list[str], log: IO[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rlkit.cli", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,  # Ctrl-C reaches only this process, which stops each training once
    )


def _evaluated(run: TrainingRun) -> Facts:
    """The final evaluation of a training that was stopped before it."""
    episodes = run.plan().evaluation.final_episodes
    command = ["eval", str(run.folder), "--episodes", str(episodes), "--json"]
    with run.folder.with_name(f"{run.folder.name}.log").open("a") as log:
        process = _rlkit(command, log)
        text, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{run.folder} was stopped and its evaluation failed")
    found: Facts = json.loads(text)
    return found


def _facts(run: TrainingRun, outcome: Facts) -> Facts:
    """Result of a run, from its outcome and its evaluations."""
    rows = RunFolder.open(run.folder).evaluations()
    # Of two evaluations at one step the later, final one counts: it has the most episodes.
    curve = {row["step"]: [row["step"], row["success_rate"], row["return_mean"]] for row in rows}
    if outcome["stopped"]:
        step = outcome["steps"]
        curve[step] = [step, outcome["success_rate"], outcome["return_mean"]]
    keys = ("success_rate", "success_ci95", "return_mean", "return_std", "episodes", "steps")
    return {
        "seed": run.seed,
        **{key: outcome[key] for key in keys},
        "minutes": round(outcome["wall_s"] / 60, 2),
        "stopped": outcome["stopped"] is not None,
        "curve": list(curve.values()),
    }


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all studies share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--jobs", type=int, default=1, help="trainings in parallel")
    parser.add_argument("--minutes", type=float, help="time limit of one training")
    return parser


def add_folders(parser: argparse.ArgumentParser, name: str) -> None:
    """Adds the hidden options for the folders of results and of runs, which tests set."""
    parser.add_argument("--results", type=Path, default=RESULTS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=OUT / name, help=argparse.SUPPRESS)


def versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Versions of Python, of the packages that results depend on, and of `more` packages."""
    found = {"python": platform.python_version()}
    for name in (*PACKAGES, *more):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def read_results(path: Path, expected: Mapping[str, Any], hint: str) -> dict[str, Any]:
    """The contents of a results file; empty if there is none.

    Args:
        path: The file.
        expected: Values that the file must have.
        hint: What to do otherwise; ends the error.

    Raises:
        ValueError: If the file has other values.
    """
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for key, value in expected.items():
        if found and found[key] != value:
            raise ValueError(f"{path} holds {key} = {found[key]!r}, not {value!r}; {hint}")
    return found


def write_json(path: Path, content: Any) -> None:
    """Replaces a results file atomically; lists of plain values take one line each."""
    text = json.dumps(content, indent=1)
    innermost = re.compile(r"\[\n[^\[\]{}]*\]")
    short = innermost.sub(lambda found: re.sub(r"\n\s*", " ", found[0]), text)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, f"{short}\n".encode())
