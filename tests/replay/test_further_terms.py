"""Rewards with terms beside the goal's: hindsight relabels the goal's part and keeps the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from batches import EVERY, any_world, check_equal, step_windows
from defective_envs import Line
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import GOALS

from rlkit.agents import SAC
from rlkit.goals import DistanceRule, FurtherTerms, return_bounds
from rlkit.goals.check import check_env
from rlkit.replay import ReplayBuffer
from rlkit.replay.relabelling import draw_goals, mixture, relabel, with_goals


class Costly(Line):
    """A reward that charges for actions as well."""

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, reward - 0.25 * float(np.square(action).sum()), *rest


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(any_world(GOALS, new_goal=st.just(0.0)), st.integers(1, 60), st.sampled_from(EVERY))
def test_the_rest_of_every_reward_stays(world: Any, steps: int, strategy: str) -> None:
    world.play(steps)
    before, rng = step_windows(world, length=3), np.random.default_rng(steps)
    rest = rng.normal(size=before.reward.shape)
    paid = before.replace(reward=before.reward + rest)
    storage, weights = world.replay.storage, mixture({strategy: 1.0})
    drawn = draw_goals(before.env, before.position, storage, weights, np.random.default_rng(0))
    after = [
        relabel(batch, drawn, rule)
        for batch, rule in ((before, world.rule), (paid, FurtherTerms(world.rule)))
    ]
    check_equal(*after, skip=("reward",))
    valid = before.mask
    np.testing.assert_allclose(after[1].reward[valid], (after[0].reward + rest)[valid], atol=1e-5)
    rows = np.arange(len(before))
    kept = with_goals(paid, rows, before.desired_goal, FurtherTerms(world.rule))
    np.testing.assert_allclose(kept.reward[valid], paid.reward[valid], atol=1e-5)


@pytest.mark.parametrize("keeps", [True, False])
def test_an_agent_learns_from_the_reward_that_another_goal_would_have_given(keeps: bool) -> None:
    options = {"hindsight": {"future": 1.0}, "further_terms": keeps}
    agent = SAC("MultiInputPolicy", Costly(), learning_starts=100, replay=options, seed=0)
    agent.learn(120)
    batch = agent.replay_buffer.sample(200)
    assert batch.relabelled.all()
    achieved, goal = batch.observation["achieved_goal"][:, 1], batch.desired_goal[:, 0]
    expected = DistanceRule(0.3, terminates=True).reward(achieved, goal)
    if keeps:
        expected = expected - 0.25 * np.square(batch.action[:, 0]).sum(axis=-1)
    np.testing.assert_allclose(batch.reward[:, 0], expected, atol=1e-5)
    bounds = return_bounds(agent.replay_buffer.rule, agent.config.gamma)
    assert (bounds is None) == keeps


def test_the_check_names_the_option_and_is_content_with_it() -> None:
    (found,) = [one for one in check_env(Costly) if one.law == "reward"]
    assert found.level == "warning"
    assert "agent_options.replay.further_terms=true" in found.message

    class Declared(Costly):
        def __init__(self) -> None:
            super().__init__()
            self.rule = FurtherTerms(self.rule)

    assert {one.level for one in check_env(Declared)} <= {"note"}


def test_encoders_cannot_read_rewards_with_further_terms() -> None:
    space = Line().observation_space
    action = spaces.Box(-1.0, 1.0, (2,), np.float32)
    with pytest.raises(ValueError, match="previous_reward does not go with further_terms"):
        ReplayBuffer(space, action, 100, rule=FurtherTerms(DistanceRule(0.3)), previous_reward=True)
