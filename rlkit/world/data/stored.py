"""What an agent's replay holds, as episodes to learn dynamics from."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.goals import ObservationLayout, vectorise
from rlkit.replay.storage import EpisodeStorage
from rlkit.world.data.windows import Episodes


def stored_episodes(
    storage: EpisodeStorage,
    space: spaces.Space[Any],
    *,
    choices: int = 0,
    since: NDArray[np.int64] | None = None,
) -> Episodes | None:
    """The episodes in a replay's storage, running ones and what is left of old ones included.

    Args:
        storage: Of vectors; pictures have to be codes by then.
        space: Space of one observation; its columns are those of `rlkit.goals.ObservationLayout`.
        choices: Of a Discrete action space, whose actions become one-hot; 0 for Boxes, whose
            actions stay as they are stored, in [-1, 1].
        since: Positions `(num_envs,)`, a copy of an earlier `storage.cursor` say: only what was
            done from there on. None for everything.

    Returns:
        Copies of the rows, or None where there is no step.
    """
    oldest = np.maximum(storage.cursor + 1 - storage.slots, storage.oldest)
    if since is not None:
        oldest = np.maximum(oldest, since)
    found, lengths = [], []
    for env, (first, cursor) in enumerate(zip(oldest, storage.cursor, strict=True)):
        position = np.arange(max(first, 0), cursor + 1)
        slots = storage.flat(np.full_like(position, env), position)
        last = np.flatnonzero(~storage.has_action[slots])
        length = np.diff(last, prepend=-1) - 1
        kept = np.ones(len(slots), np.bool_)
        kept[last[length == 0]] = False  # nothing was done there: an episode about to begin
        found.append(slots[kept])
        lengths.append(length[length > 0])
    seen, steps = np.concatenate(found), np.concatenate(lengths)
    if len(steps) == 0:
        return None
    done = seen[storage.has_action[seen]]
    observation: Any = {key: rows.take(seen, 0) for key, rows in storage.observation.items()}
    if not isinstance(space, spaces.Dict):
        observation = observation["observation"]
    action = storage.action.take(done, 0)
    return Episodes(
        ObservationLayout.of(space).vector(observation),
        vectorise(spaces.Discrete(choices), action, 1)
        if choices
        else action.reshape(len(done), -1),
        steps,
        storage.reward.take(done),
        storage.terminated.take(done),
    )
