"""Whole stored episodes, for readers that want data in the order in which it was collected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.replay.batch import Array
from rlkit.replay.columns import ACHIEVED, OBSERVATION


@dataclass(frozen=True)
class StoredEpisodes:
    """E episodes of N steps in all, one after the other, environment by environment.

    An episode that still runs is included, and of one whose beginning is overwritten what is left.

    Attributes:
        observation: By key, `(N + E, ...)` each: T + 1 observations of every episode of T steps.
        action: `(N, *action)` as stored: components of a Box are scaled from its bounds to
            [-1, 1], choices of a Discrete count from 0.
        reward: `(N,)`.
        terminated: `(N,)`.
        truncated: `(N,)`.
        desired_goal: Goal pursued in each step, `(N, *goal)`; None without goals.
        length: Steps of each episode, `(E,)`, at least 1.
        env: The environment of each episode, `(E,)`.
    """

    observation: dict[str, Array]
    action: Array
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    desired_goal: Array | None
    length: NDArray[np.int64]
    env: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.length)

    def __iter__(self) -> Iterator[StoredEpisodes]:
        """Views of the single episodes."""
        ends = np.cumsum(self.length)
        for i, (end, length) in enumerate(zip(ends.tolist(), self.length.tolist(), strict=True)):
            steps, observed = slice(end - length, end), slice(end - length + i, end + i + 1)
            yield StoredEpisodes(
                {key: rows[observed] for key, rows in self.observation.items()},
                self.action[steps],
                self.reward[steps],
                self.terminated[steps],
                self.truncated[steps],
                None if self.desired_goal is None else self.desired_goal[steps],
                self.length[i : i + 1],
                self.env[i : i + 1],
            )


def read_episodes(
    state: Mapping[str, Any], since: NDArray[np.int64] | None = None
) -> StoredEpisodes:
    """Copies of all stored episodes.

    Args:
        state: What `EpisodeStorage.state_dict` gives, or what was saved of it. Images are returned
            as images, also where agents read their latents.
        since: Positions `(num_envs,)`, such as a copy of an earlier `EpisodeStorage.cursor`: only
            steps from there on. None for all.
    """
    rings: Mapping[str, Array] = state["columns"]
    has_action = rings["has_action"]
    used = has_action.shape[1]
    cursor = np.asarray(state["cursor"], np.int64)
    oldest = np.maximum(np.maximum(cursor + 1 - used, np.asarray(state["oldest"])), 0)
    if since is not None:
        oldest = np.maximum(oldest, since)
    slots, envs, lengths = [], [], []
    for env, (first, last) in enumerate(zip(oldest.tolist(), cursor.tolist(), strict=True)):
        slot = np.arange(first, last + 1) % used
        final = np.flatnonzero(~has_action[env, slot])  # of each episode; the cursor's is one
        length = np.diff(final, prepend=-1) - 1
        kept = np.ones(len(slot), np.bool_)
        kept[final[length == 0]] = False  # no step was taken: an episode about to begin
        slots.append(env * used + slot[kept])
        lengths.append(length[length > 0])
        envs.append(np.full(len(lengths[-1]), env))
    observed = np.concatenate(slots)
    taken = observed[has_action.reshape(-1)[observed]]

    def rows(name: str, where: Array) -> Array:
        """Rows of a ring, by environment and slot: a reshaped ring would be a copy."""
        part: Array = rings[name][where // used, where % used]
        return part

    prefix = "observation."
    observation = {
        name.removeprefix(prefix): rows(name, observed) for name in rings if name.startswith(prefix)
    }
    if state["share"]:
        observation[ACHIEVED] = observation[OBSERVATION]
    goals = state["goals"]
    if goals is not None:
        goals = goals["rows"][rows("goal_id", taken) % len(goals["rows"])]
    return StoredEpisodes(
        observation,
        rows("action", taken),
        rows("reward", taken),
        rows("terminated", taken),
        rows("truncated", taken),
        goals,
        np.concatenate(lengths),
        np.concatenate(envs),
    )
