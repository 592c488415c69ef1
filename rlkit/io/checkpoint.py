"""Checkpoints: folders of plain data, used only if they are complete and verified.

`step-N/` holds `weights.safetensors`, `optimiser.safetensors`, a `.npy` per large array,
`state.json` for everything else, and `manifest.json` with the version that wrote it and the size
and sha256 of each file, written last. Reading executes nothing: no file holds a pickle.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from numpy.lib import format as npy

from rlkit.io.atomic_write import sync
from rlkit.io.serialisation import CheckpointError as CheckpointError
from rlkit.io.serialisation import (
    StateEncoder,
    decode_state,
    read_array,
    read_tensors,
    write_tensors,
)
from rlkit.version import VERSION, not_readable

KIND, FORMAT = "rlkit-checkpoint", 2
MANIFEST, STATE = "manifest.json", "state.json"
JSON_LIMIT = 64 * 2**20  # bytes of a JSON file: parsed, it takes up to thirty times as many
MEMBER_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_STEP_NAME = re.compile(r"step-(\d+)")


class OtherVersionError(CheckpointError):
    """Another version of the suite wrote the file, in a format that this one does not read."""


# Saving


def write_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Saves plain data as one folder, which appears complete or not at all.

    A kill at any moment leaves the old folder or the new one where `read_checkpoint` finds it.

    Args:
        folder: The folder to create, `.../step-N`; one that exists is replaced.
        state: Nested dicts (string keys) and lists of str, int, float, bool, None, `np.ndarray`
            and `torch.Tensor`. NumPy scalars become Python's.

    Raises:
        CheckpointError: If it cannot be written; earlier checkpoints are untouched.
        TypeError: If the state holds anything else; the message names the place.
    """
    staged, old = folder.with_name(f".{folder.name}.staged"), _old(folder)
    try:
        if old.exists() and not folder.exists():  # killed between the two renames below
            os.rename(old, folder)
        _remove(staged)  # left by a killed process
        staged.mkdir(parents=True)
        write_members(lambda name: (staged / name).open("xb"), state)
        # All files are written before they are synced, so that the disk can batch the work.
        for member in staged.iterdir():
            sync(member)
        sync(staged)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.rename(folder, old)
        os.rename(staged, folder)
        sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(
            f"cannot save {folder}: {error.strerror or error}. Earlier checkpoints are untouched; "
            f"make room or repair the folder, then resume or save again."
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def prune(folder: Path, newest: int, best: int | None = None) -> None:
    """Removes checkpoints, except the last two up to step `newest` and the one of step `best`.

    Also removes what killed processes left behind.
    """
    leftovers = ("staged", "removed", "old")
    for leftover in (path for word in leftovers for path in folder.glob(f".step-*.{word}")):
        shutil.rmtree(leftover, ignore_errors=True)
    steps = [step for step in saved_steps(folder) if step <= newest]
    for step in steps[:-2]:
        if step != best:
            _remove(folder / f"step-{step}")


def _old(folder: Path) -> Path:
    """Where a folder lies while it is replaced."""
    return folder.with_name(f".{folder.name}.old")


def _remove(folder: Path) -> None:
    # Renamed first: a partly deleted folder must not look like a checkpoint.
    removed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(removed, ignore_errors=True)
    if folder.exists():
        os.rename(folder, removed)
        shutil.rmtree(removed, ignore_errors=True)


class _HashedFile:
    """A new file that hashes what is written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sum, self._size = file, hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        self._sum.update(data)
        self._size += len(data)
        return self._file.write(data)

    def close(self) -> dict[str, Any]:
        self._file.close()
        return {"sha256": self._sum.hexdigest(), "size": self._size}


def write_members(create: Callable[[str], IO[bytes]], state: Mapping[str, Any]) -> None:
    """Writes the members of a checkpoint one after the other, the manifest last.

    Nothing is copied as a whole, so that saving needs no memory of the size of the state.

    Args:
        create: Opens a new member by its name.
        state: See `write_checkpoint`.

    Raises:
        TypeError: If the state holds anything but plain data; then nothing has been created.
    """
    encoder = StateEncoder()
    text = json.dumps({"state": encoder.encode(dict(state), ())}, allow_nan=False, indent=1)
    writers: dict[str, Callable[[_HashedFile], Any]] = {STATE: lambda f: f.write(text.encode())}
    for name, tensors in encoder.tensors.items():
        writers[name] = functools.partial(write_tensors, tensors=tensors)
    for name, array in encoder.arrays.items():
        writers[name] = functools.partial(npy.write_array, array=array, allow_pickle=False)
    members: dict[str, dict[str, Any]] = {}
    for name, write in writers.items():
        file = _HashedFile(create(name))
        write(file)
        members[name] = file.close()
    with create(MANIFEST) as manifest:
        manifest.write(_manifest(members, FORMAT, VERSION))


def _manifest(members: dict[str, Any], version: int, writer: str) -> bytes:
    content = {"format": KIND, "version": version, "rlkit": writer, "members": members}
    content["sha256"] = _checksum(content)
    return json.dumps(content, sort_keys=True, indent=1).encode()


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# Loading


def saved_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a run's checkpoint folder, oldest first, unverified."""
    if not folder.is_dir():
        return []
    found = (_STEP_NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)


def holds_checkpoint(folder: Path) -> bool:
    """Whether `read_checkpoint` finds a manifest, also of a folder that was being replaced."""
    return any((place / MANIFEST).is_file() for place in (folder, _old(folder)))


def load_latest(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Step and state of the newest checkpoint that verifies, or None where none was ever saved.

    Raises:
        CheckpointError: If there are checkpoints, and not one of them verifies.
        OtherVersionError: If the newest was written in another format.
    """
    failures: list[str] = []
    for step in reversed(saved_steps(folder)):
        try:
            state = read_checkpoint(folder / f"step-{step}")
        except OtherVersionError:
            raise
        except CheckpointError as error:
            failures.append(str(error))
            continue
        if failures:
            warnings.warn(f"{failures[0]} Falling back to step {step}.", stacklevel=2)
        return step, state
    if failures:
        raise CheckpointError(f"no checkpoint in {folder} can be loaded. {failures[0]}")
    return None


def read_checkpoint(folder: Path, name: str | None = None) -> dict[str, Any]:
    """Verifies a checkpoint and returns the state that `write_checkpoint` was given.

    Nothing in the folder is executed, and nothing outside of it is read.

    Args:
        folder: The folder.
        name: What an error about the version calls it; its path without.

    Raises:
        CheckpointError: If it is missing, truncated, damaged, or of another origin.
        OtherVersionError: If another version wrote it in another format.
    """
    if not folder.exists() and _old(folder).exists():
        folder = _old(folder)
    members = _verified_members(folder, name or str(folder))
    content = _read_json(folder / STATE) if STATE in members else {}
    if not isinstance(content.get("state"), dict):
        raise CheckpointError(f"{folder / STATE} holds no state: a foreign file.")
    tensors = {
        name: read_tensors(folder / name) for name in members if name.endswith(".safetensors")
    }
    arrays = {name: read_array(folder / name) for name in members if name.endswith(".npy")}
    try:
        state: dict[str, Any] = decode_state(content["state"], folder / STATE, tensors, arrays)
    except (KeyError, RecursionError) as error:
        raise CheckpointError(
            f"{folder / STATE} refers to {error}, which {folder} lacks. Use another checkpoint."
        ) from None
    return state


def _verified_members(folder: Path, name: str) -> dict[str, Any]:
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
    raw = (folder / MANIFEST).read_bytes()
    if manifest.get("format") != KIND:
        raise CheckpointError(f"{folder / MANIFEST} is foreign: not written by this suite.")
    if manifest.pop("sha256", None) != _checksum(manifest):
        raise CheckpointError(
            f"{folder / MANIFEST} is damaged: its checksum differs. Use another checkpoint."
        )
    writer, members = manifest.get("rlkit"), manifest.get("members")
    if manifest.get("version") != FORMAT:
        raise OtherVersionError(f"{not_readable(name, writer)}.")
    if not isinstance(members, dict) or _manifest(members, FORMAT, str(writer)) != raw:
        raise CheckpointError(f"{folder / MANIFEST} is damaged. Use another checkpoint.")
    for member, facts in members.items():
        _verify(folder, member, facts)
    return members


def _verify(folder: Path, name: str, facts: Any) -> None:
    path = folder / name
    if not MEMBER_NAME.fullmatch(name) or path.is_symlink():
        raise CheckpointError(f"{folder} lists the member {name!r}, which is not a plain file.")
    if not isinstance(facts, dict) or not facts.keys() >= {"size", "sha256"}:
        raise CheckpointError(f"{folder / MANIFEST} has no checksum of {name}: a foreign file.")
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
    if path.stat().st_size > JSON_LIMIT:
        raise CheckpointError(
            f"{path} is foreign: it has {path.stat().st_size:,} bytes, and may have {JSON_LIMIT:,}"
        )
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged: {error or 'not JSON'}. Use another checkpoint."
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is foreign: it holds no JSON object.")
    return content
