"""Atomic writes: a kill or a power failure leaves the old file or the new one, never a part."""

from __future__ import annotations

import os
import warnings
from pathlib import Path


def sync(path: Path) -> None:
    """Forces a file, or the entries of a folder, onto the disk.

    Raises:
        OSError: If the file cannot be synced.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Replaces a file atomically: readers never get a part of it.

    Raises:
        OSError: If it cannot be written; the old file is then untouched.
    """
    # Beside the target: a rename is only atomic inside one file system.
    staged = path.with_name(f".{path.name}.staged")
    try:
        staged.write_bytes(data)
        sync(staged)
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)
    sync(path.parent)


class AppendOnlyFile:
    """A file of complete records that only grows, and that survives a full disk.

    A record that does not fit is removed again, so that later ones stay readable, with one warning:
    a full disk costs records of a curve and does not end the training.

    Args:
        path: The file; created when missing, otherwise continued.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab", buffering=0)
        self._warned = False

    def append(self, record: bytes) -> None:
        """Writes one record completely or not at all."""
        try:
            end = os.fstat(self._file.fileno()).st_size
            try:
                while record:  # a write may be partial, and only the next one raises the reason
                    record = record[self._file.write(record) :]
            except OSError:
                self._file.truncate(end)
                raise
        except OSError as error:
            self._warn(error)

    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._file.fileno()).st_size

    def sync(self) -> None:
        """Forces what was appended onto the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            self._warn(error)

    def close(self) -> None:
        """Closes the file, without syncing it."""
        self._file.close()

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.path} cannot be written ({error.strerror}); training "
                f"continues, and records are lost until there is room again",
                RuntimeWarning,
                stacklevel=3,
            )
