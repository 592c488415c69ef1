"""Kills trainings at random moments and compares the resumed runs with an undisturbed one.

    python runs/bench/kill_resume.py --runs 20 --out kill_resume.json
    python runs/bench/kill_resume.py --runs 20 --encoder gru --out kill_resume_recurrent.json
    python runs/bench/kill_resume.py --runs 20 --kinds 0 1 2 3 4 6 7 8 9 10 --out kills.json

The last one is row 7 of the matrix in `docs/reliability.md`: 200 runs over all agents.

For each agent and environment one run is undisturbed. The others are started with `rlkit train`,
killed with SIGKILL up to three times, half of the time while saving a checkpoint, and continued
with `rlkit resume` until they finish. Their weights, optimiser state and replay buffer must equal
the undisturbed run's byte for byte, and their curves point for point. One more run of each kind
meets a full disk halfway. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

FOLDER = Path(__file__).resolve().parent
WALL_CLOCK = ("time/", "planner/milliseconds")  # tags that differ between equal runs
QUICK = {
    "device": "cpu",
    "check_env": False,
    "evaluation.episodes": 4,
    "evaluation.final_episodes": 4,
    "pictures.video_episodes": 0,
    "agent_options.net_arch": [16],
    "agent_options.batch_size": 32,
    "agent_options.learning_starts": 100,
    "agent_options.buffer_size": 20_000,
}
RECURRENT = {
    "agent_options.batch_size": 8,
    "agent_options.window": 16,
    "agent_options.burn_in": 4,
    "agent_options.start": "stored",
}


SMALL_MPC = (
    ("net_arch", None),
    ("first_fit", 20),
    ("world", {"name": "ensemble", "members": 2, "hidden": [16]}),
    ("planner", {"name": "shooting", "horizon": 4, "samples": 20, "elites": 5}),
)
SMALL_LATENT = (
    ("buffer_size", 2_000),
    ("latent", {"name": "pca", "dims": 4}),
    ("pretraining", {"frames": 200, "steps": 1, "refresh_every": 400, "refresh_steps": 1}),
)


@dataclass(frozen=True)
class Kind:
    """One kind of training.

    Attributes:
        agent: Name of the agent.
        env: Id of the environment.
        num_envs: Parallel environments.
        steps: Environment steps in total; a tenth of them lies between checkpoints.
        encoder: Name of the recurrent encoder; None for a feed-forward agent.
        options: More options of the agent, and options that replace those of `QUICK`.
    """

    agent: str
    env: str
    num_envs: int
    steps: int
    encoder: str | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def command(self, path: Path) -> list[str]:
        """The command that trains it into a folder."""
        settings = {
            **QUICK,
            "num_envs": self.num_envs,
            "checkpoint.every": self.steps // 10,
            "evaluation.every": self.steps // 4,
            "agent_options.update_ratio": 0.25,
            **({} if self.encoder is None else RECURRENT),
            **{f"agent_options.{name}": value for name, value in self.options},
        }
        settings = {key: value for key, value in settings.items() if value is not None}
        pairs = [f"{key}={_toml(value)}" for key, value in settings.items()]
        names = ["--agent", self.agent, "--env", self.env, "--out", str(path)]
        names += [] if self.encoder is None else ["--encoder", self.encoder]
        return ["train", *names, "--steps", str(self.steps), "--seed", "1", "--set", *pairs]


def _toml(value: Any) -> str:
    if not isinstance(value, dict):
        return json.dumps(value)
    return "{" + ", ".join(f"{key} = {json.dumps(part)}" for key, part in value.items()) + "}"


KINDS = (
    Kind("sac", "rlkit/PointMaze-U-v0", 8, 4000),
    Kind("td3", "rlkit/PointMaze-U-v0", 8, 4000),
    Kind("dqn", "rlkit/BitFlip-v0", 8, 8000),
    Kind("sac", "FetchReach-v4", 2, 600),
    Kind("td3", "FetchReach-v4", 2, 600),
    Kind("dqn", "discrete_fetch:DiscreteFetchReach-v0", 2, 600),
    Kind("sac", "rlkit/PointMaze-U-v0", 8, 1000, "gru"),
    Kind("td3", "rlkit/PointMaze-U-v0", 8, 800, "transformer"),
    Kind("dqn", "rlkit/BitFlip-v0", 8, 1600, "lstm"),
    Kind("mpc", "rlkit/PointMaze-U-v0", 4, 400, None, SMALL_MPC),
    Kind("sac", "rlkit/PointMaze-U-Pixels-v0", 4, 1200, None, SMALL_LATENT),
)


def start(arguments: list[str], largest_file: int | None = None) -> subprocess.Popen[bytes]:
    """Starts the command line; no file it writes can grow beyond `largest_file` bytes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rlkit.cli", *arguments],
        cwd=FOLDER,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    if largest_file is not None:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (largest_file, largest_file))
    return process


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Waits for the end; returns the exit code and standard error."""
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors.decode()


def next_command(kind: Kind, path: Path) -> list[str]:
    """The command after a crash: resume, or train again if the run had not started."""
    return ["resume", str(path)] if (path / "recipe.toml").is_file() else kind.command(path)


def kill(process: subprocess.Popen[bytes], path: Path, rng: random.Random, seconds: float) -> str:
    """Kills a run at a random moment; returns the phase in which it was hit.

    Args:
        process: The run.
        path: Its folder.
        rng: Chooses the moment.
        seconds: Approximate duration of the run.
    """
    aims_at_saving = rng.random() < 0.5
    moment = time.monotonic() + rng.uniform(0.1, 0.9) * seconds
    while process.poll() is None:
        is_saving = any(path.glob("checkpoints/.step-*"))
        if time.monotonic() > moment and (is_saving or not aims_at_saving):
            time.sleep(rng.uniform(0, 0.003) if aims_at_saving else 0)
            break
        time.sleep(0.0002 if time.monotonic() > moment else 0.005)
    process.send_signal(signal.SIGKILL)
    finish(process)
    if process.returncode != -signal.SIGKILL:
        return "finished before"
    if any(path.glob("checkpoints/.step-*")):
        return "while saving"
    if any(path.glob("checkpoints/step-*")):
        return "between checkpoints"
    return "before the first checkpoint"


def disturbed(kind: Kind, path: Path, seed: int, seconds: float) -> Counter[str]:
    """Trains to the end with up to three kills; counts the phases that they hit."""
    rng = random.Random(seed)
    hits: Counter[str] = Counter()
    while hits.total() == hits["finished before"]:  # a run without a kill tests nothing
        shutil.rmtree(path, ignore_errors=True)
        for _ in range(rng.choice((1, 1, 2, 3))):
            hits[kill(start(next_command(kind, path)), path, rng, seconds)] += 1
    code, errors = finish(start(next_command(kind, path)))
    if code != 0:
        raise RuntimeError(f"{path} did not finish: exit code {code}\n{errors}")
    return hits


def with_full_disk(kind: Kind, path: Path, reference: Path) -> dict[str, Any]:
    """Trains while large files are refused, then resumes without that limit."""
    largest = max(file.stat().st_size for file in newest_checkpoint(reference).iterdir())
    code, errors = finish(start(kind.command(path), largest_file=largest // 2))
    leftovers = [str(entry.name) for entry in (path / "checkpoints").glob(".*")]
    resumed, _ = finish(start(["resume", str(path)]))
    return {
        "exit_code_when_full": code,
        "message": next(
            (line for line in errors.splitlines() if line.startswith("error")), ""
        ).replace(str(path), path.name),
        "leftovers": leftovers,
        "exit_code_resumed": resumed,
        "differences": differences(path, reference),
    }


def newest_checkpoint(path: Path) -> Path:
    """The folder of a run's last checkpoint."""
    found = (path / "checkpoints").glob("step-*")
    return max(found, key=lambda folder: int(folder.name.removeprefix("step-")))


def differences(path: Path, reference: Path) -> list[str]:
    """Names of the files that differ from the undisturbed run."""
    found_in, expected = newest_checkpoint(path), newest_checkpoint(reference)
    found = [] if found_in.name == expected.name else [f"ends at {found_in.name}"]
    members = {file.name for folder in (found_in, expected) for file in folder.iterdir()}
    for name in sorted(members - {"state.json", "manifest.json"}):  # these contain durations
        file = found_in / name
        if not file.is_file() or file.read_bytes() != (expected / name).read_bytes():
            found.append(name)
    if evaluations(path) != evaluations(reference):
        found.append("evaluations.json")
    if curves(path) != curves(reference):
        found.append("metrics.jsonl")
    if events(path) != events(reference):
        found.append("TensorBoard events")
    return found


def evaluations(path: Path) -> Any:
    """The evaluations of a run."""
    return json.loads((path / "evaluations.json").read_text())


def curves(path: Path) -> list[dict[str, Any]]:
    """The metrics of a run without durations."""
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if not key.startswith(WALL_CLOCK)} for row in rows]


def events(path: Path) -> list[tuple[int, str, float]]:
    """Step, tag and value of every TensorBoard scalar, in order."""
    files = sorted(path.glob("events.out.tfevents.*"))
    found = []
    for data in RawEventFileLoader(str(files[-1])).Load():
        event = Event.FromString(data)
        for value in event.summary.value:
            if not value.tag.startswith(WALL_CLOCK):
                found.append((event.step, value.tag, value.simple_value))
    return found


def compare(kind: Kind, runs: int, folder: Path, workers: int) -> dict[str, Any]:
    """All runs of one kind."""
    folder.mkdir(parents=True)
    reference = folder / "reference"
    began = time.monotonic()
    code, errors = finish(start(kind.command(reference)))
    if code != 0:
        raise RuntimeError(f"the undisturbed run ended with exit code {code}\n{errors}")
    seconds = time.monotonic() - began
    paths = [folder / f"run-{i}" for i in range(runs)]
    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(disturbed, kind, path, i, seconds) for i, path in enumerate(paths)]
        hits = sum((job.result() for job in jobs), Counter())
    wrong = {path.name: found for path in paths if (found := differences(path, reference))}
    return {
        "agent": kind.agent,
        "env": kind.env,
        **({} if kind.encoder is None else {"encoder": kind.encoder}),
        "runs": runs,
        "kills": dict(hits),
        "identical": runs - len(wrong),
        "differences": wrong,
        "full_disk": with_full_disk(kind, folder / "full", reference),
    }


def main() -> None:
    """Runs the comparison from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20, help="disturbed runs of each kind")
    parser.add_argument("--workers", type=int, default=2, help="runs at the same time")
    parser.add_argument("--kinds", type=int, nargs="*", help="numbers of the kinds, from 0")
    parser.add_argument(
        "--encoder", help="recurrent encoder of all agents, such as gru; default: each kind's own"
    )
    parser.add_argument("--out", type=Path, help="file for the JSON object")
    options = parser.parse_args()
    chosen = range(len(KINDS)) if options.kinds is None else options.kinds
    with tempfile.TemporaryDirectory() as folder:
        results = []
        for i in chosen:
            kind = KINDS[i]
            if options.encoder is not None:
                kind = replace(kind, encoder=options.encoder)
            results.append(compare(kind, options.runs, Path(folder, str(i)), options.workers))
            print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    summary = {
        "runs": sum(result["runs"] for result in results),
        "identical": sum(result["identical"] for result in results),
        "kinds": results,
    }
    runs, identical = summary["runs"], summary["identical"]
    kills = sum(sum(r["kills"].values()) - r["kills"].get("finished before", 0) for r in results)
    figure = f"{identical} of {runs} runs end the same after {kills} kills"
    full = [result["full_disk"]["differences"] == [] for result in results]
    summary["matrix"] = [
        {"row": 7, "figure": figure, "passed": identical == runs},
        {"row": 9, "figure": f"{sum(full)} of {len(full)} end the same", "passed": all(full)},
    ]
    text = json.dumps(summary, indent=1)
    print(text)
    for row in summary["matrix"]:
        verdict = "passed" if row["passed"] else "FAILED"
        print(f"B7 row {row['row']}: {row['figure']}: {verdict}", file=sys.stderr)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
