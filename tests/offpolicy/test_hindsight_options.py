"""Weights of relabelled goals as options of agents, and the shares that are logged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rlkit.envs  # noqa: F401 registers the environments
from rlkit.agents import SAC
from rlkit.goals import DistanceRule
from rlkit.offpolicy.metrics import TrainingMetrics
from rlkit.replay import Batch

HINDSIGHT = {"future": 0.6, "desired": 0.2, "original": 0.2}
WEIGHTS = {"already_achieved_weight": 0.05, "out_of_range_weight": 0.05}


class Records(dict[str, float]):
    """A logger that keeps what is recorded."""

    def record(self, name: str, value: float) -> None:
        self[name] = value


def agent_of(weights: dict[str, Any], **options: Any) -> SAC:
    agent = SAC(
        "MultiInputPolicy",
        "rlkit/PointMaze-U-v0",
        learning_starts=60,
        replay={"hindsight": HINDSIGHT, **weights},
        net_arch=[16],
        batch_size=32,
        seed=0,
        **options,
    )
    return agent.learn(70)


def already_achieved(agent: SAC) -> float:
    """The share that is logged of one large batch."""
    agent.metrics = TrainingMetrics()
    agent.metrics.add_batch(agent.replay_buffer.sample(400), agent.replay_buffer.rule)
    agent.metrics.write(logger := Records())  # type: ignore[arg-type]
    return logger["hindsight/already_achieved"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"encoder": "gru", "window": 4, "burn_in": 2}])
def test_weights_are_options_of_agents(options: Any, tmp_path: Any) -> None:
    plain, weighted = (agent_of(weights, **options) for weights in ({}, WEIGHTS))
    assert already_achieved(weighted) < 0.5 * already_achieved(plain)
    weighted.save(tmp_path / "agent.zip")
    loaded = SAC.load(tmp_path / "agent.zip", weighted.env)
    assert loaded.replay_buffer.goal_weights.already_achieved == 0.05
    batch = weighted.replay_buffer.sample(32)
    mask = weighted.adapter.batch(batch)["mask"]
    np.testing.assert_array_equal(mask, batch.loss_weight())
    assert mask.dtype == np.float32
    assert (np.unique(mask) > 0).any()
    assert (options == {}) == (set(np.unique(mask)) == {1.0})


def test_the_share_is_that_of_relabelled_rows_by_their_weight() -> None:
    # Four windows of two records; goals 0, achieved 0 before the first action of windows 0 and 2.
    achieved = np.array([[0, 1, 0], [5, 0, 5], [0, 5, 5], [5, 5, 5]], np.float64)[..., None]
    flags = np.ones((4, 2), np.bool_)
    relabelled, mask = flags.copy(), flags.copy()
    relabelled[2], mask[3, 1] = False, False
    batch = Batch(
        observation={"achieved_goal": achieved},
        desired_goal=np.zeros((4, 2, 1)),
        action=np.zeros((4, 2)),
        reward=np.zeros((4, 2), np.float32),
        terminated=~flags,
        truncated=~flags,
        is_first=np.zeros((4, 3), np.bool_),
        mask=mask,
        relabelled=relabelled,
        env=np.zeros(4, np.int64),
        position=np.zeros(4, np.int64),
    )
    weight = np.array([[0.1, 1], [1, 0.5], [1, 1], [1, 1]], np.float32)
    for given, expected in ((None, 2 / 5), (weight, 0.6 / 3.6)):
        metrics = TrainingMetrics()
        metrics.add_batch(batch.replace(weight=given), DistanceRule(0.5))
        other = TrainingMetrics()
        other.load_state_dict(metrics.state_dict())
        other.write(logger := Records())  # type: ignore[arg-type]
        assert logger["hindsight/already_achieved"] == pytest.approx(expected)
