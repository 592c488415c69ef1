"""Scores of sequences of actions in imagination, against a loop over single steps."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from imagined import Drift

from rlkit.goals import DistanceRule
from rlkit.planning import ImaginedProblem, PlanningObjective, PlanningProblem
from rlkit.world import Ensemble, Layout, World

E, N, H = 3, 4, 6


@dataclass(frozen=True)
class Opposite:
    """A rule of its own: to be at minus the goal, which ends the episode."""

    reward_range = (-2.0, 5.0)

    def reward(self, achieved, desired):
        return np.where(self.success(achieved, desired), 5.0, -2.0)

    def success(self, achieved, desired):
        return np.abs(achieved + desired).max(1) < 0.2

    terminated = success


def rollouts(rule=None, goal=None, particles=1, noise=0.0, start=None, **objective):
    with_goals = goal is not None
    layout = Layout(2, 2, (0, 1) if with_goals else (), () if with_goals else RULED)
    generator = torch.Generator().manual_seed(0)
    world = World(Drift(noise), layout, generator)
    start = torch.zeros(E, 2) if start is None else start
    settings = {"gamma": 0.9, "shaping": 0.0, "uncertainty_penalty": 0.0, **objective}
    return ImaginedProblem(
        world, (start,), PlanningObjective(rule, goal, **settings), particles, generator
    )


RULED = ("reward", "terminated")
ACTIONS = 4 * torch.rand(E, N, H, 2, generator=torch.Generator().manual_seed(3)) - 1
GOAL = np.array([[-0.3, -0.3], [-0.15, -0.15], [0.3, 0.3]], np.float32)


def by_hand(rule, shaping, gamma=0.9):
    """Scores, rewards and whether the goal was reached, one sequence and step at a time."""
    scores = np.zeros((E, N))
    rewards, reached = np.zeros((E, N, H)), np.zeros((E, N, H))
    for e in range(E):
        for n in range(N):
            x, over = np.zeros(2, np.float32), False
            for t in range(H):
                x = x + np.float32(0.1) * ACTIONS[e, n, t].numpy()
                reached[e, n, t] = over or rule.success(x[None], GOAL[e][None])[0]
                if over:
                    continue
                rewards[e, n, t] = rule.reward(x[None], GOAL[e][None])[0]
                distance = np.linalg.norm(x - GOAL[e])
                scores[e, n] += gamma**t * (rewards[e, n, t] - shaping * distance)
                over = rule.terminated(x[None], GOAL[e][None])[0]
    return scores, rewards, reached


@pytest.mark.parametrize("rule", [Opposite(), DistanceRule(0.3), DistanceRule(0.3, sparse=False)])
@pytest.mark.parametrize("shaping", [0.0, 0.7])
def test_goals_are_evaluated_by_the_rule_step_by_step(rule, shaping):
    found = rollouts(rule, GOAL, shaping=shaping)
    scores, rewards, reached = by_hand(rule, shaping)
    np.testing.assert_allclose(found.evaluate(ACTIONS), scores, rtol=1e-4, atol=1e-5)
    best = scores.argmax(1)
    predicted = found.predicted
    np.testing.assert_allclose(predicted.reward, rewards[range(E), best], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(predicted.success, reached[range(E), best])


def test_the_planted_rule_ends_episodes():
    *_, reached = by_hand(Opposite(), 0.0)
    assert 0.1 < reached.mean() < 0.9


def test_learned_rewards_count_until_a_termination():
    scores = rollouts().evaluate(ACTIONS)
    x = 0.1 * ACTIONS[..., 0].cumsum(2)
    over = torch.cat([torch.zeros(E, N, 1), (x > 0.35).float().cumsum(2)[..., :-1]], 2) > 0
    assert 0.1 < over.float().mean() < 0.9
    expected = (torch.where(over, 0.0, -x) * 0.9 ** torch.arange(H)).sum(2)
    torch.testing.assert_close(scores, expected)


def test_what_differs_between_futures_is_penalised():
    noisy = {"particles": 64, "noise": 0.5, "start": torch.full((E, 2), -9.0)}
    plain, careful = rollouts(**noisy), rollouts(**noisy, uncertainty_penalty=2.0)
    off = plain.evaluate(ACTIONS) - careful.evaluate(ACTIONS)
    expected = 2 * 0.5 * (0.81 ** torch.arange(H)).sum().sqrt()
    torch.testing.assert_close(off.mean(), expected, rtol=0.05, atol=0)
    torch.testing.assert_close(plain.predicted.uncertainty * 2, off[range(E), plain_best(plain)])


def plain_best(found):
    again = rollouts(particles=64, noise=0.5, start=torch.full((E, 2), -9.0))
    assert torch.equal(again.evaluate(ACTIONS).amax(1), found._best["top"])
    return (
        rollouts(particles=64, noise=0.5, start=torch.full((E, 2), -9.0))
        .evaluate(ACTIONS)
        .argmax(1)
    )


def test_a_roll_out_that_is_not_finite_drops_its_sequence():
    start = torch.zeros(E, 2)
    start[1] = torch.nan
    actions = ACTIONS.clone()
    actions[0, 2, -1, 0] = torch.inf
    scores = rollouts(Opposite(), GOAL, start=start).evaluate(actions)
    expected = torch.ones(E, N, dtype=torch.bool)
    expected[1], expected[0, 2] = False, False
    assert torch.equal(scores.isfinite(), expected)


def test_the_predicted_outcome_is_the_best_of_all_populations():
    found = rollouts(DistanceRule(0.3, sparse=False), GOAL)
    first, second = found.evaluate(ACTIONS[:, :2]), found.evaluate(ACTIONS[:, 2:])
    scores, rewards, _ = by_hand(DistanceRule(0.3, sparse=False), 0.0)
    best = scores.argmax(1)
    assert {bool(i < 2) for i in best} == {True, False}, "the case says nothing otherwise"
    np.testing.assert_allclose(torch.cat([first, second], 1), scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.predicted.reward, rewards[range(E), best], rtol=1e-4)


def test_many_rows_are_imagined_in_parts(monkeypatch):
    whole = rollouts(Opposite(), GOAL, particles=2).evaluate(ACTIONS)
    monkeypatch.setattr("rlkit.planning.rollouts.ROWS", N * 2)
    torch.testing.assert_close(rollouts(Opposite(), GOAL, particles=2).evaluate(ACTIONS), whole)


def test_rewards_are_expectations_where_a_world_gives_them():
    """Of many sequences the luckiest would look best otherwise."""
    layout, generator = Layout(2, 2, (), RULED), torch.Generator().manual_seed(0)
    world = World(Ensemble(members=2, hidden=(8,)), layout, generator)
    start, objective = torch.zeros(E, 2), PlanningObjective(None, None, 1.0, 0.0, 0.0)

    def scores(seed, temperature):
        again = torch.Generator().manual_seed(seed)
        return ImaginedProblem(world, (start,), objective, 2, again, temperature).evaluate(
            ACTIONS[:, :, :1]
        )

    assert torch.equal(scores(1, 1.0), scores(1, 0.0))
    assert not torch.equal(
        ImaginedProblem(world, (start,), objective, 2, generator, 1.0).evaluate(ACTIONS),
        ImaginedProblem(world, (start,), objective, 2, generator, 1.0).evaluate(ACTIONS),
    )


def test_gradients_reach_actions_that_require_them():
    actions = ACTIONS.clone().requires_grad_()
    problem = rollouts(DistanceRule(0.1), GOAL, shaping=1.0)
    (found,) = torch.autograd.grad(problem.evaluate(actions).sum(), actions)
    assert found.isfinite().all()
    assert (found[:, :, 0] != 0).any()
    assert not problem.evaluate(ACTIONS).requires_grad


def test_a_value_function_counts_after_the_last_step_of_running_episodes():
    values = {}

    def value(x, hidden_state):
        values["x"] = x.view(E, N, 2)
        return torch.full((len(x),), 10.0)

    plain, valued = rollouts(Opposite(), GOAL), rollouts(Opposite(), GOAL)
    valued.value = value
    gain = valued.evaluate(ACTIONS) - plain.evaluate(ACTIONS)
    over = by_hand(Opposite(), 0.0)[2].any(2)
    np.testing.assert_allclose(gain, np.where(over, 0.0, 10 * 0.9**H), atol=1e-4)
    torch.testing.assert_close(values["x"], 0.1 * ACTIONS.sum(2))


def test_planners_of_other_kinds_find_what_they_need():
    """A planner that follows gradients, and one that expands single steps of the model."""
    problem = rollouts(DistanceRule(0.05), GOAL, shaping=1.0)
    actions = torch.zeros(E, 1, H, 2)
    for _ in range(60):
        actions.requires_grad_()
        (up,) = torch.autograd.grad(problem.evaluate(actions).sum(), actions)
        actions = (actions.detach() + 0.1 * up).clamp(-1, 1)
    assert (problem.evaluate(actions) > problem.evaluate(ACTIONS).amax(1, keepdim=True)).all()
    state, generator = problem.hidden_state, torch.Generator().manual_seed(0)
    for _ in range(3):
        step = torch.full((E, 1, 2), 0.5)
        state = problem.world.imagine(state, step, generator=generator).hidden_state
    torch.testing.assert_close(state[0], torch.full((E, 2), 0.15))
    assert isinstance(problem, PlanningProblem)
