"""Fitting the latent model: before the training, and again on a schedule.

Latents of different versions must not be compared. So each refresh discards what depends on old
ones: running episodes end as truncated, stored hidden states become zero ones, and the replay
buffer encodes its images again as it samples them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from rlkit.latents import Metrics, nearness
from rlkit.offpolicy.collect import cut_episodes
from rlkit.offpolicy.observation_encoder import DESIRED, OBSERVED, LatentObservationEncoder
from rlkit.replay import LatentColumn

if TYPE_CHECKING:
    from rlkit.offpolicy.algorithm import Algorithm

Array = NDArray[Any]
LOG_INTERVAL = 100  # gradient steps


def pretrain(agent: Algorithm) -> Iterator[int]:
    """Fits the latent model to images of an agent's environments, and leaves these to be reset.

    Nothing random in it depends on earlier draws, so an interrupted fit is repeated exactly.

    Returns:
        An iterator over the gradient steps; it does the work.

    Raises:
        ValueError: If all images are the same.
    """
    encoder, env, logger = agent.observation_encoder, agent.env, agent.logger
    assert isinstance(encoder, LatentObservationEncoder)
    assert env is not None
    seed, env_seed = encoder.pretraining_seeds
    frames, near = _random_frames(encoder, env, seed)
    env.seed(env_seed)
    steps = encoder.pretraining.steps
    for step, metrics in enumerate(_fit(agent, encoder, frames, near, steps, seed)):
        if step % LOG_INTERVAL == 0:
            _record(agent, metrics)
            logger.dump(step)
        yield step
    if encoder.latent_rule is not None:
        logger.dump(steps)


def request_refresh(agent: Algorithm) -> None:
    """Makes a refresh due; see `Algorithm.refresh`."""
    encoder = agent.observation_encoder
    if not isinstance(encoder, LatentObservationEncoder) or encoder.latent_encoder is None:
        raise ValueError(
            "there is nothing to refresh: the agent has no latent model, or one that is frozen, so "
            "that no images are kept; set pretraining = {refresh_every = ...} from the start"
        )
    if len(agent.replay_buffer) == 0:
        raise ValueError("there is nothing to refresh with: the replay buffer is empty")
    encoder.mark_stale()


def refresh(agent: Algorithm) -> Iterator[int]:
    """Fits the latent model again, to the images in the replay buffer.

    Nothing random in it depends on earlier draws, and only the running episodes, which are cut
    first, change before its last step: an interrupted refresh is repeated exactly.

    Returns:
        An iterator over the gradient steps; it does the work.

    Raises:
        ValueError: If all images are the same, or no episode is long enough to find near pairs.
    """
    encoder, storage = agent.observation_encoder, agent.replay_buffer.storage
    assert isinstance(encoder, LatentObservationEncoder)
    if not storage.begins.all():
        cut_episodes(agent, int(agent.rng.integers(2**31)))
        if agent.action_noise is not None:
            agent.action_noise.reset()
    frames, near = _stored_frames(agent, encoder)
    seed = int(np.random.SeedSequence(encoder.refit_seed).generate_state(1)[0])
    last: Metrics = {}
    steps = encoder.pretraining.refresh_steps
    for metrics in _fit(agent, encoder, frames, near, steps, seed):
        last = metrics
        yield agent.num_timesteps
    _record(agent, last)
    agent.logger.record("latent/version", encoder.version)
    fresh = agent.learner.to_store(agent.learner.initial(1)) or ()
    for column, part in zip(storage.hidden_state, fresh, strict=True):
        column[storage.has_action] = part


def _fit(
    agent: Algorithm,
    encoder: LatentObservationEncoder,
    frames: Array,
    near: Array,
    steps: int,
    seed: int,
) -> Iterator[Metrics]:
    """Fits the model to frames `(N, ...)`, and the threshold to near pairs `(M, 2)` of them."""
    next_rows = np.full(len(frames), -1)
    next_rows[near[:, 0]] = near[:, 1]
    yield from encoder.latent.fit(
        frames,
        steps=steps,
        batch_size=encoder.pretraining.batch_size,
        learning_rate=encoder.pretraining.learning_rate,
        generator=torch.Generator().manual_seed(seed),
        next_rows=next_rows,
    )
    encoder.age = 0
    if encoder.latent_rule is None:
        return
    latents = encoder.latent.encode(frames)
    far = np.random.default_rng(seed).integers(len(latents), size=(len(near), 2))
    apart = [np.linalg.norm(latents[i] - latents[j], axis=1) for i, j in (near.T, far.T)]
    encoder.latent_rule.threshold, accuracy = nearness(*apart)
    agent.logger.record("latent/threshold", encoder.latent_rule.threshold)
    agent.logger.record("latent/threshold_accuracy", accuracy)


def _random_frames(
    encoder: LatentObservationEncoder, env: VecEnv, seed: int
) -> tuple[Array, Array]:
    """Images of random actions and of goals, `(frames, ...)`, and near pairs `(M, 2)`."""
    settings, n = encoder.pretraining, env.num_envs
    found, near, count = list[Array](), list[Array](), 0
    env.seed(seed)
    env.action_space.seed(seed)
    while count < settings.frames:
        desired, observed = _images_in(encoder, env.reset())
        found += [desired, observed]
        count += len(desired)
        for step in range(1, settings.stay + 1):
            actions = np.stack([env.action_space.sample() for _ in range(n)])
            observation, _, dones, _ = env.step(actions)
            found.append(_images_in(encoder, observation)[1])
            count += n
            if dones.any():
                break
            if step >= settings.near:
                current = np.arange(count, count + n)
                near.append(np.stack([current - settings.near * n, current], axis=1))
        count += n
    pairs = np.concatenate(near) if near else np.zeros((0, 2), np.int64)
    pairs = pairs[(pairs < settings.frames).all(axis=1)]
    return np.concatenate(found)[: settings.frames], pairs


def _images_in(encoder: LatentObservationEncoder, observation: Any) -> tuple[Array, Array]:
    """Copies of the goals' images, if goals are images, and of the observations'."""
    if not isinstance(observation, Mapping):
        return observation[:0].copy(), observation.copy()
    observed = observation[OBSERVED]
    desired = observation[DESIRED] if DESIRED in encoder.widths else observed[:0]
    return desired.copy(), observed.copy()


def _stored_frames(agent: Algorithm, encoder: LatentObservationEncoder) -> tuple[Array, Array]:
    """Images in the replay buffer `(N, ...)`, those of goals included, and near pairs `(M, 2)`.

    Steps are drawn uniformly. Where the latent model gives rewards or compares neighbours in time,
    the observations `near` steps later are included, too.
    """
    settings, storage = encoder.pretraining, agent.replay_buffer.storage
    env, step = storage.sample_steps(settings.frames, np.random.default_rng(encoder.refit_seed))
    slots, first = np.unique(storage.flat(env, step), return_index=True)
    env, step = env[first], step[first]
    rows, near = [slots], np.zeros((0, 2), np.int64)
    if encoder.latent_rule is not None or encoder.latent.reads_next:
        later = step + settings.near
        begin = np.flatnonzero(later <= storage.episode_bounds(env, step)[1])
        if len(begin) == 0:
            raise ValueError(
                f"no stored episode lasts for pretraining.near = {settings.near} steps, so no near "
                f"pairs of images exist: lower it"
            )
        rows.append(storage.flat(env[begin], later[begin]))
        near = np.stack([begin, len(slots) + np.arange(len(begin))], axis=1)
    column = storage.columns[OBSERVED]
    assert isinstance(column, LatentColumn)
    frames = [column.images(np.concatenate(rows))]
    if DESIRED in encoder.widths and storage.goals is not None:
        frames.append(storage.goals.stored(np.unique(storage.goal_id[slots])))
    return np.concatenate(frames), near


def _record(agent: Algorithm, metrics: Metrics) -> None:
    for name, value in metrics.items():
        if value.ndim == 0:
            agent.logger.record(f"latent/{name}", value.item())
