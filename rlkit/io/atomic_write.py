"""Writing to disk so that a killed process or a power cut leaves the old file or the new one."""

from __future__ import annotations

import os
import warnings
from pathlib import Path


def sync(path: Path) -> None:
    """Forces a file, or the entries of a folder, onto the disk.

    Raises:
        OSError: If the disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Replaces a file in one step: no reader ever sees half of it.

    Raises:
        OSError: If the disk refuses; the old file is then untouched.
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
    """A growing file of whole records, which outlives a full disk.

    A record that does not fit is cut off again, so that later ones stay readable, and the failure
    is announced once: losing a curve is bad, losing the training because of a curve is worse.

    Args:
        path: The file; created when missing, otherwise continued.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab", buffering=0)
        self._warned = False

    def append(self, record: bytes) -> None:
        """Writes one record, or none of it."""
        try:
            end = os.fstat(self._file.fileno()).st_size
            try:
                while record:  # a write may be short, and only the next one says why
                    record = record[self._file.write(record) :]
            except OSError:
                self._file.truncate(end)
                raise
        except OSError as error:
            self._warn(error)

    def sync(self) -> None:
        """Forces what was appended onto the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            self._warn(error)

    def close(self) -> None:
        """Closes the file; the records are on disk as far as `sync` put them there."""
        self._file.close()

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.path} cannot be written ({error.strerror}); training goes on, "
                f"records are lost until there is room again",
                RuntimeWarning,
                stacklevel=3,
            )
