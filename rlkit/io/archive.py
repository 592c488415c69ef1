"""A checkpoint as one file: the same verified members in a zip archive."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

from rlkit.io.atomic_write import sync
from rlkit.io.checkpoint import (
    MANIFEST,
    MEMBER_NAME,
    CheckpointError,
    read_checkpoint,
    write_members,
)


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
        TypeError: If the state holds anything but plain data.
    """
    if not isinstance(target, str | Path):
        _pack(state, target)
        return
    path = _with_suffix(Path(target), suffix)
    staged = path.with_name(f".{path.name}.staged")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("wb") as file:
            _pack(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
        sync(path.parent)
    except OSError as error:
        raise CheckpointError(f"cannot save {path}: {error.strerror or error}") from error
    finally:
        staged.unlink(missing_ok=True)


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


def _pack(state: Mapping[str, Any], file: BinaryIO) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

        def create(name: str) -> IO[bytes]:
            # A constant time: the same state gives the same bytes.
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            return archive.open(info, "w", force_zip64=True)

        write_members(create, state)


def _unpack(file: BinaryIO, name: str) -> dict[str, Any]:
    size = file.seek(0, os.SEEK_END)
    try:
        with zipfile.ZipFile(file) as archive, tempfile.TemporaryDirectory() as folder:
            _require_plain(archive.infolist(), name, size)
            archive.extractall(folder)
            return read_checkpoint(Path(folder), name)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f"{name} is damaged or no archive: {error}") from error


def _require_plain(infos: list[zipfile.ZipInfo], name: str, size: int) -> None:
    """Refuses archives that would unpack outside of a folder, or to more than their own size."""
    names = [info.filename for info in infos]
    if not all(map(MEMBER_NAME.fullmatch, names)) or len(set(names)) < len(names):
        raise CheckpointError(f"{name} is foreign: its members are not plain files")
    if MANIFEST not in names:
        raise CheckpointError(
            f"{name} is foreign: no archive of this suite. (Stable-Baselines3's own "
            f"archives contain pickles, which could run code, and are not opened.)"
        )
    unpacked = sum(info.file_size for info in infos)
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos) or unpacked > size:
        raise CheckpointError(
            f"{name} is foreign: it is compressed, to {size:,} of {unpacked:,} bytes, and archives "
            f"of this suite never are. Nothing was unpacked."
        )
