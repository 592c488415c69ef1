"""How far back recurrent features reach, and how well training windows restore them.

Every number compares features at the same moments of stored episodes: those after reading the
episode from its beginning, and those with less to read. Their distance is relative: its norm over
that of the former, averaged over the moments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.networks.encoders import HiddenState, SequenceEncoder
from rlkit.networks.gradient import State
from rlkit.offpolicy.goal_diagnostics import value_curve
from rlkit.offpolicy.learner import GradientLearner
from rlkit.offpolicy.recurrent import RecurrentNetwork
from rlkit.replay.batch import sum_steps
from rlkit.replay.storage import read_sequences

if TYPE_CHECKING:
    from rlkit.offpolicy.algorithm import Algorithm

INTERVAL = 1000  # updates
MOMENTS = 32
SPANS = (1, 2, 4, 8, 16, 32, 64)
LONGEST = 128  # observations; moments lie no further into their episodes, so that all are read
CLOSE = 0.1


def record_diagnostics(agent: Algorithm) -> None:
    """Gives the logger `diagnose` and `value_curve` with the first update of every `INTERVAL`.

    The updates at which it records follow from a checkpoint, so a resumed run records the same.
    """
    now = agent._n_updates
    before = now - agent.metrics.updates
    if (now - 1) // INTERVAL > (before - 1) // INTERVAL:
        curve = value_curve(agent)
        for name, value in (diagnose(agent) | (curve.scalars() if curve else {})).items():
            agent.logger.record(name, value)


@torch.no_grad()
def diagnose(agent: Algorithm) -> dict[str, float]:
    """Distances for every trained network with an encoder of its own; empty without an encoder.

    Moments are drawn from all stored steps, as training draws its windows, but from the later half
    of their episodes (of the first `LONGEST` observations), where there is a history to encode.
    Goals are the original ones. Neither the agent nor any of its generators is changed.

    Returns:
        `recurrent/context_<network>`: effective context length, the smallest of `SPANS` so that
        reading only so many observations brings features within `CLOSE`; `LONGEST` where none does.
        `recurrent/recovery_<network>`: the distance at the first step that a window with a zero
        initial hidden state learns from, after `burn_in` others; not for whole episodes.
        `recurrent/staleness_<network>`: the distance of features read with the stored hidden
        state; only where the replay buffer keeps hidden states.

    Raises:
        ValueError: If the agent is recurrent and its replay buffer is empty.
    """
    learner, found = agent.learner, dict[str, float]()
    if not isinstance(learner, GradientLearner) or learner.recurrent is None:
        return found
    recurrent, config = learner.recurrent, learner.config
    moments = _moments(agent)
    batch = _episodes(agent, learner, *moments, before=LONGEST - 1)
    read = recurrent.window_inputs(learner.scaled(batch))[:, :-1]
    is_first = batch["is_first"][:, :-1]
    stored = _episodes(agent, learner, *moments, before=0) if recurrent.stored_shapes else None
    encoder = recurrent.encoder
    for name, network in learner.networks.items():
        if not isinstance(network, RecurrentNetwork) or name in learner.targets:
            continue
        weights = learner.state[name][: encoder.size]
        inputs = recurrent.inputs_of(name, read), is_first
        whole = _features(encoder, weights, inputs, LONGEST)
        close = (
            k for k in SPANS if _distance(_features(encoder, weights, inputs, k), whole) < CLOSE
        )
        found[f"recurrent/context_{name}"] = float(next(close, LONGEST))
        if config.window > 0:
            burned_in = _features(encoder, weights, inputs, config.burn_in + 1)
            found[f"recurrent/recovery_{name}"] = _distance(burned_in, whole)
        if stored is not None:
            stale = _features(encoder, weights, inputs, 1, recurrent.stored(stored, name))
            found[f"recurrent/staleness_{name}"] = _distance(stale, whole)
    return found


def _moments(agent: Algorithm) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Environments and positions `(MOMENTS,)` of stored steps."""
    rng = np.random.default_rng(agent._n_updates)
    env, step = agent.replay_buffer.storage.sample_steps(MOMENTS, rng)
    first, last = agent.replay_buffer.storage.episode_bounds(env, step)
    steps = np.minimum(last - first, LONGEST)
    return env, first + (steps * rng.uniform(0.5, 1.0, MOMENTS)).astype(np.int64)


def _episodes(
    agent: Algorithm,
    learner: GradientLearner,
    env: NDArray[np.int64],
    moment: NDArray[np.int64],
    before: int,
) -> State:
    """Prepared windows of the moments' steps and as many `before`.

    Where an episode has fewer, its first observation is repeated, each time with `is_first`.
    """
    replay = agent.replay_buffer
    bounds = replay.storage.episode_bounds(env, moment)
    batch = read_sequences(replay.storage, env, moment, bounds, 1, burn_in=before, **replay.inputs)
    return learner.prepare(agent.adapter.batch(sum_steps(batch, replay.gamma, 1)))


def _features(
    encoder: SequenceEncoder,
    weights: Tensor,
    inputs: tuple[Tensor, Tensor],
    span: int,
    hidden_state: HiddenState | None = None,
) -> Tensor:
    """Features `(B, D)` after the last `span` inputs `(B, LONGEST, I)`, from a zero state."""
    x, is_first = (part[:, -span:] for part in inputs)
    if hidden_state is None:
        hidden_state = encoder.initial(len(x), x.device)
    return encoder.scan(weights, x, hidden_state, is_first)[0][:, -1]


def _distance(features: Tensor, whole: Tensor) -> float:
    # The distance of features that are all zero is 0.
    length = whole.norm(dim=-1).clamp_min(1e-6)
    return float(((features - whole).norm(dim=-1) / length).mean())
