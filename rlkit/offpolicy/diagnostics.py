"""What a memory is worth: how far back it reaches, and how well training windows restore it.

Every number compares features at the same moments of stored episodes: those that a network has
after reading the episode from its beginning, and those that it has with less to go by. Their
distance is relative: its length over that of the former, averaged over the moments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.networks.encoders import HiddenState, SequenceEncoder
from rlkit.networks.gradient import State
from rlkit.replay.batch import sum_steps
from rlkit.replay.replay_buffer import read_sequences

if TYPE_CHECKING:
    from rlkit.offpolicy.algorithm import Algorithm

INTERVAL = 1000  # updates
MOMENTS = 32
SPANS = (1, 2, 4, 8, 16, 32, 64)
LONGEST = 128  # observations; moments lie no further into their episodes, so that all are read
CLOSE = 0.1


def record_memory(agent: Algorithm) -> None:
    """Gives the logger what `diagnose` finds, with the first update of every `INTERVAL`.

    When that is follows from what a checkpoint holds anyway, so a resumed run records the same.
    """
    if not agent.config.has_memory:
        return
    now = agent._n_updates
    before = now - agent.report.updates
    if (now - 1) // INTERVAL > (before - 1) // INTERVAL:
        for name, value in diagnose(agent).items():
            agent.logger.record(name, value)


@torch.no_grad()
def diagnose(agent: Algorithm) -> dict[str, float]:
    """Distances for every trained network with an encoder of its own; empty without memory.

    Moments are drawn from all stored steps, as training draws its windows, but from the later half
    of their episodes (of the first `LONGEST` observations), where there is something to remember.
    Goals are the original ones. Neither the agent nor any of its generators is changed.

    Returns:
        `memory/context_<network>`: effective context length, the least of `SPANS` so that reading
        only so many observations brings features `CLOSE`; `LONGEST` where none does.
        `memory/recovery_<network>`: the distance at the first step that a window starting with a
        fresh memory learns from, after `burn_in` others; not for windows of whole episodes.
        `memory/staleness_<network>`: the distance of features read with the stored carry; only
        where the replay keeps carries.

    Raises:
        ValueError: If the agent has a memory and its replay is empty.
    """
    learner, found = agent.learner, dict[str, float]()
    encoder, config = learner.recurrent.encoder, learner.config
    if encoder is None:
        return found
    moments = _moments(agent)
    batch = _episodes(agent, *moments, before=LONGEST - 1)
    read, is_first = learner.memory_inputs(batch)[:, :-1], batch["is_first"][:, :-1]
    kept = _episodes(agent, *moments, before=0) if learner.recurrent.stored_hidden_state else None
    for name, network in learner.networks.items():
        if network.encoder is None or name.endswith("_target"):
            continue
        weights = learner.state[name][: encoder.size]
        inputs = learner.recurrent.read_by(name, read), is_first
        whole = _features(encoder, weights, inputs, LONGEST)
        close = (
            k for k in SPANS if _distance(_features(encoder, weights, inputs, k), whole) < CLOSE
        )
        found[f"memory/context_{name}"] = float(next(close, LONGEST))
        if config.window > 0:
            warmed = _features(encoder, weights, inputs, config.burn_in + 1)
            found[f"memory/recovery_{name}"] = _distance(warmed, whole)
        if kept is not None:
            stale = _features(encoder, weights, inputs, 1, learner.recurrent.stored(kept, name))
            found[f"memory/staleness_{name}"] = _distance(stale, whole)
    return found


def _moments(agent: Algorithm) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Environments and positions `(MOMENTS,)` of stored steps."""
    rng = np.random.default_rng(agent._n_updates)
    env, step = agent.replay_buffer.storage.sample_steps(MOMENTS, rng)
    first, last = agent.replay_buffer.storage.episode_bounds(env, step)
    steps = np.minimum(last - first, LONGEST)
    return env, first + (steps * rng.uniform(0.5, 1.0, MOMENTS)).astype(np.int64)


def _episodes(
    agent: Algorithm, env: NDArray[np.int64], moment: NDArray[np.int64], before: int
) -> State:
    """Prepared windows of the moments' steps and as many `before`.

    Where an episode has fewer, its first observation is repeated, as the first one every time.
    """
    replay = agent.replay_buffer
    bounds = replay.storage.episode_bounds(env, moment)
    batch = read_sequences(replay.storage, env, moment, bounds, 1, burn_in=before, **replay.inputs)
    return agent.learner.prepare(agent.interface.batch(sum_steps(batch, replay.gamma, 1)))


def _features(
    encoder: SequenceEncoder,
    weights: Tensor,
    inputs: tuple[Tensor, Tensor],
    span: int,
    hidden_state: HiddenState | None = None,
) -> Tensor:
    """Features `(B, D)` after the last `span` inputs `(B, LONGEST, I)`, by default from nothing."""
    x, is_first = (part[:, -span:] for part in inputs)
    if hidden_state is None:
        hidden_state = encoder.initial(len(x), x.device)
    return encoder.scan(weights, x, hidden_state, is_first)[0][:, -1]


def _distance(features: Tensor, whole: Tensor) -> float:
    # Features that are all zero stand for nothing to remember: equal ones are no distance apart.
    length = whole.norm(dim=-1).clamp_min(1e-6)
    return float(((features - whole).norm(dim=-1) / length).mean())
