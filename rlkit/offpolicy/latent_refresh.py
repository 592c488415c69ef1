"""Fitting the latent model: before the training, and again on a schedule.

Codes of different versions cannot be compared. So with every refresh all that was made of old ones
goes: running episodes end as truncated, stored carries become fresh ones, and the replay encodes
its pictures anew, those that it samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from rlkit.offpolicy.collect import begun, cut_episodes
from rlkit.offpolicy.pictures import DESIRED, SEEN
from rlkit.replay import LatentColumn, check_finite

if TYPE_CHECKING:
    from rlkit.offpolicy.algorithm import Algorithm


def prepare(agent: Algorithm, starts_anew: bool) -> Iterator[int]:
    """Fits what is to be fitted before the training, and takes in the first observations.

    Args:
        agent: The agent, with or without a latent model.
        starts_anew: Whether its last observations are raw ones.

    Returns:
        An iterator over the gradient steps; it does the work.
    """
    if agent.env is not None and not agent.sight.is_ready:
        for _ in agent.sight.pretrain(agent.env, agent.logger):
            yield agent.num_timesteps
        agent._last_obs, starts_anew = cast(Any, agent.env.reset()), True
    if starts_anew:
        agent._last_obs = begun(agent, agent._last_obs)
    check_finite("observation", agent._last_obs)


def request_refresh(agent: Algorithm) -> None:
    """Makes a refresh due; see `Algorithm.refresh`."""
    if agent.sight.latent_encoder is None:
        raise ValueError(
            "there is nothing to refresh: the agent has no latent model, or one that is frozen, so "
            "that no pictures are kept; set pretraining = {refresh_every = ...} from the start"
        )
    if len(agent.replay_buffer) == 0:
        raise ValueError("there is nothing to refresh with: the replay is empty, train first")
    agent.sight.expire()


def refresh(agent: Algorithm) -> Iterator[int]:
    """Fits the latent model again where that is due, to what the replay holds.

    Nothing random in it depends on what was drawn before, and nothing but the running episodes,
    which are cut first, changes before its last step: one that is stopped begins again alike.

    Returns:
        An iterator over the gradient steps; it does the work.

    Raises:
        ValueError: If all pictures are the same, or no episode is long enough to tell what is near.
    """
    if not agent.sight.is_stale:
        return
    if not agent.replay_buffer.storage.begins.all():
        cut_episodes(agent, int(agent.rng.integers(2**31)))
        if agent.action_noise is not None:
            agent.action_noise.reset()
    frames, near = _remembered(agent)
    for _ in agent.sight.refit(frames, near, agent.logger):
        yield agent.num_timesteps
    storage = agent.replay_buffer.storage
    for column, fresh in zip(
        storage.hidden_state, agent.learner.recurrent.initial(1)[1:], strict=False
    ):
        column[storage.has_action] = fresh.cpu().numpy()


def _remembered(agent: Algorithm) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Pictures of the replay `(N, ...)`, those of goals included, and near pairs `(M, 2)`.

    Steps are drawn uniformly. Where the latent judges goals, what followed `near` steps later is
    among the pictures, too.
    """
    sight, storage = agent.sight, agent.replay_buffer.storage
    rng = np.random.default_rng(sight.refit_seed)
    env, step = storage.sample_steps(sight.pretraining.frames, rng)
    here, first = np.unique(storage.flat(env, step), return_index=True)
    env, step = env[first], step[first]
    rows, near = [here], np.zeros((0, 2), np.int64)
    if sight.distance is not None:
        later = step + sight.pretraining.near
        begin = np.flatnonzero(later <= storage.episode_bounds(env, step)[1])
        if len(begin) == 0:
            raise ValueError(
                f"no stored episode lasts for pretraining.near = {sight.pretraining.near} steps, "
                f"so nothing tells which pictures are near each other: lower it"
            )
        rows.append(storage.flat(env[begin], later[begin]))
        near = np.stack([begin, len(here) + np.arange(len(begin))], axis=1)
    column = storage.columns[SEEN]
    assert isinstance(column, LatentColumn)
    frames = [column.images(np.concatenate(rows))]
    if DESIRED in sight.widths and storage.goals is not None:
        frames.append(storage.goals.stored(np.unique(storage.goal_id[here])))
    return np.concatenate(frames), near
