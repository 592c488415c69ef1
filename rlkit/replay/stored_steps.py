"""The steps of a replay buffer under the names of Stable-Baselines3's buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    device: Any = "cpu"
    """Where the agent's learner puts what is sampled."""
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

    def add(
        self,
        observation: Any,
        action: Array,
        reward: Array,
        terminated: Array,
        truncated: Array,
        next_observation: Any,
    ) -> None:
        """Appends one step of every environment."""
        raise TypeError(f"{type(self).__name__} must define add")

    def continues(self, observation: Any) -> bool:
        """Whether observations `(environments, ...)` go on where every running episode is."""
        stored = self.storage
        running = np.flatnonzero(~stored.begins)
        current = stored.flat(running, stored.cursor[running])
        given = observation if self.has_keys else {OBSERVATION: observation}
        return all(
            np.array_equal(column[current], np.asarray(given[key])[running].astype(column.dtype))
            for key, column in stored.observation.items()
        )

    def add_step(
        self,
        obs: Any,
        next_obs: Any,
        action: Array,
        reward: Array,
        done: Array,
        infos: Sequence[Mapping[str, Any]],
    ) -> None:
        """Appends one step of every environment, given as to `add` of Stable-Baselines3's buffers.

        Args:
            obs: Observations `(environments, ...)`; running episodes are cut where they do not go
                on there.
            next_obs: Those after the step; at an episode's end its last one.
            action: `(environments, A)`, in [-1, 1].
            reward: `(environments,)`.
            done: Whether the episode ended, `(environments,)`.
            infos: `TimeLimit.truncated` marks an end by a time limit.
        """
        stored = self.storage
        if not self.continues(obs):
            stored.cut()
        ended = np.asarray(done).astype(np.bool_)
        cut_off = np.array([np.any(info.get("TimeLimit.truncated", False)) for info in infos])
        action = np.asarray(action).reshape(stored.num_envs, *stored.action.shape[1:])
        self.add(obs, action, reward, ended & ~cut_off, ended & cut_off, next_obs)

    def extend(self, *parts: Any) -> None:
        """Appends steps `(N, environments, ...)`, see `add_step`."""
        steps = len(parts[3])
        for i in range(steps):
            self.add_step(*(_at(part, i) for part in parts))

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


def _at(part: Any, index: int) -> Any:
    if isinstance(part, Mapping):
        return {key: value[index] for key, value in part.items()}
    return part[index]
