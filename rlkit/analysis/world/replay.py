"""What an agent has lived through, as data for world models: the replay of a run's checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.analysis.latent.training import agents_latent
from rlkit.analysis.world.columns import ACHIEVED, OBSERVATION, Columns
from rlkit.experiment.run_folder import RunFolder
from rlkit.goals import is_goal_space, vectorise
from rlkit.io.checkpoint import load_latest
from rlkit.latents import FittedLatent
from rlkit.vec.vec_env import MakeEnv
from rlkit.world import Episodes, Layout

Array = NDArray[Any]


def replay_episodes(
    run: Path, make: MakeEnv, latent: FittedLatent | None = None
) -> tuple[Episodes, Layout, tuple[str, ...], FittedLatent | None]:
    """The episodes in the replay of a run's newest checkpoint.

    Args:
        run: The run's folder.
        make: Builds its environment, for the spaces.
        latent: Makes codes of pictures; None for the agent's own, where it has one.

    Returns:
        Episodes, which columns are what, the columns' names, and the latent that made codes.

    Raises:
        ValueError: If the run has no checkpoint, or its replay holds no step or pictures that
            nothing makes codes of.
    """
    folder = RunFolder.open(run)
    recipe, saved = folder.recipe(), load_latest(folder.checkpoints)
    if saved is None:
        raise ValueError(f"{run} has no checkpoint yet; let it train on, or resume it")
    with closing(make(recipe.env, **recipe.env_options)) as env:
        space, action_space = env.observation_space, env.action_space
    tree = saved[1]
    state = tree.get("replay", {}).get("storage")
    if state is None:
        raise ValueError(f"the agent of {run} keeps no replay that could be read")
    if latent is None and "model" in tree["training"].get("latent", {}):
        latent = agents_latent(run)
    columns = Columns.of(recipe.env, space, latent)
    outcomes = () if is_goal_space(space) else ("reward", "terminated")
    found = list(_episodes(state, columns, action_space))
    if not found:
        raise ValueError(f"the replay of {run} holds no step yet; let it train on")
    layout = columns.layout(action_space, outcomes)
    return Episodes.of(found), layout, columns.names, latent


def _episodes(
    state: dict[str, Any], columns: Columns, action_space: spaces.Space[Any]
) -> Iterator[dict[str, Array]]:
    """The episodes in a saved ring of slots; see `rlkit.replay.storage`."""
    kept: dict[str, Array] = state["columns"]
    envs, used = kept["has_action"].shape
    for env in range(envs):
        cursor = int(state["cursor"][env])
        oldest = max(cursor + 1 - used, int(np.asarray(state["oldest"])[env]), 0)
        slots = np.arange(oldest, cursor + 1) % used
        ends = np.flatnonzero(~kept["has_action"][env, slots])
        for start, end in zip([0, *(ends[:-1] + 1)], ends, strict=True):
            if end == start:
                continue  # nothing was done there: an episode that is about to begin
            rows = slots[start:end]
            seen = np.append(rows, slots[end])
            yield {
                "observation": _observed(kept, env, seen, columns),
                "action": _done(kept["action"][env, rows], action_space),
                "reward": kept["reward"][env, rows],
                "terminated": kept["terminated"][env, rows],
            }


def _observed(kept: dict[str, Array], env: int, rows: Array, columns: Columns) -> Array:
    found = {}
    for key in columns.flat.slices:
        name = f"observation.{key}"
        # Where an observation and its goal are one picture, it is stored under the goal's name.
        found[key] = kept[name if name in kept else f"observation.{ACHIEVED}"][env, rows]
    plain = not isinstance(columns.space, spaces.Dict)
    return columns(found[OBSERVATION] if plain else found)


def _done(stored: Array, space: spaces.Space[Any]) -> Array:
    """Actions as columns in the environment's own units; a replay has boxes scaled to [-1, 1]."""
    if isinstance(space, spaces.Box):
        low, high = space.low, space.high
        stored = low + 0.5 * (stored.reshape(-1, *space.shape) + 1) * (high - low)
    elif isinstance(space, spaces.Discrete):
        stored = stored + space.start
    return vectorise(space, stored, 1)
