"""Environments built without the banners of other packages; child processes import this file."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium as gym

from rlkit.envs.make import make


def quiet_make(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """Same as `rlkit.envs.make.make`, but libraries print nothing while it imports and builds.

    What Python code prints, such as that of a user's environment, is shown.
    """
    with _mute_libraries():
        return make(env_id, **kwargs)


@contextlib.contextmanager
def _mute_libraries() -> Iterator[None]:
    """Drops what compiled code writes to standard output and error; Python's streams are kept."""
    before = sys.stdout, sys.stderr
    try:
        files = [stream.fileno() for stream in before]
        kept = {place: os.dup(place) for place in (1, 2)}
    except (OSError, ValueError, AttributeError):  # streams without files, as in a notebook
        yield
        return
    _flush()
    nothing = os.open(os.devnull, os.O_WRONLY)
    streams = [os.fdopen(kept.get(file, file), "w", buffering=1, closefd=False) for file in files]
    sys.stdout, sys.stderr = streams
    for place in kept:
        os.dup2(nothing, place)
    try:
        yield
    finally:
        _flush()
        sys.stdout, sys.stderr = before
        for place, file in kept.items():
            os.dup2(file, place)
        for file in (nothing, *kept.values()):
            os.close(file)


def _flush() -> None:
    """Empties the buffers of Python and of the C library."""
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no such library on Windows
        ctypes.CDLL(None).fflush(None)
