"""Saving and loading of agents under Stable-Baselines3's names; the work is in `persistence`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import torch
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import get_system_info

from rlkit.offpolicy import persistence


class SavedAlgorithm(OffPolicyAlgorithm):
    """The part of an `Algorithm` that reads and writes files."""

    def save(
        self,
        path: persistence.Source,  # type: ignore[override]
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Saves the agent (not its replay) as one zip archive of safetensors and JSON.

        Args:
            path: File name (".zip" is added where it has no suffix) or binary file.
            exclude: Attributes to leave out, of `num_timesteps`, `verbose`, `seed`.
            include: Attributes to keep although excluded.
        """
        agent: Any = self
        persistence.write_agent(agent, path, set(exclude or ()) - set(include or ()))

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: persistence.Source,
        env: Any = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        trust: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Loads what `save` wrote; nothing in the file is executed, nor what it names imported.

        Args:
            path: File name or binary file.
            env: Environment to go on training in; None for `predict` alone.
            device: Where to put it.
            custom_objects: Options in place of the saved ones; unknown names are ignored.
            print_system_info: Whether to print versions and hardware.
            force_reset: Whether training begins with a reset of `env`.
            trust: Whether the file may name classes that are not installed parts.
            **kwargs: Options to change.

        Raises:
            CheckpointError: If the file is damaged, foreign, or contains a pickle.
            ValueError: If `env` has other spaces, or the file names such a class untrusted.
        """
        if print_system_info:
            get_system_info()
        kind: Any = cls
        names = kind.option_names() | {"policy_kwargs"}
        known = {k: v for k, v in (custom_objects or {}).items() if k in names}
        if kwargs.get("replay_buffer", kwargs) is None:  # as SB3's users leave it out
            del kwargs["replay_buffer"]
        changes = {**known, **kwargs}
        loaded: Self = persistence.read_agent(kind, path, env, device, changes, force_reset, trust)
        return loaded

    def save_replay_buffer(self, path: persistence.Source) -> None:  # type: ignore[override]
        """Saves the replay as one archive of plain arrays."""
        agent: Any = self
        persistence.write_replay(agent, path)

    def load_replay_buffer(  # type: ignore[override]
        self, path: persistence.Source, truncate_last_traj: bool = True
    ) -> None:
        """Loads what `save_replay_buffer` wrote.

        Args:
            path: File name or binary file.
            truncate_last_traj: Whether the next training cuts running episodes off, and resets
                the environments.

        Raises:
            CheckpointError: If the file is damaged or foreign.
            ValueError: If it belongs to other spaces, another capacity or number of environments.
        """
        agent: Any = self
        persistence.read_replay(agent, path, truncate_last_traj)
