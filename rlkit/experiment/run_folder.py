"""The folder of a run: recipe, system, curves, evaluations, videos, checkpoints."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rlkit.experiment import run_logger as metrics
from rlkit.experiment.folders import RECIPE, require_free, require_run
from rlkit.experiment.recipe import Recipe, load_recipe
from rlkit.io.atomic_write import replace_file
from rlkit.io.checkpoint import prune, write_checkpoint
from rlkit.io.finite import require_finite
from rlkit.version import VERSION

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

_LIBRARIES = ("torch", "numpy", "gymnasium", "stable-baselines3", "gymnasium-robotics", "mujoco")


@dataclass(frozen=True)
class RunFolder:
    """The files of a run.

    Attributes:
        path: Folder of `recipe.toml`, `environment.json`, `metrics.jsonl`, TensorBoard's events,
            `evaluations.json`, `videos/` and `checkpoints/step-N/`.
    """

    path: Path

    @classmethod
    def create(cls, path: Path, recipe: Recipe) -> RunFolder:
        """Makes the folder of a new run.

        Raises:
            ValueError: If the folder already holds a run.
        """
        run = cls(path)
        run.require_free()
        path.mkdir(parents=True, exist_ok=True)
        facts = json.dumps(describe_system(), indent=1)
        replace_file(path / "environment.json", facts.encode())
        run.save_recipe(recipe)
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Opens the folder of an existing run.

        Raises:
            ValueError: If the folder holds no run.
        """
        require_run(path)
        return cls(path)

    def require_free(self) -> None:
        """Raises an error if the folder holds a run, which must not mix with another.

        Raises:
            ValueError: If the folder already holds a run.
        """
        require_free(self.path)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Prevents other processes from training the same run at the same time.

        Raises:
            ValueError: If another process is training it.
        """
        if fcntl is None:  # Windows
            yield
            return
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise ValueError(
                f"{str(self.path)!r} is being trained by another process; stop that one first"
            ) from None
        finally:
            os.close(folder)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def videos(self) -> Path:
        """Folder of the videos."""
        return self.path / "videos"

    def recipe(self, *, trust: bool = False) -> Recipe:
        """The recipe of the run; `trust` lets it name any class, see `load_recipe`."""
        return load_recipe(str(self.path / RECIPE), trust=trust)

    def save_recipe(self, recipe: Recipe) -> None:
        """Writes the recipe."""
        replace_file(self.path / RECIPE, recipe.to_toml().encode())

    def evaluations(self) -> list[dict[str, Any]]:
        """The evaluations so far, each with its `step`, oldest first.

        Raises:
            ValueError: If their file is damaged.
        """
        return self._rows("evaluations.json")

    def changes(self) -> list[dict[str, Any]]:
        """Settings that changed on resuming: `step`, and by key the old and the new value."""
        return self._rows("changes.json")

    def add_changes(self, step: int, changes: dict[str, list[Any]]) -> None:
        """Records settings that change from a step on."""
        rows = [*self.changes(), {"step": step, "settings": changes}]
        replace_file(self.path / "changes.json", json.dumps(rows, indent=1).encode())

    def _rows(self, name: str) -> list[dict[str, Any]]:
        path = self.path / name
        if not path.is_file():
            return []
        try:
            found: Any = json.loads(path.read_bytes())
        except ValueError as error:
            found = error
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise ValueError(
                f"{path} is damaged ({found if isinstance(found, ValueError) else 'no list'}): "
                f"move it away, and the run goes on without the rows that it held"
            )
        return found

    def last_evaluation(self) -> dict[str, Any] | None:
        """The newest evaluation, or None before the first."""
        rows = self.evaluations()
        return rows[-1] if rows else None

    def add_evaluation(self, evaluation: dict[str, Any]) -> None:
        """Appends one evaluation.

        Raises:
            OSError: If it cannot be written, or the run's folder was deleted.
        """
        self._require_exists()
        self._save_evaluations([*self.evaluations(), evaluation])

    def _save_evaluations(self, evaluations: list[dict[str, Any]]) -> None:
        data = json.dumps(evaluations, indent=1, allow_nan=False).encode()
        replace_file(self.path / "evaluations.json", data)

    def best_step(self) -> int | None:
        """Step of the best evaluated checkpoint: by success, then by return, then the first."""
        saved = [
            row for row in self.evaluations() if (self.checkpoints / f"step-{row['step']}").is_dir()
        ]
        if not saved:
            return None
        best = max(saved, key=lambda row: (row["success_rate"] or 0.0, row["return_mean"]))
        return int(best["step"])

    def save_checkpoint(self, step: int, state: dict[str, Any]) -> None:
        """Saves the state at a step; of older checkpoints it keeps the last two and the best.

        Raises:
            CheckpointError: If it cannot be written; earlier checkpoints are untouched.
            FloatingPointError: If weights or the optimiser's moments are not finite; likewise.
        """
        self._require_exists()
        for part in ("weights", "optimiser"):
            require_finite(state.get(part), part)
        write_checkpoint(self.checkpoints / f"step-{step}", state)
        prune(self.checkpoints, newest=step, best=self.best_step())

    def rewind(self, step: int, written: Mapping[str, int] | None = None) -> None:
        """Removes what came after a checkpoint: curve points, evaluations and videos.

        Args:
            step: The checkpoint's; later points are removed.
            written: What `RunLogger.sizes` gave at the checkpoint, and the number of `evaluations`:
                what the step's own evaluation added afterwards is removed, too. A part that is
                missing is cut by the step alone.
        """
        written = written or {}
        metrics.rewind(self.path, step, written)
        for video in self.videos.glob("step-*.mp4"):
            if int(video.stem.removeprefix("step-")) > step:
                video.unlink()
        rows = self.evaluations()
        kept = [row for row in rows[: written.get("evaluations")] if row["step"] <= step]
        if kept != rows:
            self._save_evaluations(kept)

    def _require_exists(self) -> None:
        # Writing would create the folder again, and a run without a recipe is none.
        if not self.path.is_dir():
            raise FileNotFoundError(
                f"{self.path} was deleted while it was trained; nothing more can be saved"
            )


def describe_system() -> dict[str, Any]:
    """Versions, machine and command line, without names of persons or hosts."""
    import torch

    libraries = {"rlkit-suite": VERSION}
    for name in _LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    home = os.path.expanduser("~")
    program = Path(sys.argv[0]).name
    return {
        "versions": libraries,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git": _git_state(),
        "command": [program, *(argument.replace(home, "~") for argument in sys.argv[1:])],
    }


def _processor() -> str:
    facts = Path("/proc/cpuinfo")  # `platform.processor()` is empty on most of Linux
    if facts.is_file():
        for line in facts.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _git_state() -> dict[str, Any] | None:
    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "modified": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return None  # no repository, no commit yet, or no git
