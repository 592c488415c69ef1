"""The steps of a replay buffer as arrays, under the names of Stable-Baselines3's buffers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.replay.batch import Array, Batch
from rlkit.replay.columns import DESIRED
from rlkit.replay.storage import EpisodeStorage

OBSERVATION = "observation"


class StoredSteps:
    """Read-only arrays `(N, environments, ...)` of what is stored, the oldest step first.

    A replay buffer holds episodes, so these are copies, made where they are asked for; N is the
    number of steps that every environment has. Writing to them is refused: it would change nothing.
    """

    storage: EpisodeStorage
    has_keys: bool
    full = False
    """Always False: `observations[:pos]` is everything, as in a buffer that is not full yet."""

    @property
    def pos(self) -> int:
        """N, steps of each environment."""
        return len(self._positions())

    def size(self) -> int:
        """N, steps of each environment."""
        return self.pos

    @property
    def observations(self) -> Any:
        """Observations before each step: an array, or a dict of them with the goals."""
        return self._observations(0)

    @property
    def next_observations(self) -> Any:
        """Observations after each step, also where an episode ended."""
        return self._observations(1)

    @property
    def actions(self) -> Array:
        """Actions as stored, `(N, environments, A)`: continuous ones in [-1, 1]."""
        taken = self._arrange(self._steps().action[:, 0])
        return taken[..., None] if taken.ndim == 2 else taken

    @property
    def rewards(self) -> NDArray[np.float32]:
        """Rewards of the original goals."""
        return self._arrange(self._steps().reward[:, 0])

    @property
    def dones(self) -> NDArray[np.float32]:
        """1 where an episode ended, else 0."""
        steps = self._steps()
        return self._arrange((steps.terminated | steps.truncated)[:, 0].astype(np.float32))

    @property
    def timeouts(self) -> NDArray[np.float32]:
        """1 where it was cut off, else 0."""
        return self._arrange(self._steps().truncated[:, 0].astype(np.float32))

    def _positions(self) -> NDArray[np.int64]:
        """Positions of steps `(N, environments)`."""
        stored, found = self.storage, []
        for env in range(stored.num_envs):
            end = int(stored.cursor[env])
            start = max(end + 1 - stored.slots, int(stored.oldest[env]), 0)
            position = np.arange(start, end)
            flat = stored.flat(np.full(len(position), env), position)
            found.append(position[stored.has_action[flat]])
        count = min(map(len, found))
        return np.stack([position[len(position) - count :] for position in found], axis=1)

    def _steps(self) -> Batch:
        position = self._positions()
        env = np.broadcast_to(np.arange(position.shape[1]), position.shape)
        return self.storage.window(env.reshape(-1), position.reshape(-1), 1)

    def _observations(self, offset: int) -> Any:
        steps = self._steps()
        found = {key: self._arrange(part[:, offset]) for key, part in steps.observation.items()}
        if steps.desired_goal is not None:
            found[DESIRED] = self._arrange(steps.desired_goal[:, 0])
        return found if self.has_keys else found[OBSERVATION]

    def _arrange(self, rows: Array) -> Array:
        arranged = rows.reshape(-1, self.storage.num_envs, *rows.shape[1:])
        arranged.flags.writeable = False
        return arranged
