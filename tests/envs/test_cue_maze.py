import itertools

import gymnasium as gym
import numpy as np
import pytest

from rlkit.envs.cue_maze import DOWN, FORWARD, UP, CueMaze, CueMazeSimulation
from rlkit.envs.make import make
from rlkit.goals.check import check_env

LENGTHS = {"": 10, "-50": 50, "-100": 100, "-200": 200}


def assert_only_the_junction_is_unseen(findings):
    # Random actions do not reach the end of the corridor, so the check sees y at rest.
    found = [(p.level, p.law) for p in findings if p.level != "note"]
    assert found in ([], [("warning", "dead sensor")])


def success_of(choose, length, num_envs=2000, **arguments):
    """Share of episodes that end in the goal's cell; `choose` gets what an agent may observe."""
    env = gym.make_vec("rlkit/CueMaze-v0", num_envs, length=length, **arguments)
    observation, _ = env.reset(seed=0)
    succeeded, ended = np.zeros(num_envs, bool), np.zeros(num_envs, bool)
    while not ended.all():
        visible = observation.get("goal_visible", np.ones((num_envs, 1)))
        actions = choose(observation["observation"], visible * observation["desired_goal"])
        observation, _, terminated, truncated, _ = env.step(actions)
        succeeded |= terminated & ~ended
        ended |= terminated | truncated
    return succeeded.mean()


def turning(side):
    """Forward to the junction, then to `side(remembered)`, 1 for up and -1 for down."""

    def choose(observation, goal):
        choose.remembered = np.where(goal[:, 0] > 0, goal[:, 1], choose.remembered)
        at_junction = observation[:, 3] > 0
        return np.where(at_junction, np.where(side(choose.remembered) > 0, UP, DOWN), FORWARD)

    choose.remembered = np.zeros(2000)
    return choose


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 7, 50])
def test_an_agent_with_memory_succeeds(length):
    assert success_of(turning(lambda remembered: remembered), length) == 1
    assert success_of(turning(lambda remembered: -remembered), length) == 0
    assert abs(success_of(turning(np.ones_like), length) - 0.5) < 0.03
    # A policy of the current observation only: the goal is hidden at the junction.
    assert (
        success_of(
            lambda observation, goal: np.where(
                observation[:, 3] > 0, np.where(goal[:, 1] > 0, UP, DOWN), FORWARD
            ),
            length,
            visible_steps=None,
        )
        == 1
    )


@pytest.mark.slow
def test_no_memoryless_policy_beats_chance():
    length = 2
    simulation = CueMaze(length=length).simulation
    limit = CueMaze(length=length).max_episode_steps
    best = 0.0
    # A policy has one action per goal in the first step, then one per cell of the corridor.
    for table in itertools.product(range(3), repeat=2 + length + 1):
        successes = 0
        for uniform, first in ((0.0, table[0]), (0.9, table[1])):
            state = simulation.initial(np.array([[uniform]]))
            for t in range(limit):
                observed = simulation.observe(state)
                assert bool(observed["goal_visible"][0, 0]) == (t == 0)
                position = round(float(observed["observation"][0, 0]) * length)
                action = first if t == 0 else table[2 + position]
                state = simulation.step(state, np.array([action]))
                observed = simulation.observe(state)
                if simulation.rule.success(observed["achieved_goal"], observed["desired_goal"])[0]:
                    successes += 1
                    break
        best = max(best, successes / 2)
    assert best == 0.5


def test_observations_do_not_depend_on_the_goal():
    up, down = CueMaze(length=5), CueMaze(length=5)
    sides = {}
    for seed in range(20):
        sides.setdefault(float(up.reset(seed=seed)[0]["desired_goal"][1]), seed)
    assert set(sides) == {1.0, -1.0}
    for env, seed in ((up, sides[1.0]), (down, sides[-1.0])):
        env.reset(seed=seed)
    for action in [FORWARD] * 3 + [UP, DOWN] + [FORWARD] * 3:
        one, two = up.step(action)[0], down.step(action)[0]
        assert one["desired_goal"][1] == -two["desired_goal"][1]
        for key in ("observation", "achieved_goal", "goal_visible"):
            np.testing.assert_array_equal(one[key], two[key])


def test_layout_and_moves():
    env = CueMaze(length=2)
    observation, _ = env.reset(seed=0)
    assert observation["observation"].tolist() == [0, 0, 1, 0, 0]
    for action, observed in [
        (UP, [0, 0, 1, 0, 0]),
        (FORWARD, [0.5, 0, 1, 0, 0]),
        (DOWN, [0.5, 0, 1, 0, 0]),
        (FORWARD, [1, 0, 0, 1, 1]),
        (FORWARD, [1, 0, 0, 1, 1]),
    ]:
        observation, reward, terminated, truncated, _ = env.step(action)
        assert observation["observation"].tolist() == observed
        assert observation["achieved_goal"].tolist() == observed[:2]
        assert (reward, terminated, truncated) == (-1, False, False)
    wrong = DOWN if observation["desired_goal"][1] > 0 else UP
    side = 1 if wrong == UP else -1
    for action, last in ((wrong, False), (UP + DOWN - wrong, True)):
        observation, reward, terminated, truncated, info = env.step(action)
        assert observation["observation"].tolist() == [1, side, 0, 0, 0]
        assert (reward, terminated, truncated, info["is_success"]) == (-1, False, last, False)


def test_every_cell_is_a_distinct_goal():
    length = 200
    simulation = CueMazeSimulation(length)
    x = np.concatenate([np.arange(length + 1), [length, length]])
    y = np.concatenate([np.zeros(length + 1, int), [1, -1]])
    positions = simulation.observe({"x": x, "y": y, "side": np.ones_like(x)})["achieved_goal"]
    one, two = np.divmod(np.arange(len(x) ** 2), len(x))
    for function in (simulation.rule.success, simulation.rule.terminated):
        np.testing.assert_array_equal(function(positions[one], positions[two]), one == two)


def test_both_sides_are_equally_frequent():
    env = gym.make_vec("rlkit/CueMaze-v0", 1000)
    goals = env.reset(seed=0)[0]["desired_goal"]
    assert (goals[:, 0] == 1).all()
    assert abs((goals[:, 1] == 1).mean() - 0.5) < 0.05
    assert (np.abs(goals[:, 1]) == 1).all()


@pytest.mark.parametrize("suffix", LENGTHS)
def test_registered_lengths(suffix):
    env_id, length = f"rlkit/CueMaze{suffix}-v0", LENGTHS[suffix]
    env = make(env_id)
    limit = env.unwrapped.max_episode_steps
    assert length + 1 < limit <= length * 1.5
    assert gym.make_vec(env_id, 2).max_episode_steps == limit
    assert gym.make_vec(env_id, 2, max_episode_steps=4).max_episode_steps == 4
    assert_only_the_junction_is_unseen(check_env(lambda: env))


def test_the_goal_can_always_be_visible():
    env = make("rlkit/CueMaze-50-v0", visible_steps=None)
    assert set(env.observation_space.spaces) == {"observation", "achieved_goal", "desired_goal"}
    assert_only_the_junction_is_unseen(check_env(lambda: env))
    longer = make("rlkit/CueMaze-v0", visible_steps=3)
    flags = [longer.reset(seed=0)[0]] + [longer.step(FORWARD)[0] for _ in range(5)]
    assert [float(observed["goal_visible"][0]) for observed in flags] == [1, 1, 1, 0, 0, 0]


def test_images_show_the_cue_while_it_is_visible():
    hidden, observed = (CueMaze("rgb_array", length=10, visible_steps=steps) for steps in (1, None))
    for env in (hidden, observed):
        env.reset(seed=0)
    np.testing.assert_array_equal(hidden.render(), observed.render())
    for env in (hidden, observed):
        env.step(UP)
    assert (hidden.render() != observed.render()).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"length": 0}, "length must be at least 1, got 0"), ({"visible_steps": 0}, "got 0")],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        CueMaze(**arguments)
