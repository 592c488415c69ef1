"""Trains the same short runs at two revisions and compares their weights byte for byte.

    python runs/compare_revisions.py HEAD~1 HEAD

Each revision is installed into a folder of its own, without its dependencies, so it runs in the
current virtual environment. A refactoring must not change any `weights.safetensors`. Runs are kept
under `runs/out/revisions/<commit>` and are not repeated; `.` is the working tree, which is always
run again.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = ROOT / "runs" / "out" / "revisions"
SHORT = ("evaluation.final_episodes=4", "evaluation.every=0", "pictures.video_episodes=0")
RUNS = {
    "quickstart": ("quickstart", "--steps", "2500"),
    "fetch-reach": ("fetch-reach", "--steps", "1500"),
    "cue-maze": ("cue-maze", "--steps", "4000"),
    "latent-recurrent": ("latent-recurrent", "--steps", "1200"),
    "pendulum-mpc": ("pendulum-mpc", "--steps", "350"),
    "dqn": ("bit-flip", "--steps", "60000"),
    "td3": ("--env", "rlkit/PlanarReach-v0", "--agent", "td3", "--steps", "1500"),
}
"""Arguments of `rlkit train`; each run takes less than two minutes on one core."""
FORMER_NAMES = {"latent-recurrent": "latent-memory"}
"""What a recipe is called in revisions that do not have it under its present name."""


def commit_of(revision: str) -> str:
    """The abbreviated commit hash, or `.` for the working tree."""
    if revision == ".":
        return revision
    command = ["git", "rev-parse", "--short=12", "--verify", f"{revision}^{{commit}}"]
    return subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def install(commit: str, folder: Path) -> Path:
    """Installs a revision without its dependencies; returns the folder for PYTHONPATH."""
    source, target = folder / "source", folder / "installed"
    shutil.rmtree(folder, ignore_errors=True)
    source.mkdir(parents=True)
    if commit == ".":
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        for name in names.stdout.splitlines():
            if (ROOT / name).is_file() and not name.startswith(".links"):
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, source / name)
    else:
        packed = subprocess.run(
            ["git", "archive", commit], cwd=ROOT, check=True, capture_output=True
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(source, filter="data")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--target", str(target), str(source)]
    subprocess.run(command, check=True)
    return target


def weights_of(name: str, installed: Path, folder: Path, core: int) -> str:
    """Trains one run and returns the hash of its weights."""
    run = folder / name
    shutil.rmtree(run, ignore_errors=True)
    recipe, *options = RUNS[name]
    if recipe in FORMER_NAMES and not (installed / f"rlkit/recipes/{recipe}.toml").is_file():
        recipe = FORMER_NAMES[recipe]
    command = [sys.executable, str(installed / "bin" / "rlkit"), "train", recipe, *options]
    command += ["--out", str(run), "--json"]
    for setting in SHORT:
        command += ["--set", setting]
    if hasattr(os, "sched_setaffinity"):
        command = ["taskset", "-c", str(core), *command]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    result = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    if result.returncode != 0:
        return f"failed: {result.stderr.strip().splitlines()[-1:]}"
    digest = hashlib.sha256()
    for path in sorted(run.glob("checkpoints/*/weights.safetensors")):
        digest.update(path.parent.name.encode() + path.read_bytes())
    return digest.hexdigest()


def hashes(revision: str, names: list[str], cores: list[int]) -> dict[str, str]:
    """The hash of each run's weights at a revision; existing runs are not repeated."""
    commit = commit_of(revision)
    folder = OUT / ("working-tree" if commit == "." else commit)
    kept = {path.stem: path.read_text() for path in folder.glob("*.sha256") if commit != "."}
    missing = [name for name in names if name not in kept]
    if missing:
        installed = install(commit, folder)
        for name, value in kept.items():
            (folder / f"{name}.sha256").write_text(value)
        with ThreadPoolExecutor(len(cores)) as pool:
            free = list(cores)

            def train(name: str) -> tuple[str, str]:
                core = free.pop()
                try:
                    return name, weights_of(name, installed, folder, core)
                finally:
                    free.append(core)

            for name, value in pool.map(train, missing):
                kept[name] = value
                if not value.startswith("failed"):
                    (folder / f"{name}.sha256").write_text(value)
                print(f"{commit:12} {name:16} {value[:60]}", flush=True)
    return {name: kept[name] for name in names}


def main() -> None:
    """Compares two revisions; exit code 1 if a run differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--cores", nargs="+", type=int, default=[0, 1])
    options = parser.parse_args()
    old, new = (hashes(r, options.runs, options.cores) for r in (options.old, options.new))
    for name in options.runs:
        same = old[name] == new[name] and not old[name].startswith("failed")
        print(f"{name:16} {'identical' if same else 'DIFFERENT'}")
    sys.exit(old != new or any(value.startswith("failed") for value in new.values()))


if __name__ == "__main__":
    main()
