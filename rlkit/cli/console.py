"""What the commands share: flags, environments by their ids, and what goes to which output."""

from __future__ import annotations

import contextlib
import json as json_
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import FlagCreatePairsOff, UseAppendAction, arg

if TYPE_CHECKING:
    from rlkit.vec.vec_env import MakeEnv

Json = Annotated[bool, FlagCreatePairsOff]
Number = Annotated[int | None, arg(metavar="N")]
Folder = Annotated[Path | None, arg(metavar="FOLDER")]
Settings = Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="KEY=VALUE")]


def env_maker() -> MakeEnv:
    """What builds an environment from its id."""
    from rlkit.envs.make import make, prefer_egl

    prefer_egl()  # before any environment is imported
    return make


@contextlib.contextmanager
def quiet_output(json: bool) -> Iterator[None]:
    """Keeps standard output for the one object of `--json`."""
    # Environments print what they like.
    with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
        yield


def print_json(content: dict[str, Any]) -> None:
    """Prints one object in one line."""
    print(json_.dumps(content, allow_nan=False))


def to_stderr(text: str) -> None:
    """Prints a line for people while standard output is for programs."""
    print(text, file=sys.stderr)
