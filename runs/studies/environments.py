"""Trains on environments of other packages, five minutes each, and writes what was reached.

    pip install "rlkit-suite[environments]"
    python runs/studies/environments.py
    python runs/studies/environments.py --only panda-reach parking --core 1

For each environment of `environments.toml`, through the command line: check, train, SIGKILL in the
middle, resume until the steps are done or five minutes have passed, evaluate on held-out episodes,
record a video. Random actions are evaluated on the same episodes. Everything runs on one core, so
several calls may work side by side with another `--core` each.

Each environment has a file of its own in `runs/results/environments/`, written as it is finished;
the next call skips what is complete. `render_tables.py` makes a table of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from environment_rows import is_apart
from numpy.typing import NDArray
from PIL import Image
from training_runs import OUT, RESULTS, versions, write_json

from rlkit.io.checkpoint import saved_steps

FOLDER = Path(__file__).resolve().parent
COLLECTION = FOLDER / "environments.toml"
TRAINING_S = 300.0
_GRACE_S = 60.0  # time to save after a request to stop
_SPARING = ("evaluation.every=0", "evaluation.final_episodes=1", "pictures.video_episodes=0")
"""No evaluation or video in training: they follow, and do not change what is learned."""
_CHECKPOINTS = 10  # per training
_THUMBNAIL = (480, 360)  # width and height of the pictures that are looked at, in pixels


class StageFailed(Exception):
    """A command of a trial did not do what it should; the message begins with its stage."""


@dataclass(frozen=True)
class Trial:
    """What is done with one environment.

    Attributes:
        name: Short name; the results file has it.
        package: Distribution that the environment comes from.
        command: What a user types to train.
        episodes: Held-out episodes of the evaluations.
    """

    name: str
    package: str
    command: str
    episodes: int = 100

    @property
    def words(self) -> list[str]:
        """The command's words after `rlkit`."""
        return shlex.split(self.command)[1:]

    @property
    def env(self) -> str:
        """Id of the environment."""
        return self.words[self.words.index("--env") + 1]

    @property
    def trust(self) -> list[str]:
        """The flag that lets commands import a module which only the run's recipe names."""
        return ["--trust"] if ":" in self.env else []

    @property
    def steps(self) -> int:
        """Environment steps of the command."""
        return int(self.words[self.words.index("--steps") + 1])


def read_collection(path: Path = COLLECTION) -> list[Trial]:
    """The environments, in the order of their file."""
    fields = ("package", "command", "episodes")
    return [
        Trial(name, **{key: facts[key] for key in fields if key in facts})
        for name, facts in tomllib.loads(path.read_text()).items()
    ]


class Commands:
    """Runs the commands of one trial; their output goes to a log.

    Args:
        log: The file; an earlier one is removed.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        log.unlink(missing_ok=True)

    def start(self, words: Sequence[str]) -> subprocess.Popen[str]:
        """Starts a command in the folder of the studies, where modules of environments are."""
        with self._log.open("a") as log:
            log.write(f"$ {shlex.join(words)}\n")
            log.flush()
            return subprocess.Popen(
                [sys.executable, *words],
                cwd=FOLDER,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def output(self, stage: str, words: Sequence[str], codes: Sequence[int] = (0,)) -> str:
        """Standard output of a command that must end with one of these exit codes.

        Raises:
            StageFailed: If it ends otherwise; the message has the last line of its log.
        """
        process = self.start(words)
        text, _ = process.communicate()
        return self.require(stage, process, text, codes)

    def require(
        self, stage: str, process: subprocess.Popen[str], text: str, codes: Sequence[int] = (0,)
    ) -> str:
        """The text, if the process ended well.

        Raises:
            StageFailed: If it did not.
        """
        if process.returncode not in codes:
            lines = [line for line in self._log.read_text().splitlines() if line.strip()]
            shown = [line for line in lines if not line.startswith("(RLKIT_TRACEBACK")]
            raise StageFailed(f"{stage}: exit code {process.returncode}: {shown[-1]}")
        return text


def check(trial: Trial, commands: Commands) -> dict[str, list[str]]:
    """What `rlkit check-env` says, by level."""
    words = ["-m", "rlkit", "check-env", trial.env, "--json"]
    found = _json(commands.output("check", words, codes=(0, 1)))
    levels: dict[str, list[str]] = {"error": [], "warning": [], "note": []}
    for finding in found["findings"]:
        levels[finding["level"]].append(f"{finding['law']}: {finding['message']}")
    return levels


def train(trial: Trial, run: Path, commands: Commands, seconds: float) -> dict[str, Any]:
    """Trains with a SIGKILL in the middle and a resume.

    Args:
        trial: What is trained.
        run: The run's folder; removed first.
        commands: Runs the commands.
        seconds: Wall clock for both processes, start-up included.

    Returns:
        Steps, the step of the checkpoint that was continued, seconds, and whether the time was up.

    Raises:
        StageFailed: If a process ends by itself before it should, or with an error.
    """
    shutil.rmtree(run, ignore_errors=True)
    settings = [*_SPARING, f"checkpoint.every={max(1, trial.steps // _CHECKPOINTS)}"]
    if "--set" in trial.words:
        arguments = [*trial.words, *settings]
    else:
        arguments = [*trial.words, "--set", *settings]
    began = time.monotonic()
    process = commands.start(["-m", "rlkit", *arguments, "--out", str(run), "--json"])
    killed_at = _kill_in_the_middle(trial, run, process, commands, began + seconds / 2)
    resumed = commands.start(["-m", "rlkit", "resume", str(run), *trial.trust, "--json"])
    is_late = _wait(resumed, began + seconds)
    text = _end(resumed)
    spent = time.monotonic() - began
    # The request to stop may also come when the run has just finished.
    codes = (0, 128 + signal.SIGTERM, -signal.SIGTERM)
    outcome = _json(commands.require("resume", resumed, text, codes))
    return {
        "steps": outcome["steps"],
        "resumed_from": killed_at,
        "training_s": round(spent, 1),
        "time_was_up": is_late,
    }


def _kill_in_the_middle(
    trial: Trial, run: Path, process: subprocess.Popen[str], commands: Commands, due: float
) -> int:
    """Kills after half of the steps or of the time, whichever is first; returns the step saved."""
    while process.poll() is None:
        saved = saved_steps(run / "checkpoints")
        if saved and (saved[-1] >= trial.steps // 2 or time.monotonic() > due):
            time.sleep(1.0)  # into the next period
            process.send_signal(signal.SIGKILL)
            process.communicate()
            break
        if not saved and time.monotonic() > due + _GRACE_S:
            process.kill()
            process.communicate()
            raise StageFailed("train: no checkpoint within the time")
        time.sleep(0.1)
    if process.returncode != -signal.SIGKILL:
        text, _ = process.communicate()
        commands.require("train", process, text, ())
    return saved_steps(run / "checkpoints")[-1]


def _wait(process: subprocess.Popen[str], due: float) -> bool:
    """Waits for the end; asks the process to save and stop when it is due."""
    try:
        process.wait(max(0.0, due - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.terminate()
        return True
    return False


def _end(process: subprocess.Popen[str]) -> str:
    """Output of a process that is finished or has been asked to stop.

    Raises:
        StageFailed: If it takes too long.
    """
    try:
        return process.communicate(timeout=_GRACE_S)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise StageFailed(f"resume: ran on for {_GRACE_S:.0f} s after SIGTERM") from None


def record(trial: Trial, run: Path, commands: Commands) -> dict[str, Any]:
    """Records one episode; returns facts about the video, or why there is none.

    Raises:
        StageFailed: If the video is empty or shows the same picture throughout.
    """
    path = run.with_suffix(".mp4")
    path.unlink(missing_ok=True)
    options = ["--episodes", "1", "--out", str(path), *trial.trust]
    process = commands.start(["-m", "rlkit", "record", str(run), *options])
    process.communicate()
    if process.returncode == 2:  # an error of the user, which is one message
        try:
            commands.require("record", process, "")
        except StageFailed as failure:
            return {"refused": str(failure).partition("error: ")[2]}
    commands.require("record", process, "")
    frames = _frames(path)
    shown = frames[[0, len(frames) // 2, -1]]
    Image.fromarray(np.concatenate(shown, axis=1)).save(run.with_suffix(".png"))
    if (frames == frames[0]).all():
        raise StageFailed(f"record: {len(frames)} frames show the same picture")
    return {"frames": len(frames)}


def _frames(path: Path) -> NDArray[np.uint8]:
    """All pictures of a video, `(N, H, W, 3)`, shrunk to one size with black margins."""
    width, height = _THUMBNAIL
    size = f"{width}:{height}"
    fit = f"scale={size}:force_original_aspect_ratio=decrease,pad={size}:(ow-iw)/2:(oh-ih)/2"
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(path)]
    raw = [*program, "-vf", fit, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    found = subprocess.run(raw, check=True, stdout=subprocess.PIPE).stdout
    return np.frombuffer(found, np.uint8).reshape(-1, height, width, 3)


def attempt(trial: Trial, out: Path, seconds: float) -> dict[str, Any]:
    """Everything with one environment; a stage that fails ends it and is named in the result."""
    out.mkdir(parents=True, exist_ok=True)
    run = out / trial.name
    commands = Commands(out / f"{trial.name}.log")
    found: dict[str, Any] = {"env": trial.env, "command": trial.command, "failed": None}
    found["versions"] = versions((trial.package,))
    evaluation = [str(run), "--episodes", str(trial.episodes), *trial.trust]
    try:
        found["check"] = check(trial, commands)
        found |= train(trial, run, commands, seconds)
        words = ["-m", "rlkit", "eval", *evaluation, "--json"]
        found["trained"] = _scores(commands.output("eval", words))
        found["random"] = _scores(commands.output("random", ["random_policy.py", *evaluation]))
        found["video"] = record(trial, run, commands)
    except StageFailed as failure:
        found["failed"] = str(failure)
    return found


def _scores(text: str) -> dict[str, Any]:
    keys = ("episodes", "success_rate", "success_ci95", "return_mean", "return_std", "length_mean")
    outcome = _json(text)
    return {key: outcome[key] for key in keys}


def _json(text: str) -> dict[str, Any]:
    """The one object in the output; what libraries in C print is around it."""
    lines = [line for line in text.splitlines() if line.startswith("{")]
    if not lines:
        raise StageFailed(f"a command with --json printed no object but {text!r}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def is_complete(path: Path, trial: Trial) -> bool:
    """Whether a results file holds this trial, without a failure."""
    if not path.is_file():
        return False
    found = json.loads(path.read_text())
    return found["command"] == trial.command and found["failed"] is None


def main(arguments: Sequence[str] | None = None) -> int:
    """Works through the collection; returns 1 if a stage failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    trials = {trial.name: trial for trial in read_collection()}
    parser.add_argument("--only", nargs="+", choices=trials, default=[*trials], metavar="NAME")
    parser.add_argument("--core", type=int, help="the core to run on; default: the first")
    parser.add_argument("--seconds", type=float, default=TRAINING_S, help="of each training")
    parser.add_argument("--overwrite", action="store_true", help="train again what has results")
    parser.add_argument("--results", type=Path, default=RESULTS / "environments")
    parser.add_argument("--out", type=Path, default=OUT / "environments", help="for the runs")
    args = parser.parse_args(arguments)

    core = min(os.sched_getaffinity(0)) if args.core is None else args.core
    os.sched_setaffinity(0, {core})  # children inherit it
    failures = 0
    for name in args.only:
        path = args.results / f"{name}.json"
        if is_complete(path, trials[name]) and not args.overwrite:
            continue
        found = attempt(trials[name], args.out.resolve(), args.seconds)
        write_json(path, found)
        print(f"{name}: {_summary(found)}", file=sys.stderr, flush=True)
        failures += found["failed"] is not None
    return 1 if failures else 0


def _summary(found: dict[str, Any]) -> str:
    if found["failed"]:
        return f"FAILED, {found['failed']}"
    key = "return_mean" if found["trained"]["success_rate"] is None else "success_rate"
    ours, random = found["trained"][key], found["random"][key]
    gap = "apart" if is_apart(found) else "not apart"
    return (
        f"{key} {ours:.2f}, random {random:.2f} ({gap}), {found['steps']:,} steps in "
        f"{found['training_s']:.0f} s, errors {len(found['check']['error'])}"
    )


if __name__ == "__main__":
    sys.exit(main())
