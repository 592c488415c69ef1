"""The part of a storage of episodes that is for files."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.replay.batch import Array
from rlkit.replay.columns import Column, GoalTable


class SavedStorage:
    """The exact state of an `EpisodeStorage`, which describes its attributes."""

    num_envs: int
    slots: int
    columns: dict[str, Column]
    aliases: dict[str, str]
    goals: GoalTable | None
    goal_id: NDArray[np.int32]
    hidden_state: tuple[Array, ...]
    cursor: NDArray[np.int64]
    begins: NDArray[np.bool_]
    oldest: NDArray[np.int64]

    def state_dict(self) -> dict[str, Any]:
        """The used part of the ring, as arrays and integers.

        The arrays are views, as a copy may not fit into RAM: write them before more is added.
        """
        used = int(min(self.slots, self.cursor.max() + 1))
        columns = {name: ring[:, :used] for name, ring in self._rings().items()}
        return {
            "columns": columns,
            "share": bool(self.aliases),
            "cursor": self.cursor.copy(),
            "begins": self.begins.copy(),
            "oldest": self.oldest.copy(),
            "goals": None if self.goals is None else self.goals.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave, into a storage of the same spaces and capacity.

        Raises:
            ValueError: If an array does not fit this storage.
        """
        if state["share"] != bool(self.aliases):
            raise ValueError(
                f"the saved replay buffer has share={state['share']}, this one has "
                f"share={bool(self.aliases)}: set it as it was"
            )
        own, saved = self._rings(), state["columns"]
        if own.keys() != saved.keys():
            raise ValueError(
                f"the saved replay buffer holds {sorted(saved)}, this one {sorted(own)}: it "
                f"belongs to another environment, or to an agent with another hidden state"
            )
        for name, ring in own.items():
            part = saved[name]
            if ring[:, : part.shape[1]].shape != part.shape or ring.dtype != part.dtype:
                also = ", and the same hidden state" if name.startswith("hidden_state.") else ""
                raise ValueError(
                    f"the saved replay buffer's {name!r} is {part.dtype}{part.shape}, this one's "
                    f"is {ring.dtype}{ring.shape}: same environments, spaces and capacity are "
                    f"needed{also}"
                )
        for name, ring in own.items():  # after all checks: a refused state changes nothing
            used = saved[name].shape[1]
            ring[:, :used] = saved[name]
            if name == "has_action":  # other columns stay unwritten there and take no memory
                ring[:, used:] = False
        self.cursor = np.array(state["cursor"], np.int64)
        self.begins = np.array(state["begins"], np.bool_)
        self.oldest = np.array(state["oldest"], np.int64)
        for rows in self.columns.values():
            rows.release()
        if self.goals is not None:
            self.goals.load_state_dict(state["goals"])

    def _rings(self) -> dict[str, Array]:
        """Views of everything that is kept per slot, `(num_envs, slots, ...)`, by name."""
        named = ("action", "reward", "terminated", "truncated", "has_action", "step_index")
        arrays = {name: getattr(self, name) for name in (*named, "length")}
        if self.goals is not None:
            arrays["goal_id"] = self.goal_id
        arrays |= {f"hidden_state.{i}": column for i, column in enumerate(self.hidden_state)}
        for key, rows in self.columns.items():
            arrays |= {f"{name}.{key}": array for name, array in rows.arrays().items()}
        shape = (self.num_envs, self.slots)
        return {name: array.reshape(*shape, *array.shape[1:]) for name, array in arrays.items()}
