from collections import deque

import gymnasium as gym
import numpy as np
import pytest

import rlkit.envs  # noqa: F401
from rlkit.envs.point_maze import MAZES, RADIUS, PointMaze, PointMazeSimulation

every_maze = pytest.mark.parametrize("maze", MAZES)


def state_at(simulation, positions, velocities, goal=(0.0, 0.0)):
    """Positions are measured from the maze's lower left corner."""
    centre = np.array(simulation.walls.shape[::-1]) / 2
    positions = np.atleast_2d(positions)
    return {
        "position": (positions - centre).astype(np.float32),
        "velocity": np.atleast_2d(velocities).astype(np.float32),
        "goal": np.broadcast_to(np.float32(goal), positions.shape),
    }


def pushed(simulation, state, action, steps):
    """The state after the same action at every step."""
    for _ in range(steps):
        state = simulation.step(state, np.array([action], np.float32))
    return state


def clearance(simulation, position):
    """Distance from each centre `(N, 2)` to the nearest wall cell, by brute force."""
    from_corner = position + np.array(simulation.walls.shape[::-1]) / 2
    cells = np.argwhere(simulation.walls)[:, ::-1]
    outside = np.abs(from_corner[:, None] - cells - 0.5) - 0.5
    return np.hypot(*np.maximum(outside, 0).transpose(2, 0, 1)).min(axis=1)


def route(walls, start, goal):
    """Cells of a shortest path, by breadth-first search."""
    came_from, queue = {start: None}, deque([start])
    while queue:
        x, y = cell = queue.popleft()
        for other in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            if not walls[other[1], other[0]] and other not in came_from:
                came_from[other] = cell
                queue.append(other)
    if goal is None:
        return came_from
    cells = [goal]
    while cells[-1] != start:
        cells.append(came_from[cells[-1]])
    return cells[::-1]


def longest_route(walls):
    free = [(int(x), int(y)) for y, x in np.argwhere(~walls)]
    assert all(len(route(walls, cell, None)) == len(free) for cell in free)
    ways = (route(walls, cell, other) for cell in free for other in free)
    return max(ways, key=len)


@every_maze
def test_walls_hold(maze):
    simulation = PointMazeSimulation(maze, "sparse", False)
    generator = np.random.default_rng(0)
    state = simulation.initial(generator.random((256, simulation.draws)))
    push = generator.uniform(-1, 1, (256, 2))
    for step in range(300):
        if step % 10 == 0:
            # Long pushes in one direction, some far out of range, drive discs into corners.
            push = generator.uniform(-1, 1, (256, 2)) * generator.choice([1, 50], (256, 1))
        before = state
        state = simulation.step(state, push.astype(np.float32))
        assert clearance(simulation, state["position"]).min() > RADIUS - 1e-5
        moved = np.hypot(*(state["position"] - before["position"]).T)
        assert moved.max() < 0.3


def test_every_position_and_speed_next_to_walls_is_resolved():
    simulation = PointMazeSimulation("Medium", "sparse", False)
    generator = np.random.default_rng(1)
    positions = generator.uniform(1, 7, (60000, 2))
    state = state_at(simulation, positions, generator.uniform(-2, 2, (60000, 2)))
    allowed = clearance(simulation, state["position"]) >= RADIUS
    state = {key: value[allowed] for key, value in state.items()}
    assert allowed.sum() > 10000
    after = simulation.step(state, np.zeros((allowed.sum(), 2), np.float32))
    assert clearance(simulation, after["position"]).min() > RADIUS - 1e-5


def test_a_wall_removes_only_the_speed_into_it():
    simulation = PointMazeSimulation("Open", "sparse", False)
    state = state_at(simulation, (5.75, 3.0), (1.5, 1.0))
    free = state_at(simulation, (3.0, 3.0), (1.5, 1.0))
    rest = np.zeros((1, 2), np.float32)
    for _ in range(3):
        state, free = simulation.step(state, rest), simulation.step(free, rest)
    assert state["position"][0, 0] == pytest.approx(6 - RADIUS - 3.5, abs=1e-6)
    assert state["velocity"][0, 0] == 0
    assert state["velocity"][0, 1] == free["velocity"][0, 1] > 0
    assert free["velocity"][0, 0] > 0


def test_a_disc_slides_around_a_corner():
    # In U the inner wall ends at the corner (3, 2); the disc starts below the wall, less than
    # half a radius from its end.
    simulation = PointMazeSimulation("U", "sparse", False)
    state = pushed(simulation, state_at(simulation, (3.08, 1.7), (0.0, 0.0)), (0, 1), 12)
    x, y = state["position"][0] + 2.5
    assert y > 2.5
    assert x >= 3 + RADIUS - 1e-5


def test_free_motion_follows_its_equation():
    simulation = PointMazeSimulation("Open", "sparse", False)
    state = pushed(simulation, state_at(simulation, (1.5, 3.5), (0.0, 0.0)), (1, 0), 15)
    # v = v_top (1 - q^n) with q = 1 - damping dt, summed over substeps of 0.05 s.
    speed = 2.0 * (1 - 0.85 ** np.arange(1, 31))
    assert state["velocity"][0, 0] == pytest.approx(speed[-1], rel=1e-5)
    assert state["position"][0, 0] == pytest.approx(-2.0 + 0.05 * speed.sum(), rel=1e-5)
    np.testing.assert_array_equal(state["position"][0, 1], np.float32(0))


def test_actions_are_clipped():
    simulation = PointMazeSimulation("Open", "sparse", False)
    state = state_at(simulation, [(3.5, 3.5)] * 2, np.zeros((2, 2)))
    after = simulation.step(state, np.array([[9.0, -9.0], [1.0, -1.0]], np.float32))
    np.testing.assert_array_equal(after["velocity"][0], after["velocity"][1])


@every_maze
def test_starts_and_goals_cover_all_pairs_of_cells(maze):
    simulation = PointMazeSimulation(maze, "sparse", False)
    free = int((~simulation.walls).sum())
    state = simulation.initial(np.random.default_rng(0).random((30 * free**2, 6)))
    centre = np.array(simulation.walls.shape[::-1]) / 2
    cells = [np.floor(state[key] + centre).astype(int) for key in ("position", "goal")]
    assert not any(simulation.walls[y, x] for positions in cells for x, y in positions)
    pairs = np.unique(np.hstack(cells), axis=0, return_counts=True)[1]
    assert len(pairs) == free * (free - 1)
    assert pairs.max() / pairs.mean() < 2
    assert clearance(simulation, state["position"]).min() >= RADIUS
    distance = np.hypot(*(state["position"] - state["goal"]).T)
    assert distance.min() >= 0.5 - 1e-6


@pytest.mark.parametrize(
    ("maze", "steps", "limit"),
    [("Open", 20, 50), ("U", 35, 100), ("Medium", 65, 150), ("Large", 115, 300)],
)
def test_the_longest_path_takes_the_documented_time(maze, steps, limit):
    env = gym.make(f"rlkit/PointMaze-{maze}-v0", terminates=True)
    env.reset(seed=0)
    walls = env.unwrapped.simulation.walls
    centre = np.array(walls.shape[::-1]) / 2
    way = [np.array(cell) + 0.5 - centre for cell in longest_route(walls)]
    if not walls[1:-1, 1:-1].any():
        way = [way[0], way[-1]]
    state = env.unwrapped.get_state()
    state["simulation"] |= {"position": np.float32([way[0]]), "goal": np.float32([way[-1]])}
    env.unwrapped.set_state(state)
    terminated, taken, position = False, 0, way.pop(0)
    while not terminated:
        if len(way) > 1 and np.hypot(*(way[0] - position)) < 0.45:
            way.pop(0)
        toward = way[0] - position
        observation, _, terminated, truncated, _ = env.step(
            (toward / np.abs(toward).max()).astype(np.float32)
        )
        position, taken = observation["achieved_goal"], taken + 1
        assert not truncated
    assert taken == pytest.approx(steps, rel=0.12)
    assert env.spec.max_episode_steps == limit


def test_rewards_and_termination_follow_the_arguments():
    sparse = PointMaze(maze="U")
    dense = gym.make("rlkit/PointMaze-U-Dense-v0")
    ending = PointMaze(maze="U", terminates=True)
    position = np.zeros((1, 2), np.float32)
    near, far = np.float32([[0.44, 0]]), np.float32([[0.46, 0]])
    assert sparse.rule.reward(position, near) == 0
    assert sparse.rule.reward(position, far) == -1
    assert not sparse.rule.terminated(position, near)
    assert ending.rule.terminated(position, near)
    assert not ending.rule.terminated(position, far)
    assert dense.unwrapped.rule.reward(position, far) == pytest.approx(-0.46)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"maze": "Huge"}, "one of Open, U, .*got 'Huge'"), ({"reward": "shaped"}, "got 'shaped'")],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PointMaze(**arguments)
