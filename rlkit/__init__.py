"""Goal-conditioned, recurrent and model-based reinforcement learning.

Importing this package imports nothing heavy: `rlkit.envs` must stay usable without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlkit.version import VERSION as __version__

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["__version__", "load"]


def load(path: Path | str, *, checkpoint: str = "last", trust: bool = False, **options: Any) -> Any:
    """An agent from the folder of a run, or from a file that `save` wrote.

    A run's agent comes with its environment and its replay buffer: it predicts and trains on.

    Args:
        path: The folder of a run, or a `.zip` file.
        checkpoint: Of a run: "last", "best", or a step's number.
        trust: Whether files may name any class or environment, which is then imported and run;
            otherwise only installed ones.
        **options: Of a file: arguments of the agent's `load`, such as `env` and `device`.

    Raises:
        UntrustedError: If a file names code that is not installed and is not trusted.
        ValueError: If there is no agent, or it cannot be loaded.
    """
    from rlkit.envs.make import make, prefer_egl  # noqa: TID251  who calls it wants all of it
    from rlkit.experiment.load import load_agent

    prefer_egl()  # before any environment is imported
    return load_agent(path, make, checkpoint=checkpoint, trust=trust, **options)
