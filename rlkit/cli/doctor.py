"""The command `rlkit doctor`: what is installed here, and what will not work."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlkit.cli.console import Json, env_maker, print_json
from rlkit.version import VERSION

if TYPE_CHECKING:
    from numpy.typing import NDArray

GIB = 2**30
_ENOUGH_DISK, _ENOUGH_MEMORY = 2 * GIB, 2 * GIB
_NEEDED = ("torch", "numpy", "gymnasium", "stable-baselines3", "tensorboard", "safetensors", "tyro")
_OPTIONAL = {
    "gymnasium-robotics": "robotics",
    "mujoco": "robotics",
    "minari": "minari",
    "statsmodels": "forecast",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        level: "ok", "warn" (something will be slow or missing) or "error" (nothing will work).
        text: What was found, and what to do about it.
    """

    level: str
    text: str


def doctor(json: Json = False) -> int:
    """Check this installation: versions, cores, device, compiler, videos, disk and memory.

    Exit code 0 if training works, 2 if it cannot.

    Args:
        json: Print one JSON object on standard output and nothing else.
    """
    findings: list[Finding] = []
    for check in CHECKS:
        for finding in check():
            findings.append(finding)
            if not json:
                print(f"{finding.level:5} {finding.text}", flush=True)
    failed = any(finding.level == "error" for finding in findings)
    if json:
        rows = [{"level": finding.level, "text": finding.text} for finding in findings]
        print_json({"ok": not failed, "findings": rows})
    elif not failed:
        print("Try it: rlkit train quickstart --steps 1000")
    return 2 if failed else 0


def _suite() -> Iterator[Finding]:
    where = Path(import_module("rlkit").__file__ or "").parent
    yield Finding("ok", f"rlkit-suite {VERSION} in {where}")
    least = (3, 11)
    level = "ok" if sys.version_info >= least else "error"
    yield Finding(level, f"Python {platform.python_version()}, {platform.system()}")
    # rail-berkeley/rlkit installs the same import name; either may hide the other.
    try:
        other = version("rlkit")
    except PackageNotFoundError:
        return
    yield Finding(
        "warn",
        f"another package rlkit {other} is installed, and both are imported as rlkit: "
        f"pip uninstall rlkit, then install rlkit-suite again",
    )


def _libraries() -> Iterator[Finding]:
    found, missing = [], []
    for name in _NEEDED:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    yield Finding("ok", ", ".join(found))
    if missing:
        yield Finding("error", f"missing: {', '.join(missing)}; install rlkit-suite again")
    extras: dict[str, list[str]] = {}
    for name, extra in _OPTIONAL.items():
        try:
            yield Finding("ok", f"{name} {version(name)}")
        except PackageNotFoundError:
            extras.setdefault(extra, []).append(name)
    for extra, names in extras.items():
        yield Finding(
            "ok", f'not installed: {", ".join(names)} (pip install "rlkit-suite[{extra}]")'
        )


def _device() -> Iterator[Finding]:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = os.environ.get("OMP_NUM_THREADS")
    threads = "recipes train on one thread (threads = 1)"
    limited = f"; OMP_NUM_THREADS={limit}" if limit else ""
    yield Finding("ok", f"{count} cores; {threads}{limited}")
    try:
        from rlkit.experiment.run_folder import describe_system

        facts = describe_system()
    except ImportError as error:
        yield Finding("error", f"the suite cannot be imported: {error}")
        return
    gpu = facts["gpu"]
    device = f"cuda, {gpu}" if gpu else f"cpu, {facts['processor']}"
    yield Finding("ok", f"device auto is {device}")


def _compiler() -> Iterator[Finding]:
    name = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
    if name is None or shutil.which(name.split()[0]) is None:
        yield Finding(
            "warn",
            "no C++ compiler: updates run uncompiled, which is slower. Install g++ (Debian, "
            "Ubuntu: apt install g++)",
        )
        return
    source = "#include <vector>\nint main() { return std::vector<int>{0}[0]; }\n"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test.cpp").write_text(source)
        command = [*name.split(), "test.cpp", "-o", "test"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    if done.returncode == 0:
        yield Finding("ok", f"C++ compiler {name}")
    else:
        reason = (done.stderr.strip().splitlines() or ["no message"])[0]
        yield Finding("warn", f"C++ compiler {name} fails ({reason}): updates run uncompiled")


def _videos() -> Iterator[Finding]:
    try:
        size = _record_a_test()
    except (ImportError, ValueError, OSError) as error:
        yield Finding("warn", f"no videos: {error}")
        return
    yield Finding("ok", f"videos: a test of {size:,} bytes was recorded")


def _record_a_test() -> int:
    """The size of a video of a few frames of one of the suite's environments, in bytes."""
    import numpy as np

    from rlkit.experiment.video import record

    class Still:
        def predict(self, *_: Any, **__: Any) -> tuple[NDArray[Any], Any]:
            return np.zeros(2, np.float32), None

    options = {"render_mode": "rgb_array", "max_episode_steps": 4}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.mp4"
        env = env_maker()("rlkit/PointMaze-Open-v0", **options)
        try:
            record(Still(), env, path, episodes=1, seed=0)
        finally:
            env.close()
        return path.stat().st_size


def _space() -> Iterator[Finding]:
    try:
        free = shutil.disk_usage(Path.cwd()).free
    except OSError as error:
        yield Finding("warn", f"the current folder cannot be read: {error}")
        return
    few = free < _ENOUGH_DISK
    note = "; a run needs 10 MB to a few GB: choose another disk with --out" if few else ""
    yield Finding("warn" if few else "ok", f"{free / GIB:.1f} GiB free in {Path.cwd()}{note}")
    if not os.access(Path.cwd(), os.W_OK):
        yield Finding("warn", f"{Path.cwd()} cannot be written to: choose a folder with --out")


def _memory() -> Iterator[Finding]:
    from rlkit.replay import available_bytes

    free = available_bytes()
    few = free < _ENOUGH_MEMORY
    note = "; images need more: agent_options.replay.directory keeps them on disk" if few else ""
    yield Finding("warn" if few else "ok", f"{free / GIB:.1f} GiB of memory available{note}")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    *(_suite, _libraries, _device, _compiler, _videos, _space, _memory),
)
