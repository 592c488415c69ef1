"""Many trainings, some side by side, each in a process of its own, and what came of them.

What is interrupted resumes: a training whose folder holds the same recipe continues from its last
checkpoint. The scripts in this folder decide what is trained and write down the facts.
"""

from __future__ import annotations

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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from rlkit.experiment.recipe import Recipe, load_recipe
from rlkit.experiment.run_folder import RunFolder
from rlkit.io.atomic_write import replace_file

RUNS = Path(__file__).resolve().parent
RESULTS, OUT = RUNS / "results", RUNS / "out"
PACKAGES = ("torch", "numpy", "gymnasium", "stable-baselines3", "gymnasium-robotics", "mujoco")
Facts = dict[str, Any]
_POLL_S, _GRACE_S = 0.2, 120.0


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        recipe: Name or path of the recipe.
        seed: Its seed.
        settings: Changes of the recipe, as `rlkit train --set` takes them.
        folder: The run's folder; the text that the process writes goes beside it.
    """

    recipe: str
    seed: int
    settings: tuple[str, ...]
    folder: Path

    def plan(self) -> Recipe:
        """The recipe with its changes."""
        return load_recipe(self.recipe, self.settings, seed=self.seed)

    def words(self) -> list[str]:
        """The command that starts the training, or continues what an interruption left."""
        if not is_begun(self):
            changes = [word for setting in self.settings for word in ("--set", setting)]
            begin = ["train", self.recipe, "--seed", str(self.seed), "--out", str(self.folder)]
            return [*begin, *changes, "--json"]
        return ["resume", str(self.folder), "--json"]


class Process:
    """A training under way.

    Args:
        training: What to train.
        minutes: After how long it is stopped, saved and examined as it is; None for never.
    """

    def __init__(self, training: Training, minutes: float | None) -> None:
        self._training = training
        training.plan()  # a wrong setting speaks up here, not in a file beside the run
        if not is_begun(training):
            shutil.rmtree(training.folder, ignore_errors=True)
        training.folder.parent.mkdir(parents=True, exist_ok=True)
        self._log = training.folder.with_name(f"{training.folder.name}.log")
        with self._log.open("w") as log:
            self._process = _rlkit(training.words(), log)
        self._due = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._is_stopped = False

    def is_running(self) -> bool:
        """Whether it goes on; asks it to stop when its time is over."""
        if self._process.poll() is not None:
            return False
        if time.monotonic() > self._due + _GRACE_S:
            self._process.kill()
        elif time.monotonic() > self._due:
            self._ask_to_stop()
        return True

    def stop(self) -> None:
        """Ends it; what it has is saved."""
        if self._process.poll() is None:
            self._ask_to_stop()
        self._process.communicate()

    def _ask_to_stop(self) -> None:
        # A second request would end the process before it has saved.
        if not self._is_stopped:
            self._process.terminate()
        self._is_stopped = True

    def facts(self) -> Facts:
        """What came of it.

        Raises:
            RuntimeError: If the training failed; the message has its last lines.
        """
        text, _ = self._process.communicate()
        code = self._process.returncode
        outcome = json.loads(text) if text.strip() else None
        if outcome is None or (code != 0 and not self._is_stopped):
            last = "\n".join(self._log.read_text().splitlines()[-5:])
            raise RuntimeError(f"{self._training.folder} failed with status {code}:\n{last}")
        if outcome["stopped"]:
            outcome |= _examined(self._training)
        return _facts(self._training, outcome)


def is_begun(training: Training) -> bool:
    """Whether the folder holds this very training, begun or finished."""
    if not (training.folder / "recipe.toml").is_file():
        return False
    try:
        return RunFolder.open(training.folder).recipe() == training.plan()
    except ValueError:  # a recipe of another version of the suite
        return False


def run_all(
    trainings: Iterable[Training],
    jobs: int,
    minutes: float | None,
    finished: Callable[[Training, Facts], Iterable[Training]],
) -> list[Training]:
    """Trains everything, some side by side.

    Args:
        trainings: What to train.
        jobs: How many at a time.
        minutes: Longest time of a training; it is then stopped and examined as it is.
        finished: Called with each that ended; answers with what should be trained next.

    Returns:
        The trainings that failed; the others went on.
    """
    waiting, running = deque(trainings), dict[Training, Process]()
    failed: list[Training] = []
    with _termination_unwinds():
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    running[waiting[0]] = Process(waiting[0], minutes)
                    waiting.popleft()
                time.sleep(_POLL_S)
                for training in [one for one in running if not running[one].is_running()]:
                    process = running.pop(training)
                    try:
                        facts = process.facts()
                    except RuntimeError as error:
                        print(error, file=sys.stderr)
                        failed.append(training)
                    else:
                        waiting.extendleft(reversed(list(finished(training, facts))))
        finally:
            for process in running.values():
                process.stop()
    return failed


@contextlib.contextmanager
def _termination_unwinds() -> Iterator[None]:
    """Lets a request to end this process end the trainings, too, instead of orphaning them."""

    def leave(number: int, _: Any) -> None:
        sys.exit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _rlkit(words: list[str], log: IO[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rlkit.cli", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,  # Ctrl-C reaches this process alone, which then stops each once
    )


def _examined(training: Training) -> Facts:
    """The last evaluation of a training that was stopped before its own."""
    episodes = training.plan().evaluation.final_episodes
    words = ["eval", str(training.folder), "--episodes", str(episodes), "--json"]
    with training.folder.with_name(f"{training.folder.name}.log").open("a") as log:
        process = _rlkit(words, log)
        text, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{training.folder} stopped and cannot be examined")
    found: Facts = json.loads(text)
    return found


def _facts(training: Training, outcome: Facts) -> Facts:
    """What a run says about its recipe, from its outcome and its evaluations."""
    rows = RunFolder.open(training.folder).evaluations()
    # The evaluation at the end has the most episodes: of two at one step, it counts.
    curve = {row["step"]: [row["step"], row["success_rate"], row["return_mean"]] for row in rows}
    if outcome["stopped"]:
        step = outcome["steps"]
        curve[step] = [step, outcome["success_rate"], outcome["return_mean"]]
    taken = ("success_rate", "success_ci95", "return_mean", "return_std", "episodes", "steps")
    return {
        "seed": training.seed,
        **{key: outcome[key] for key in taken},
        "minutes": round(outcome["wall_s"] / 60, 2),
        "stopped": outcome["stopped"] is not None,
        "curve": list(curve.values()),
    }


def versions() -> dict[str, str]:
    """What the numbers of a result were made with."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def write_json(path: Path, content: Any) -> None:
    """Replaces a file of results in one step; lists of plain values take one line each."""
    text = json.dumps(content, indent=1)
    innermost = re.compile(r"\[\n[^\[\]{}]*\]")
    short = innermost.sub(lambda found: re.sub(r"\n\s*", " ", found[0]), text)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, f"{short}\n".encode())
