"""The steps until relabelled goals were achieved, by goals that equal their time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from batches import check_equal
from naive import World

from rlkit.goals import DistanceRule

ELSEWHERE = {"random": 1.0, "desired": 1.0, "original": 1.0}


def timed(threshold: float = 0.5, **options: Any) -> World:
    """A world whose achieved goals equal their time and whose desired ones are negative."""
    world = World("box", 2, 120, end=0.1, steps_to_goal=True)
    world.rule = DistanceRule(threshold)
    world.replay = world.new_replay(**options)
    world.play(50)
    storage = world.replay.storage
    times = storage.observation["observation"][:, 2]
    storage.columns["achieved_goal"].array[:] = times[:, None]
    return world


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("window", [1, 4, None])
@pytest.mark.parametrize("goals", ["step", "window"])
@pytest.mark.parametrize("strategy", ["future", "final", "episode"])
def test_it_is_the_time_of_the_goal_less_that_of_the_step(
    strategy: str, goals: str, window: int | None, steps: int
) -> None:
    world = timed(
        window=window,
        goals=goals,
        steps=steps,
        burn_in=2 * (window == 4),
        hindsight={strategy: 1.0},
    )
    batch = world.replay.sample(60)
    now = batch.observation["observation"][:, : batch.mask.shape[1], 2]
    expected = np.maximum(batch.desired_goal[..., 0] - now, 0)  # type: ignore[index]
    assert batch.steps_to_goal is not None
    assert batch.steps_to_goal.dtype == np.int32
    np.testing.assert_array_equal(batch.steps_to_goal[batch.mask], expected[batch.mask])
    assert batch.steps_to_goal.max() > 1


def test_it_is_0_where_the_goal_is_achieved_before_the_action() -> None:
    batch = timed(threshold=1.5, hindsight={"future": 1.0}).replay.sample(200)
    assert batch.steps_to_goal is not None
    ahead = batch.desired_goal[:, 0, 0] - batch.observation["observation"][:, 0, 2]  # type: ignore[index]
    np.testing.assert_array_equal(batch.steps_to_goal[:, 0], np.where(ahead == 1, 0, ahead))
    assert (ahead == 1).any()


@pytest.mark.parametrize("strategy", ELSEWHERE)
@pytest.mark.parametrize("window", [1, 4])
def test_it_is_0_for_goals_from_elsewhere(strategy: str, window: int) -> None:
    batch = timed(hindsight={strategy: 1.0}, window=window).replay.sample(100)
    assert batch.steps_to_goal is not None
    assert batch.steps_to_goal.shape == (100, window)
    assert not batch.steps_to_goal.any()


@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_it_follows_the_rows_that_weights_choose(weight: float) -> None:
    world = timed(
        hindsight={"future": 1.0, **ELSEWHERE}, already_achieved_weight=weight, threshold=1.5
    )
    batch = world.replay.sample(300)
    now, goal = batch.observation["observation"][:, 0, 2], batch.desired_goal[:, 0, 0]  # type: ignore[index]
    assert batch.steps_to_goal is not None
    known = batch.steps_to_goal[:, 0] > 0
    np.testing.assert_array_equal(batch.steps_to_goal[known, 0], (goal - now)[known])
    assert (batch.relabelled[known]).all()


def test_it_is_left_out_unless_requested_and_changes_nothing_else() -> None:
    world = World("box", steps_to_goal=True)
    plain = world.new_replay(steps_to_goal=False)
    world.play(40, plain)
    one, two = world.replay.sample(50), plain.sample(50)
    assert two.steps_to_goal is None
    check_equal(one, two, skip=("steps_to_goal",))
