"""Long and heavy runs: memory, handles, speed, many environments, videos, lost workers.

    python runs/bench/soak.py --out runs/results/bench_soak.json
    python runs/bench/soak.py --rows 2 4 5 14

Each part is a row of the matrix in `docs/reliability.md`, printed as a line and as JSON. Row 1
takes `--minutes` (30), the others a few minutes each on two cores. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
QUICK = (
    "check_env=false",
    "device=cpu",
    "evaluation.every=0",
    "evaluation.final_episodes=2",
    "pictures.video_episodes=0",
    "agent_options.net_arch=[32]",
    "agent_options.batch_size=64",
    "agent_options.buffer_size=20000",
)
Measured = dict[str, Any]


def start(path: Path, *arguments: str, settings: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """Starts `rlkit train` with small settings."""
    command = [sys.executable, "-m", "rlkit", "train", *arguments, "--out", str(path), "--set"]
    return subprocess.Popen(
        [*command, *QUICK, *settings],
        cwd=FOLDER,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    """Waits for the end of a training.

    Raises:
        RuntimeError: If it failed.
    """
    _, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"exit code {process.returncode}: {errors.decode()}")


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM; files that are mapped count as well."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def handles(pid: int) -> int:
    """Open files of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def steps_of(path: Path) -> int:
    """The newest step in the curves of a run."""
    lines = (path / "metrics.jsonl").read_bytes().splitlines()
    return int(json.loads(lines[-1])["step"]) if lines else 0


def soak(folder: Path, minutes: float) -> Measured:
    """Row 1: memory, handles and speed over time, without the first third, which fills buffers."""
    path = folder / "soak"
    settings = (
        *("num_envs=8", "checkpoint.every=20000", "evaluation.every=20000"),
        "evaluation.stop_at_success=none",
    )
    process = start(
        path, "--env", "rlkit/PointMaze-U-v0", "--steps", "1000000000", settings=settings
    )
    rows = []
    began = time.monotonic()
    while time.monotonic() - began < 60 * minutes:
        time.sleep(min(10.0, 6 * minutes))
        if process.poll() is not None:
            finish(process)
            raise RuntimeError("the training ended before its time")
        if (path / "metrics.jsonl").is_file():
            now = time.monotonic() - began
            rows.append((now, resident_bytes(process.pid), handles(process.pid), steps_of(path)))
    process.send_signal(signal.SIGTERM)
    process.communicate()
    late = np.array(rows)[len(rows) // 3 :]
    hours, memory = late[:, 0] / 3600, late[:, 1] / 1e6
    line, covariance = np.polyfit(hours, memory, 1, cov=True)
    slope, error = float(line[0]), float(covariance[0, 0] ** 0.5)
    half = len(late) // 2
    speeds = [
        float((part[-1, 3] - part[0, 3]) / (part[-1, 0] - part[0, 0]))
        for part in (late[:half], late[half:])
    ]
    drop = 1 - speeds[1] / speeds[0]
    opened = int(late[:, 2].max() - late[:, 2].min())
    return {
        "figure": f"{slope:+.2f} MB/h (standard error {error:.2f}), speed {-drop:+.1%}, "
        f"handles +{opened} in {minutes:g} minutes",
        "passed": slope - 2 * error < 1 and drop < 0.03 and opened <= 4,
        "memory_mb": [float(memory.min()), float(memory.max())],
        "steps_per_s": speeds,
    }


def many_environments(folder: Path) -> Measured:
    """Row 2: 64 environments in processes on all cores; every episode is counted once."""
    path, steps = folder / "many", 64 * 200
    began = time.monotonic()
    process = start(
        path,
        *("--env", "Pendulum-v1", "--steps", str(steps)),
        settings=("num_envs=64", "subprocess=true", "checkpoint.every=0"),
    )
    finish(process)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    episodes = max(row.get("time/episodes", 0) for row in rows)
    seconds = time.monotonic() - began
    return {
        "figure": f"64 environments, {episodes} of 64 episodes counted, {seconds:.0f} s",
        "passed": episodes == 64,
    }


def videos(folder: Path) -> Measured:
    """Row 4: memory of a training that draws often."""
    path = folder / "videos"
    settings = ("pictures.every=500", "pictures.video_episodes=2", "num_envs=8")
    process = start(path, "--env", "rlkit/PointMaze-U-v0", "--steps", "24000", settings=settings)
    found: list[tuple[int, int]] = []
    while process.poll() is None:
        drawn = len(list(path.glob("videos/step-*.mp4")))
        if drawn > 0:
            found.append((drawn, resident_bytes(process.pid)))
        time.sleep(0.2)
    finish(process)
    drawn = len(list(path.glob("videos/*.mp4")))
    early = max(size for number, size in found if number <= drawn // 2)
    late = max(size for number, size in found if number > drawn // 2)
    growth = (late - early) / 1e6
    return {
        "figure": f"{drawn} videos, {growth:+.1f} MB in their second half",
        "passed": growth < 10,
    }


def many_runs(folder: Path) -> Measured:
    """Row 5: 200 runs in one folder are read and drawn."""
    one, parent = folder / "one", folder / "runs"
    finish(start(one, "--env", "rlkit/PointMaze-U-v0", "--steps", "400"))
    for number in range(200):
        shutil.copytree(one, parent / f"seed-{number}", ignore=shutil.ignore_patterns("step-*"))
    command = [sys.executable, "-m", "rlkit", "plot", str(parent), "--out", str(folder / "p.png")]
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    return {"figure": f"200 runs drawn in {seconds:.1f} s, start included", "passed": seconds < 6}


def lost_workers(folder: Path) -> Measured:
    """Row 11: processes of environments are killed; the training goes on as fast."""
    speeds, lost = [], 0
    for name, kills in (("calm", 0), ("killed", 10)):
        path = folder / name
        settings = ("num_envs=4", "subprocess=true", "agent_options.update_ratio=0.1")
        process = start(path, "--env", "Pendulum-v1", "--steps", "40000", settings=settings)
        while not (path / "metrics.jsonl").is_file() or not steps_of(path):
            time.sleep(0.1)
        began, first = time.monotonic(), steps_of(path)
        for _ in range(kills):
            time.sleep(1.0)
            workers = [pid for pid in descendants(process.pid) if is_worker(pid)]
            if workers and process.poll() is None:
                os.kill(workers[0], signal.SIGKILL)
                lost += 1
        finish(process)
        speeds.append((40_000 - first) / (time.monotonic() - began))
    share = speeds[1] / speeds[0]
    return {
        "figure": f"{lost} workers killed, {share:.0%} of the speed without",
        "passed": lost > 0 and share > 0.9,
    }


def killed_parent(folder: Path) -> Measured:
    """Row 14: no process of a training outlives it by 5 seconds."""
    settings = ("num_envs=4", "subprocess=true")
    process = start(
        folder / "parent", "--env", "Pendulum-v1", "--steps", "1000000", settings=settings
    )
    while len(descendants(process.pid)) < 5:
        time.sleep(0.1)
    time.sleep(1.0)
    children = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    began = time.monotonic()
    alive = children
    while alive and time.monotonic() - began < 10:
        time.sleep(0.05)
        alive = [pid for pid in alive if is_alive(pid)]
    seconds = time.monotonic() - began
    figure = f"{len(children)} processes, all gone after {seconds:.1f} s"
    return {"figure": figure if not alive else f"{len(alive)} left", "passed": seconds < 5}


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, and theirs."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            direct = [int(word) for word in (task / "children").read_text().split()]
        except OSError:
            continue
        for child in direct:
            found += [child, *descendants(child)]
    return found


def is_worker(pid: int) -> bool:
    """Whether a process is an environment's, started by the fork server."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes()
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    above = Path(f"/proc/{parent}/cmdline").read_bytes()
    return b"forkserver" in words and b"forkserver" in above


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main() -> None:
    """Runs the parts from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 2, 4, 5, 11, 14])
    parser.add_argument("--minutes", type=float, default=30.0, help="of row 1")
    parser.add_argument("--out", type=Path, help="file for the JSON object")
    options = parser.parse_args()
    parts: dict[int, Callable[[Path], Measured]] = {
        1: lambda folder: soak(folder, options.minutes),
        2: many_environments,
        4: videos,
        5: many_runs,
        11: lost_workers,
        14: killed_parent,
    }
    matrix = []
    for row in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            found = parts[row](Path(folder))
        matrix.append({"row": row, **found})
        verdict = "passed" if found["passed"] else "FAILED"
        print(f"B7 row {row}: {found['figure']}: {verdict}", file=sys.stderr, flush=True)
    text = json.dumps({"matrix": matrix}, indent=1, default=float)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
