"""Hindsight: windows seen as if another goal had been pursued."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rlkit.goals.hindsight import STRATEGIES, Strategy, choose_positions
from rlkit.goals.rule import GoalRule
from rlkit.replay.batch import Array, Batch
from rlkit.replay.storage import EpisodeStorage, Positions

ORIGINAL, RANDOM = STRATEGIES.index("original"), STRATEGIES.index("random")
IMAGINED = STRATEGIES.index("imagined")

Imagine = Callable[[int, np.random.Generator], Array]
"""Draws goals that need never have been achieved: a number of them and the source of randomness,
to goals `(N, *goal)`."""


def relabel(
    batch: Batch,
    env: NDArray[np.int64],
    storage: EpisodeStorage,
    rule: GoalRule,
    weights: dict[Strategy, float],
    rng: np.random.Generator,
    imagine: Imagine | None = None,
) -> Batch:
    """Gives each window one goal drawn by a mixture of strategies.

    The goal is drawn for the window's first step after the burn-in and holds for all of it, burn-in
    included. Storage is only read;
    with weight 1 on "original" the batch comes back as it is.

    Args:
        batch: B windows from `storage`.
        env: The environments that the windows come from, `(B,)`.
        storage: Where other achieved goals are found.
        rule: Judges the new goals.
        weights: The mixture, by `rlkit.goals.hindsight.mixture`.
        rng: The source of randomness.
        imagine: Draws the goals of "imagined".
    """
    shares = np.cumsum([weights[name] for name in STRATEGIES[:ORIGINAL]])
    strategy = np.searchsorted(shares, rng.random(len(batch)), side="right")
    rows = np.flatnonzero(strategy != ORIGINAL)
    if len(rows) == 0:
        return batch
    goal = _hindsight_goals(strategy[rows], env[rows], batch.position[rows], storage, rng, imagine)
    return with_goals(batch, rows, np.repeat(goal[:, None], batch.mask.shape[1], axis=1), rule)


def _hindsight_goals(
    strategy: NDArray[np.int64],
    env: NDArray[np.int64],
    position: Positions,
    storage: EpisodeStorage,
    rng: np.random.Generator,
    imagine: Imagine | None,
) -> Array:
    first, last = storage.episode_bounds(env, position)
    chosen = choose_positions(strategy, position, first, last, rng)
    flat = storage.flat(env, chosen)
    anywhere = strategy == RANDOM
    if anywhere.any():
        other_env, other = storage.sample_steps(int(anywhere.sum()), rng)
        flat[anywhere] = storage.flat(other_env, other + 1)
    goals = storage.achieved(flat)
    invented = strategy == IMAGINED
    if imagine is not None and invented.any():
        goals[invented] = imagine(int(invented.sum()), rng)
    return goals


def with_goals(batch: Batch, rows: NDArray[np.int64], goal: Array, rule: GoalRule) -> Batch:
    """Replaces the goals of some windows, and with them rewards and terminations.

    A recorded termination that the old goal does not explain (a fall, say) stays; one that it
    explains goes, and the new goal's own comes in. What follows it never happened under the new
    goal, so it is masked.

    Args:
        batch: B windows.
        rows: The R windows to change.
        goal: Their goals per step, `(R, T, *goal)`.
        rule: Judges the new goals.
    """
    assert batch.desired_goal is not None
    achieved = batch.observation["achieved_goal"][:, 1:].take(rows, axis=0)
    shape, goal_shape = goal.shape[:2], batch.desired_goal.shape[2:]
    flat_achieved = achieved.reshape(-1, *goal_shape)
    flat_goal = goal.reshape(-1, *goal_shape)
    happened, ended = _happened(batch, rows), batch.terminated.take(rows, axis=0)
    if ended.any():
        original = batch.desired_goal.take(rows, axis=0).reshape(-1, *goal_shape)
        ended &= ~rule.terminated(flat_achieved, original).reshape(shape)
    ended |= rule.terminated(flat_achieved, flat_goal).reshape(shape) & happened
    earned = rule.reward(flat_achieved, flat_goal).reshape(shape)

    desired, reward = batch.desired_goal.copy(), batch.reward.copy()
    terminated, relabelled = batch.terminated.copy(), batch.relabelled.copy()
    desired[rows], terminated[rows], relabelled[rows] = goal, ended, happened
    # Padding before an episode's start has no reward to replace.
    reward[rows] = np.where(happened, earned, reward[rows]) if batch.burn_in else earned
    mask = batch.mask
    if shape[1] > 1 and ended.any():
        over = np.zeros(mask.shape, np.bool_)
        over[rows, 1:] = np.logical_or.accumulate(ended, axis=1)[:, :-1]
        mask = mask & ~over
    changed = batch.replace(
        desired_goal=desired, reward=reward, terminated=terminated, relabelled=relabelled, mask=mask
    )
    if batch.previous_reward is None:
        return changed
    previous = batch.previous_reward.copy()
    earlier = batch.observation["achieved_goal"][rows, 0]
    before = rule.reward(earlier, goal[:, 0])[:, None]
    fresh = batch.is_first.take(rows, axis=0)
    previous[rows] = np.where(fresh, 0.0, np.concatenate([before, earned], axis=1))
    return changed.replace(previous_reward=previous)


def recompute_rewards(batch: Batch, rule: GoalRule) -> Batch:
    """The windows with the goals that they have, and what a rule makes of these now."""
    assert batch.desired_goal is not None
    changed = with_goals(batch, np.arange(len(batch)), batch.desired_goal, rule)
    return changed.replace(relabelled=batch.relabelled)


def _happened(batch: Batch, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Records that are no padding, `(R, T)`, of windows with their original goals."""
    happened = batch.mask.take(rows, axis=0)
    if batch.burn_in == 0:
        return happened
    # Burn-in before an episode's start is followed by an observation that begins it; a step is not.
    part = slice(1, batch.burn_in + 1)
    happened[:, : batch.burn_in] = ~batch.is_first[:, part].take(rows, axis=0)
    return happened
