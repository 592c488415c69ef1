"""The episodes in an agent's replay buffer, to fit dynamics to."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.goals import ObservationLayout, vectorise
from rlkit.replay import EpisodeStorage, read_episodes
from rlkit.world.data.windows import Episodes


def stored_episodes(
    storage: EpisodeStorage,
    space: spaces.Space[Any],
    *,
    choices: int = 0,
    since: NDArray[np.int64] | None = None,
) -> Episodes | None:
    """The episodes in a storage as columns, running and partly overwritten ones included.

    Args:
        storage: Its observations must be vectors; images must be latents already.
        space: Space of one observation; its columns are those of `rlkit.goals.ObservationLayout`.
        choices: Of a Discrete action space, whose actions become one-hot; 0 for Boxes, whose
            actions stay as they are stored, in [-1, 1].
        since: Positions `(num_envs,)`, such as a copy of an earlier `storage.cursor`: only steps
            from there on. None for all.

    Returns:
        Copies of the rows, or None where there is no step.
    """
    found = read_episodes(storage.state_dict(), since)
    if len(found) == 0:
        return None
    observation: Any = found.observation
    if not isinstance(space, spaces.Dict):
        observation = observation["observation"]
    action = found.action.reshape(len(found.action), -1)
    if choices:
        action = vectorise(spaces.Discrete(choices), found.action, 1)
    return Episodes(
        ObservationLayout.of(space).vector(observation),
        action,
        found.length,
        found.reward,
        found.terminated,
    )
