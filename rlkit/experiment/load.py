"""Trained agents for Python: `rlkit.load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlkit.experiment.run_folder import RunFolder
from rlkit.experiment.session import Session
from rlkit.io.archive import read_archive
from rlkit.plugins import AGENTS
from rlkit.trust import trusted_files
from rlkit.vec.vec_env import MakeEnv


def load_agent(
    path: Path | str,
    make: MakeEnv,
    *,
    checkpoint: str = "last",
    trust: bool = False,
    **options: Any,
) -> Any:
    """An agent from the folder of a run, or from a file that `save` wrote; see `rlkit.load`.

    Args:
        path: The folder or file.
        make: Builds environments.
        checkpoint: Of a run: "last", "best", or a step's number.
        trust: Whether files may name any class or environment, which is then imported.
        **options: Of a file: arguments of the agent's `load`, such as `env` and `device`.

    Raises:
        UntrustedError: If a file names code that is not installed and is not trusted.
        ValueError: If there is no agent, or it cannot be loaded.
    """
    path = Path(path)
    with trusted_files(trust):
        if not path.is_dir():
            if checkpoint != "last":
                raise ValueError(f"{path} is one file; only a run has checkpoints")
            return _saved_class(path).load(path, **options)
        if options:
            raise ValueError(
                f"{', '.join(options)}: a run is loaded with its own environment and options; "
                f"use the agent's class, such as SAC.load({str(path)!r}, ...)"
            )
        return Session.load(RunFolder.open(path), make, checkpoint)[0].agent


def _saved_class(path: Path) -> Any:
    """The installed agent whose name a file holds."""
    saved = read_archive(path).get("agent", {})
    name = saved.get("class") if isinstance(saved, dict) else None
    for short in AGENTS.names():
        found = AGENTS.load(short)
        if found.__name__ == name:
            return found
    raise ValueError(
        f"{path} holds {f'a {name}' if name else 'no agent'}, which is none of the installed "
        f"agents ({', '.join(AGENTS.names())}); load it with its class, {name or 'MyAgent'}.load"
    )
