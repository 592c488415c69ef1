"""A checkpoint as one file: the same verified members in a zip archive."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from rlkit.io.checkpoint import CheckpointError, read_checkpoint, write_checkpoint

SIZE_LIMIT = 64 * 2**30  # bytes unpacked: an archive that claims more is refused as a zip bomb


def write_archive(
    target: str | Path | BinaryIO, state: Mapping[str, Any], suffix: str = ".zip"
) -> None:
    """Saves plain data as one file, which replaces an older one only when complete.

    Args:
        target: File name (the suffix is added where there is none) or binary file.
        state: See `write_checkpoint`.
        suffix: The suffix to add.

    Raises:
        CheckpointError: If it cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        members = Path(folder) / "members"
        write_checkpoint(members, state)
        if not isinstance(target, str | Path):
            _pack(members, target)
            return
        path = _with_suffix(Path(target), suffix)
        staged = path.with_name(f".{path.name}.staged")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with staged.open("wb") as file:
                _pack(members, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(staged, path)
        except OSError as error:
            staged.unlink(missing_ok=True)
            raise CheckpointError(f"cannot save {path}: {error.strerror or error}") from error


def read_archive(source: str | Path | BinaryIO, suffix: str = ".zip") -> dict[str, Any]:
    """Verifies an archive and returns the state that `write_archive` was given.

    Raises:
        CheckpointError: If it is missing, damaged, of another origin, or of a version whose format
            is not read. Nothing in it is executed.
    """
    if isinstance(source, str | Path):
        path = Path(source) if Path(source).is_file() else _with_suffix(Path(source), suffix)
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist")
        with path.open("rb") as file:
            return _unpack(file, str(path))
    source.seek(0)
    return _unpack(source, "the file")


def _with_suffix(path: Path, suffix: str) -> Path:
    return path if path.suffix else path.with_name(path.name + suffix)


def _pack(members: Path, file: BinaryIO) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for member in sorted(members.iterdir()):
            archive.write(member, member.name)


def _unpack(file: BinaryIO, name: str) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(file) as archive, tempfile.TemporaryDirectory() as folder:
            infos = archive.infolist()
            if any(Path(info.filename).name != info.filename for info in infos):
                raise CheckpointError(f"{name} is foreign: its members are not plain files")
            if "manifest.json" not in archive.namelist():
                raise CheckpointError(
                    f"{name} is foreign: no archive of this suite. (Stable-Baselines3's own "
                    f"archives contain pickles, which could run code, and are not opened.)"
                )
            if sum(info.file_size for info in infos) > SIZE_LIMIT:
                raise CheckpointError(f"{name} claims more than {SIZE_LIMIT} bytes")
            archive.extractall(folder)
            return read_checkpoint(Path(folder), name)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise CheckpointError(f"{name} is damaged or no archive: {error}") from error
