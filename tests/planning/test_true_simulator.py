"""With the true simulator as their model, planners solve what it simulates.

The tasks are those of `runs/bench/planners.py`, in small.
"""

import gymnasium as gym
import numpy as np
import pytest
import torch
from bench_scripts import bench_fixture

from rlkit.planning import CEM, ICEM, MPPI

SEARCHES = (CEM, ICEM, MPPI)


bench = bench_fixture("planners")


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEARCHES)
def test_point_maze_u_is_solved(bench, kind):
    reached = bench.run_maze(kind(samples=200, elites=7, **bench.MAZE), episodes=30)
    assert None not in reached
    assert np.mean(reached) < 25


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEARCHES)
def test_pendulums_swing_up(bench, kind):
    returns = bench.run_pendulum(kind(samples=200, elites=7, **bench.PENDULUM), episodes=6)
    assert np.mean(returns) > -200


@pytest.mark.slow
def test_the_same_seed_gives_the_same_episodes(bench):
    planner = ICEM(samples=60, elites=5, **bench.MAZE)
    assert bench.run_maze(planner, 5) == bench.run_maze(planner, 5)


def test_the_pendulum_of_the_script_is_gymnasiums(bench):
    env = gym.make("Pendulum-v1").unwrapped
    rng = np.random.default_rng(0)
    for seed in range(5):
        env.reset(seed=seed)
        state = np.array(env.state)
        actions = torch.from_numpy(rng.uniform(-1, 1, (1, 1, 30, 1)).astype(np.float32))
        score = bench.pendulum_returns(state[:1], state[1:])(actions).item()
        total = sum(env.step(2 * action.numpy())[1] for action in actions[0, 0])
        assert score == pytest.approx(float(total), rel=1e-5)


def test_the_maze_of_the_script_is_the_environment(bench):
    env = gym.make_vec("rlkit/PointMaze-U-v0", num_envs=3)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    actions = torch.from_numpy(rng.uniform(-1, 1, (3, 1, 20, 2)).astype(np.float32))
    scores = bench.goal_returns(env.simulation, env.get_state()["simulation"])(actions)
    total = sum(env.step(actions[:, 0, t].numpy())[1] for t in range(20))
    assert np.array_equal(scores[:, 0], total)


def test_the_interval_is_wilsons(bench):
    assert bench.wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-3)
    assert bench.wilson(45, 50) == pytest.approx((0.7864, 0.9565), abs=1e-3)
