"""Checkpoints: folders of plain data that are complete and verified, or do not count.

`step-N/` holds `weights.safetensors`, `optimiser.safetensors`, a `.npy` per large array,
`state.json` for everything else, and `manifest.json` with the size and sha256 of each, written
last. Reading executes nothing: there is no pickle on either side.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from numpy.lib import format as npy

import rlkit
from rlkit.io.atomic_write import sync
from rlkit.io.serialisation import CheckpointError as CheckpointError
from rlkit.io.serialisation import Skeleton, fill, read_array, read_tensors

FORMAT, VERSION = "rlkit-checkpoint", 1
MANIFEST, STATE = "manifest.json", "state.json"
_MEMBER_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_STEP_NAME = re.compile(r"step-(\d+)")


# Saving


def write_checkpoint(folder: Path, tree: Mapping[str, Any]) -> None:
    """Saves a tree of plain data as one folder, which appears complete or not at all.

    Args:
        folder: The folder to create, `.../step-N`; one that exists is replaced.
        tree: Nested dicts (string keys) and lists of str, int, float, bool, None, `np.ndarray`
            and `torch.Tensor`. NumPy scalars become Python's.

    Raises:
        CheckpointError: If the disk refuses; earlier checkpoints are untouched.
        TypeError: If the tree holds anything else; the message names the place.
    """
    staged = folder.with_name(f".{folder.name}.staged")
    try:
        _remove(staged)  # a killed save may have left it
        staged.mkdir(parents=True)
        _write_members(staged, tree)
        # First write everything, then sync everything: the disk can then batch the work.
        for member in staged.iterdir():
            sync(member)
        sync(staged)
        _remove(folder)
        os.rename(staged, folder)
        sync(folder.parent)
    except OSError as error:
        raise CheckpointError(
            f"cannot save {folder}: {error.strerror or error}. Earlier checkpoints are untouched; "
            f"make room or repair the folder, then `rlkit resume` the run."
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def prune(folder: Path, newest: int, best: int | None = None) -> None:
    """Removes checkpoints, except the last two up to step `newest` and the one of step `best`.

    Removes what killed processes have left, too.
    """
    for leftover in (*folder.glob(".step-*.staged"), *folder.glob(".step-*.removed")):
        shutil.rmtree(leftover, ignore_errors=True)
    steps = [step for step in saved_steps(folder) if step <= newest]
    for step in steps[:-2]:
        if step != best:
            _remove(folder / f"step-{step}")


def _remove(folder: Path) -> None:
    # Renamed first: a folder that is half deleted must not look like a checkpoint.
    doomed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    if folder.exists():
        os.rename(folder, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


class _HashedFile:
    """A new file that sums up what is written to it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._sum = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._sum.update(data)
        return self._file.write(data)

    def close(self) -> dict[str, Any]:
        size = self._file.tell()
        self._file.close()
        return {"sha256": self._sum.hexdigest(), "size": size}


def _write_members(folder: Path, tree: Mapping[str, Any]) -> None:
    skeleton = Skeleton()
    state = json.dumps({"tree": skeleton.strip(dict(tree), ())}, allow_nan=False, indent=1)
    members: dict[str, dict[str, Any]] = {}
    contents: dict[str, bytes] = {STATE: state.encode()}
    for name, tensors in skeleton.tensors.items():
        contents[name] = safetensors.torch.save(tensors)
    for name, content in contents.items():
        file = _HashedFile(folder / name)
        file.write(content)
        members[name] = file.close()
    for name, array in skeleton.arrays.items():
        file = _HashedFile(folder / name)
        npy.write_array(file, array, allow_pickle=False)
        members[name] = file.close()
    (folder / MANIFEST).write_bytes(_manifest(members, VERSION, rlkit.__version__))


def _manifest(members: dict[str, Any], version: int, writer: str) -> bytes:
    content = {"format": FORMAT, "version": version, "rlkit": writer, "members": members}
    text = json.dumps(content, sort_keys=True)
    content["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(content, sort_keys=True, indent=1).encode()


# Loading


def saved_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a run's checkpoint folder, oldest first, unverified."""
    if not folder.is_dir():
        return []
    found = (_STEP_NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)


def load_latest(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Step and tree of the newest checkpoint that verifies, or None where none was ever saved.

    Raises:
        CheckpointError: If there are checkpoints, and not one of them verifies.
    """
    failures: list[str] = []
    for step in reversed(saved_steps(folder)):
        try:
            tree = read_checkpoint(folder / f"step-{step}")
        except CheckpointError as error:
            failures.append(str(error))
            continue
        if failures:
            warnings.warn(f"{failures[0]} Falling back to step {step}.", stacklevel=2)
        return step, tree
    if failures:
        raise CheckpointError(f"no checkpoint in {folder} can be loaded. {failures[0]}")
    return None


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Verifies a checkpoint and returns the tree that `write_checkpoint` was given.

    Nothing in the folder is executed, and nothing outside of it is read.

    Raises:
        CheckpointError: If it is missing, truncated, damaged, of another origin or newer.
    """
    members = _verified_members(folder)
    state = _read_json(folder / STATE) if STATE in members else {}
    if not isinstance(state.get("tree"), dict):
        raise CheckpointError(f"{folder / STATE} holds no state: a foreign file.")
    tensors = {
        name: read_tensors(folder / name) for name in members if name.endswith(".safetensors")
    }
    arrays = {name: read_array(folder / name) for name in members if name.endswith(".npy")}
    try:
        tree: dict[str, Any] = fill(state["tree"], folder / STATE, tensors, arrays)
    except (KeyError, RecursionError) as error:
        raise CheckpointError(
            f"{folder / STATE} refers to {error}, which {folder} lacks. Use another checkpoint."
        ) from None
    return tree


def _verified_members(folder: Path) -> dict[str, Any]:
    if folder.is_file():
        raise CheckpointError(
            f"{folder} is a file; a checkpoint is a folder with a {MANIFEST}. "
            f"(Archives of Stable-Baselines3 load with its own `load`.)"
        )
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(
            f"{folder} holds no {MANIFEST}, so it is no complete checkpoint of this suite."
        )
    manifest = _read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{folder / MANIFEST} is foreign: not written by this suite.")
    version, members = manifest.get("version"), manifest.get("members")
    if isinstance(version, int) and version > VERSION:
        raise CheckpointError(
            f"{folder} was written in the newer format {version} (rlkit {manifest.get('rlkit')}); "
            f"this version reads up to {VERSION}. Upgrade with `pip install -U rlkit-suite`."
        )
    if not isinstance(members, dict) or not isinstance(version, int):
        raise CheckpointError(f"{folder / MANIFEST} is damaged. Use another checkpoint.")
    if _manifest(members, version, manifest.get("rlkit", "")) != (folder / MANIFEST).read_bytes():
        raise CheckpointError(
            f"{folder / MANIFEST} is damaged: its checksum differs. Use another checkpoint."
        )
    for name, facts in members.items():
        _verify(folder, name, facts)
    return members


def _verify(folder: Path, name: str, facts: Any) -> None:
    path = folder / name
    if not _MEMBER_NAME.fullmatch(name) or path.is_symlink():
        raise CheckpointError(f"{folder} lists the member {name!r}, which is not a plain file.")
    if not isinstance(facts, dict) or not facts.keys() >= {"size", "sha256"}:
        raise CheckpointError(f"{folder / MANIFEST} says nothing about {name}: a foreign file.")
    if not path.is_file():
        raise CheckpointError(f"{path} is missing. Use another checkpoint.")
    size = path.stat().st_size
    if size != facts["size"]:
        raise CheckpointError(
            f"{path} is truncated or replaced: {size} bytes instead of {facts['size']}. "
            f"Use another checkpoint."
        )
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != facts["sha256"]:
            raise CheckpointError(
                f"{path} is damaged: its sha256 sum differs from the manifest's. "
                f"Use another checkpoint."
            )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged: {error or 'not JSON'}. Use another checkpoint."
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is foreign: it holds no JSON object.")
    return content
