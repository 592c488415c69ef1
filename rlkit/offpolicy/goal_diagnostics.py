"""Values of stored steps against the steps that were left to the goal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.goals import GoalRule
from rlkit.networks.gradient import State
from rlkit.replay.batch import Batch, sum_steps
from rlkit.replay.relabelling import with_goals
from rlkit.replay.storage import EpisodeStorage, Positions, read_sequences

if TYPE_CHECKING:
    from rlkit.offpolicy.algorithm import Algorithm

DISTANCES = (1, 2, 3, 5, 8, 12, 20, 30, 45)  # steps
MOMENTS = 256  # stored steps per distance
FEWEST = 8  # steps for a mean


@runtime_checkable
class HasValues(Protocol):
    """A learner with critics.

    Attributes:
        generator: Source of its random numbers, such as those of dropout.
    """

    generator: torch.Generator

    def prepare(self, batch: dict[str, NDArray[Any]]) -> State:
        """The tensors that networks read of a batch."""

    def values(self, batch: State) -> Tensor:
        """The policy's value at every step of a prepared batch, `(R,)`."""


@dataclass(frozen=True)
class ValueCurve:
    """Values and returns of hindsight goals.

    Attributes:
        steps: Steps until the goal was achieved in the stored episode, `(K,)`.
        value: The critics' values of the policy, `(K, 3)`: mean, 10 % and 90 % quantiles.
        achieved: Mean discounted return of the stored steps up to the goal, `(K,)`; a policy that
            reaches it no later has at least this value, unless the goal is left again.
    """

    steps: NDArray[np.int64]
    value: NDArray[np.float64]
    achieved: NDArray[np.float64]

    def scalars(self) -> dict[str, float]:
        """The means as metrics, by distance."""
        return {
            f"value/steps_to_goal_{steps:02d}": float(value)
            for steps, value in zip(self.steps, self.value[:, 0], strict=True)
        }


@torch.no_grad()
def value_curve(agent: Algorithm) -> ValueCurve | None:
    """Values of stored steps for goals that were achieved a number of steps later.

    A critic that has learned a task values steps near their goal more than steps far away. Where
    the curve is flat, the policy has no gradient to follow. Goals that are already achieved at the
    step are left out. Neither the agent nor any of its generators is changed.

    Returns:
        None without goals, without critics, or as long as too few steps are stored.
    """
    learner, replay = agent.learner, agent.replay_buffer
    rule, storage = replay.rule, replay.storage
    if rule is None or not isinstance(learner, HasValues) or len(storage) == 0:
        return None
    before = learner.generator.get_state()
    rows = _rows(agent, learner, rule)
    learner.generator.set_state(before)
    if not rows:
        return None
    steps, value, achieved = (np.array(column) for column in zip(*rows, strict=True))
    return ValueCurve(steps, value, achieved)


def _rows(
    agent: Algorithm, learner: HasValues, rule: GoalRule
) -> list[tuple[int, tuple[float, ...], float]]:
    """By distance: the statistics of its values, and the mean return."""
    storage = agent.replay_buffer.storage
    rng = np.random.default_rng(agent._n_updates)
    rows = []
    for distance in DISTANCES:
        env, step = _far_enough(storage, distance, rng)
        if len(env) < FEWEST:
            continue
        goal = storage.achieved(storage.flat(env, step + distance))
        far = ~rule.success(storage.achieved(storage.flat(env, step)), goal)
        if far.sum() < FEWEST:
            continue
        env, step, goal = env[far], step[far], goal[far]
        batch = relabelled(agent, env, step, goal, rule)
        values = learner.values(learner.prepare(agent.adapter.batch(batch)))
        q = values.double().cpu().numpy()
        returns = _returns(storage, env, step, goal, distance, rule, agent.replay_buffer.gamma)
        rows.append((distance, (q.mean(), *np.quantile(q, (0.1, 0.9))), returns.mean()))
    return rows


def goal_moved(agent: Algorithm, env: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the achieved goal changed in the newest episodes of environments, `(n,)`.

    It did where what is achieved at the end does not count as what was achieved at the start.
    """
    storage, rule = agent.replay_buffer.storage, agent.replay_buffer.rule
    assert rule is not None
    last = storage.cursor[env] - 1
    first, _ = storage.episode_bounds(env, last)
    end, start = (storage.achieved(storage.flat(env, position)) for position in (last, first))
    return ~rule.success(end, start)


def _far_enough(
    storage: EpisodeStorage, distance: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Positions]:
    """Stored steps whose episodes go on for a number of steps."""
    env, step = storage.sample_steps(MOMENTS, rng)
    _, last = storage.episode_bounds(env, step)
    enough = step + distance <= last
    return env[enough], step[enough]


def relabelled(
    agent: Algorithm,
    env: NDArray[np.int64],
    step: Positions,
    goal: NDArray[np.generic],
    rule: GoalRule,
) -> Batch:
    """Windows of one step, with the burn-in of training, for the given goals `(N, *goal)`."""
    replay = agent.replay_buffer
    if replay.reads_sequences:
        bounds = replay.storage.episode_bounds(env, step)
        batch = read_sequences(
            replay.storage, env, step, bounds, 1, burn_in=replay.burn_in, **replay.inputs
        )
    else:
        batch = replay.storage.window(env, step, 1)
    wide = np.repeat(goal[:, None], batch.mask.shape[1], axis=1)
    return sum_steps(with_goals(batch, np.arange(len(env)), wide, rule), replay.gamma, 1)


def _returns(
    storage: EpisodeStorage,
    env: NDArray[np.int64],
    step: Positions,
    goal: NDArray[np.generic],
    distance: int,
    rule: GoalRule,
    gamma: float,
) -> NDArray[np.float64]:
    """Discounted returns `(N,)` of the stored steps until the goal was achieved."""
    after = storage.flat(env[:, None], step[:, None] + 1 + np.arange(distance))
    achieved = storage.achieved(after.reshape(-1))
    reward = rule.reward(achieved, np.repeat(goal, distance, axis=0)).reshape(-1, distance)
    return np.asarray(reward @ gamma ** np.arange(distance), np.float64)
