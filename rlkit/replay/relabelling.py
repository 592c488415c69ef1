"""Hindsight: windows relabelled with goals that were not pursued when they were collected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rlkit.goals.rule import FurtherTerms, GoalRule
from rlkit.names import nearest
from rlkit.replay.batch import Array, Batch
from rlkit.replay.goal_weights import GoalWeights
from rlkit.replay.storage import EpisodeStorage, Positions

Strategy = Literal["future", "final", "episode", "random", "generated", "desired", "original"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
EPISODE, FINAL = STRATEGIES.index("episode"), STRATEGIES.index("final")
RANDOM, GENERATED = STRATEGIES.index("random"), STRATEGIES.index("generated")
DESIRED, ORIGINAL = STRATEGIES.index("desired"), STRATEGIES.index("original")
UNKNOWN = -1  # the position of a goal that was not achieved later in the episode

ProposeGoals = Callable[[Array, np.random.Generator], Array]
"""Maps the goals that would be pursued otherwise, `(N, *goal)`, and the source of randomness to
goals that need not have been achieved; see `rlkit.goals.generators.GoalGenerator.propose`."""
StepIndex = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Rows and columns of steps in `(B, T)`."""


def mixture(weights: Mapping[str, float] | str, original: float = 0.2) -> dict[Strategy, float]:
    """A normalised mixture of strategies.

    Args:
        weights: Weight of each strategy, or the name of one.
        original: The share of goals that stay as they are where `weights` is a name. 0.2 is the HER
            paper's k = 4 (Andrychowicz et al. 2017, section 4.5).

    Raises:
        ValueError: If a strategy is unknown, or the weights are negative or all zero.
    """
    if isinstance(weights, str):
        rest = {} if weights == "original" else {"original": original}
        weights = {weights: 1.0 - sum(rest.values()), **rest}
    for name, weight in weights.items():
        if name not in STRATEGIES:
            raise ValueError(f"unknown hindsight strategy {name!r}. {nearest(name, STRATEGIES)}")
        if not (np.isfinite(weight) and weight >= 0):
            raise ValueError(f"the weight of {name!r} must be finite and >= 0, got {weight}")
    total = sum(weights.values())
    if total <= 0:
        raise ValueError(f"hindsight needs at least one positive weight, got {dict(weights)}")
    return {name: weights.get(name, 0.0) / total for name in STRATEGIES}


def choose_positions(
    strategy: NDArray[np.int64],
    position: Positions,
    first: Positions,
    last: Positions,
    rng: np.random.Generator,
) -> Positions:
    """Observation positions, inside the same episode, whose achieved goals become desired.

    Source: Andrychowicz et al. 2017, section 4.5. "future" includes the step itself: the goal may
    be what this very action achieves, as in Stable-Baselines3.

    Args:
        strategy: Index into `STRATEGIES` per row, `(B,)`; rows of "random", "generated",
            "desired" and "original" get a position as "future" does, which the caller replaces.
        position: Position of the step, `(B,)`.
        first: First observation position of its episode, `(B,)`.
        last: Last one, `(B,)`; greater than `position`.
        rng: The source of randomness.
    """
    low = np.where(strategy == EPISODE, first + 1, position + 1)
    low = np.where(strategy == FINAL, last, low)
    return rng.integers(low, last + 1)


@dataclass(frozen=True)
class DrawnGoals:
    """Goals drawn for R of N steps; the others keep theirs.

    Attributes:
        rows: Which of the N steps get a goal, `(R,)`, ascending.
        goal: Their goals, `(R, *goal)`.
        reached: Positions in the steps' own episodes where the goals were achieved, `(R,)`;
            `UNKNOWN` for goals from elsewhere.
    """

    rows: NDArray[np.int64]
    goal: Array
    reached: Positions

    def of(self, steps: NDArray[np.int64], count: int) -> DrawnGoals:
        """The goals of some of the `count` steps, given by their ascending numbers."""
        place = np.full(count, UNKNOWN)
        place[steps] = np.arange(len(steps))
        rows = place.take(self.rows)
        kept = np.flatnonzero(rows != UNKNOWN)
        return DrawnGoals(rows[kept], self.goal.take(kept, axis=0), self.reached[kept])


def draw_goals(
    env: NDArray[np.int64],
    position: Positions,
    storage: EpisodeStorage,
    weights: dict[Strategy, float],
    rng: np.random.Generator,
    propose_goals: ProposeGoals | None = None,
) -> DrawnGoals:
    """Draws goals for steps by a mixture of strategies. The storage is only read.

    "desired" takes the goal that a stored step pursues, drawn uniformly from all of them: mostly
    that of another episode, which this one need not come near. Such goals are examples of failure,
    of which "future" alone has none.

    Args:
        env: Environments of the steps, `(N,)`.
        position: Their positions, `(N,)`.
        storage: Where other goals are found.
        weights: The mixture, by `mixture`.
        rng: The source of randomness.
        propose_goals: Proposes the goals of "generated".
    """
    shares = np.cumsum([weights[name] for name in STRATEGIES[:ORIGINAL]])
    strategy = np.searchsorted(shares, rng.random(len(env)), side="right")
    rows = np.flatnonzero(strategy != ORIGINAL)
    strategy, env, position = strategy[rows], env[rows], position[rows]
    if len(rows) == 0:
        return DrawnGoals(rows, storage.achieved(rows), rows)
    first, last = storage.episode_bounds(env, position)
    reached = choose_positions(strategy, position, first, last, rng)
    slot = storage.flat(env, reached)
    anywhere = strategy == RANDOM
    if anywhere.any():
        other_env, other = storage.sample_steps(int(anywhere.sum()), rng)
        slot[anywhere] = storage.flat(other_env, other + 1)
    goal = storage.achieved(slot)
    generated = strategy == GENERATED
    if propose_goals is not None and generated.any():
        goal[generated] = propose_goals(goal[generated], rng)
    asked = strategy == DESIRED
    if asked.any():
        assert storage.goals is not None
        pursuing = storage.flat(*storage.sample_steps(int(asked.sum()), rng))
        goal[asked] = storage.goals.take(storage.goal_id.take(pursuing))
    reached[anywhere | generated | asked] = UNKNOWN
    return DrawnGoals(rows, goal, reached)


def relabel(
    batch: Batch,
    drawn: DrawnGoals,
    rule: GoalRule,
    goal_weights: GoalWeights | None = None,
    steps_to_goal: bool = False,
) -> Batch:
    """Gives windows the goals that were drawn for their first steps after the burn-in.

    A goal holds for the whole window, burn-in included. Without drawn goals the windows stay as
    they are.

    Args:
        batch: B windows.
        drawn: Goals of their steps.
        rule: Computes rewards and terminations of the new goals.
        goal_weights: Weighs the relabelled steps, as `weight`; None leaves that out.
        steps_to_goal: Whether to add the steps until a new goal was achieved.
    """
    rows, length = drawn.rows, batch.mask.shape[1]
    goal = np.repeat(drawn.goal[:, None], length, axis=1)
    changed = with_goals(batch, rows, goal, rule) if len(rows) else batch
    if goal_weights is None and not steps_to_goal:
        return changed
    before = batch.observation["achieved_goal"][:, :length].take(rows, axis=0)
    flat = before.reshape(-1, *goal.shape[2:]), goal.reshape(-1, *goal.shape[2:])
    if goal_weights is not None:
        weight = np.ones(batch.mask.shape, np.float32)
        if len(rows):
            weight[rows] = goal_weights.weigh(rule, *flat).reshape(goal.shape[:2])
        changed = changed.replace(weight=weight)
    if steps_to_goal:
        ahead = np.zeros(batch.mask.shape, np.int32)
        if len(rows):
            step = batch.position[rows, None] + np.arange(length) - batch.burn_in
            steps = np.where(
                rule.success(*flat).reshape(step.shape), 0, drawn.reached[:, None] - step
            )
            ahead[rows] = np.where(changed.relabelled[rows], steps.clip(0), 0)
        changed = changed.replace(steps_to_goal=ahead)
    return changed


def with_goals(batch: Batch, rows: NDArray[np.int64], goal: Array, rule: GoalRule) -> Batch:
    """Replaces the goals of some windows, and with them rewards and terminations.

    A recorded termination that the old goal does not explain (a fall, say) stays; one that it
    explains goes, and the new goal's own termination is added. Likewise a `FurtherTerms` rule keeps
    what the reward holds beyond the old goal's part. Steps after a termination did not
    happen under the new goal, so they are masked.

    Args:
        batch: B windows.
        rows: The R windows to change.
        goal: Their goals per step, `(R, T, *goal)`.
        rule: Computes rewards and terminations of the new goals.
    """
    assert batch.desired_goal is not None
    achieved = batch.observation["achieved_goal"][:, 1:].take(rows, axis=0)
    shape, goal_shape = goal.shape[:2], batch.desired_goal.shape[2:]
    flat_achieved = achieved.reshape(-1, *goal_shape)
    flat_goal = goal.reshape(-1, *goal_shape)
    valid, ended = _valid_steps(batch, rows), batch.terminated.take(rows, axis=0)
    if ended.any():
        original = batch.desired_goal.take(rows, axis=0).reshape(-1, *goal_shape)
        ended &= ~rule.terminated(flat_achieved, original).reshape(shape)
    ended |= rule.terminated(flat_achieved, flat_goal).reshape(shape) & valid
    earned = rule.reward(flat_achieved, flat_goal).reshape(shape)
    if isinstance(rule, FurtherTerms):
        pursued = batch.desired_goal.take(rows, axis=0).reshape(-1, *goal_shape)
        of_goal = rule.reward(flat_achieved, pursued).reshape(shape)
        earned = earned + (batch.reward.take(rows, axis=0) - of_goal)

    desired, reward = batch.desired_goal.copy(), batch.reward.copy()
    terminated, relabelled = batch.terminated.copy(), batch.relabelled.copy()
    desired[rows], terminated[rows], relabelled[rows] = goal, ended, valid
    # Padding before an episode's start has no reward to replace.
    reward[rows] = np.where(valid, earned, reward[rows]) if batch.burn_in else earned
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
    first_achieved = batch.observation["achieved_goal"][rows, 0]
    first_reward = rule.reward(first_achieved, goal[:, 0])[:, None]
    is_first = batch.is_first.take(rows, axis=0)
    previous[rows] = np.where(is_first, 0.0, np.concatenate([first_reward, earned], axis=1))
    return changed.replace(previous_reward=previous)


def recompute_rewards(batch: Batch, rule: GoalRule) -> Batch:
    """The windows with their own goals, and the rewards and terminations that a rule gives now."""
    assert batch.desired_goal is not None
    changed = with_goals(batch, np.arange(len(batch)), batch.desired_goal, rule)
    return changed.replace(relabelled=batch.relabelled)


def _valid_steps(batch: Batch, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Steps that are no padding, `(R, T)`, of windows with their original goals."""
    valid = batch.mask.take(rows, axis=0)
    if batch.burn_in == 0:
        return valid
    # In the burn-in, padding is followed by an episode's first observation; a step never is.
    part = slice(1, batch.burn_in + 1)
    valid[:, : batch.burn_in] = ~batch.is_first[:, part].take(rows, axis=0)
    return valid


def split_steps(batch: Batch, steps: int) -> tuple[Batch, StepIndex]:
    """Every step that counts as a window of its own, with what its n-step sum needs.

    Of the observations only the achieved goal is included.

    Args:
        batch: B windows of T + steps - 1 records.
        steps: n of the n-step sums.

    Returns:
        Windows of n records, and the index in `(B, T)` of their first records.
    """
    width = batch.mask.shape[1]
    rows, columns = np.nonzero(batch.mask[:, : width - steps + 1])
    step = (rows * width + columns)[:, None] + np.arange(steps)
    observed = (rows * (width + 1) + columns)[:, None] + np.arange(steps + 1)
    achieved = batch.observation["achieved_goal"]
    goal = batch.desired_goal
    assert goal is not None
    single = Batch(
        observation={
            "achieved_goal": achieved.reshape(-1, *achieved.shape[2:]).take(observed, axis=0)
        },
        desired_goal=goal.reshape(-1, *goal.shape[2:]).take(step, axis=0),
        action=batch.action.reshape(-1, *batch.action.shape[2:]).take(step, axis=0),
        reward=batch.reward.take(step),
        terminated=batch.terminated.take(step),
        truncated=batch.truncated.take(step),
        is_first=batch.is_first.take(observed),
        mask=batch.mask.take(step),
        relabelled=batch.relabelled.take(step),
        env=batch.env.take(rows),
        position=batch.position.take(rows) + columns - batch.burn_in,
    )
    return single, (rows, columns)


def join_steps(batch: Batch, single: Batch, index: StepIndex) -> Batch:
    """The windows with the goals, rewards and terminations of their relabelled steps.

    Args:
        batch: The B windows, summed over n steps; steps that do not count stay as they are.
        single: Their steps as windows of one record, summed over n steps.
        index: Where these belong in `(B, T)`.
    """
    changed = {}
    for name in ("desired_goal", "reward", "terminated", "relabelled", "discount"):
        changed[name] = getattr(batch, name).copy()
        changed[name][index] = getattr(single, name)[:, 0]
    for name, rest in (("weight", 1), ("steps_to_goal", 0)):
        part = getattr(single, name)
        if part is not None:
            changed[name] = np.full(batch.mask.shape, rest, part.dtype)
            changed[name][index] = part[:, 0]
    assert batch.bootstrap is not None
    assert single.bootstrap is not None
    bootstrap = batch.bootstrap.copy()
    bootstrap[index] = single.bootstrap[:, 0] + index[1]
    return batch.replace(bootstrap=bootstrap, **changed)
