"""Data for world models from the replay buffer in a run's checkpoint."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.analysis.latent.training import agents_latent
from rlkit.analysis.world.columns import OBSERVATION, Columns
from rlkit.experiment.run_folder import RunFolder
from rlkit.goals import is_goal_space, simplify, vectorise
from rlkit.io.checkpoint import load_latest
from rlkit.latents import FittedLatent
from rlkit.replay import read_episodes
from rlkit.vec.vec_env import MakeEnv
from rlkit.world import Episodes, Layout

Array = NDArray[Any]


def replay_episodes(
    run: Path, make: MakeEnv, latent: FittedLatent | None = None
) -> tuple[Episodes, Layout, tuple[str, ...], FittedLatent | None]:
    """The episodes in the replay buffer of a run's newest checkpoint.

    Args:
        run: The run's folder.
        make: Builds its environment, for the spaces.
        latent: Encodes images; None for the agent's own, where it has one.

    Returns:
        Episodes, their layout, the columns' names, and the latent model that encoded images.

    Raises:
        ValueError: If the run has no checkpoint, or its replay buffer holds no step, or images
            without a latent model.
    """
    folder = RunFolder.open(run)
    recipe, saved = folder.recipe(), load_latest(folder.checkpoints)
    if saved is None:
        raise ValueError(f"{run} has no checkpoint yet; let it train on, or resume it")
    with closing(simplify(make(recipe.env, **recipe.env_options))) as env:
        space, action_space = env.observation_space, env.action_space
    content = saved[1]
    state = content.get("replay", {}).get("storage")
    if state is None:
        raise ValueError(f"the agent of {run} keeps no replay buffer that can be read")
    if latent is None and "model" in content["training"].get("latent", {}):
        latent = agents_latent(run)
    columns = Columns.of(recipe.env, space, latent)
    outcomes = () if is_goal_space(space) else ("reward", "terminated")
    found = read_episodes(state)
    if len(found) == 0:
        raise ValueError(f"the replay buffer of {run} holds no step yet; let it train on")
    layout = columns.layout(action_space, outcomes)
    is_dict = isinstance(space, spaces.Dict)
    episodes = [
        {
            "observation": columns(
                episode.observation if is_dict else episode.observation[OBSERVATION]
            ),
            "action": _in_own_units(episode.action, action_space),
            "reward": episode.reward,
            "terminated": episode.terminated,
        }
        for episode in found
    ]
    return Episodes.of(episodes), layout, columns.names, latent


def _in_own_units(stored: Array, space: spaces.Space[Any]) -> Array:
    """Stored actions as columns in the environment's own units."""
    if isinstance(space, spaces.Box):
        low, high = space.low, space.high
        stored = low + 0.5 * (stored.reshape(-1, *space.shape) + 1) * (high - low)
    elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        stored = stored.reshape(-1, *(space.shape or ())) + space.start
    return vectorise(space, stored, 1)
