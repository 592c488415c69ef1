import pickle

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from simulations import assert_rows_are_independent

from rlkit.envs.waypoint import (
    AIRSPEED,
    CLIMB_LAG,
    CLIMB_RATE,
    CONTROL_PERIOD,
    TURN_LAG,
    TURN_RATE,
    Waypoint,
    WaypointRule,
    WaypointSimulation,
)


def started(rows, seed=0):
    simulation = WaypointSimulation()
    uniforms = np.random.default_rng(seed).random((rows, simulation.draws))
    return simulation, simulation.initial(uniforms), uniforms


def flying(heading=0.0, altitude=500.0, turn_rate=0.0, climb_rate=0.0):
    return {
        "position": np.array([[0.0, 0.0, altitude]]),
        "heading": np.array([heading]),
        "turn_rate": np.array([turn_rate]),
        "climb_rate": np.array([climb_rate]),
        "goal": np.array([[1.0, 0.0, 0.5, 1.0, 0.0]]),
    }


def flown(state, action, steps):
    path = [state]
    for _ in range(steps):
        path.append(WaypointSimulation().step(path[-1], np.array([action], float)))
    return path


def test_without_commands_the_flight_is_straight_and_level():
    after = flown(flying(heading=np.pi / 3), (0, 0), 50)[-1]
    distance = 50 * CONTROL_PERIOD * AIRSPEED
    expected = [[0.5 * distance, np.sqrt(3) / 2 * distance, 500.0]]
    np.testing.assert_allclose(after["position"], expected, rtol=1e-12)
    np.testing.assert_array_equal(after["heading"], np.pi / 3)


@pytest.mark.parametrize("command", [1.0, -0.5])
def test_a_held_turn_is_a_circle_of_radius_speed_over_rate(command):
    rate = command * TURN_RATE
    path = flown(flying(turn_rate=rate), (command, 0), 60)
    positions = np.concatenate([state["position"] for state in path])[:, :2]
    radius = AIRSPEED / rate
    np.testing.assert_allclose(
        np.hypot(positions[:, 0], positions[:, 1] - radius), abs(radius), rtol=1e-3
    )
    np.testing.assert_allclose(path[-1]["heading"], 60 * CONTROL_PERIOD * rate)


def test_rates_follow_their_commands_with_the_declared_lags():
    path = flown(flying(), (1, -1), 8)
    for step, state in enumerate(path):
        second = step * CONTROL_PERIOD
        turn = TURN_RATE * (1 - np.exp(-second / TURN_LAG))
        np.testing.assert_allclose(state["turn_rate"], turn, atol=1e-12)
        climb = -CLIMB_RATE * (1 - np.exp(-second / CLIMB_LAG))
        np.testing.assert_allclose(state["climb_rate"], climb, atol=1e-12)
        lost = CLIMB_RATE * (second - CLIMB_LAG * (1 - np.exp(-second / CLIMB_LAG)))
        np.testing.assert_allclose(state["position"][0, 2], 500 - lost)


def test_positions_agree_with_a_fine_integration():
    path = flown(flying(), (1, 1), 30)
    heading, turn_rate, position, ticks = 0.0, 0.0, np.zeros(2), 500
    for _ in range(30 * round(CONTROL_PERIOD) * ticks):
        turn_rate += (TURN_RATE - turn_rate) / TURN_LAG / ticks
        heading += turn_rate / ticks
        position += AIRSPEED / ticks * np.array([np.cos(heading), np.sin(heading)])
    np.testing.assert_allclose(path[-1]["position"][0, :2], position, atol=1.0)


@pytest.mark.slow
@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_no_flight_is_faster_than_the_airspeed_or_leaves_its_space(seed):
    simulation, state, _ = started(16, seed)
    rng = np.random.default_rng(seed)
    space = simulation.observation_space["observation"]
    for _ in range(120):
        before, state = state, simulation.step(state, rng.choice([-1.0, 0.2, 1.0], (16, 2)))
        moved = state["position"] - before["position"]
        seconds = CONTROL_PERIOD * (1 + 1e-12)
        assert np.hypot(moved[:, 0], moved[:, 1]).max() <= AIRSPEED * seconds
        assert np.abs(moved[:, 2]).max() <= CLIMB_RATE * seconds
        observed = simulation.observe(state)["observation"]
        assert ((space.low <= observed) & (observed <= space.high)).all()
        assert np.isfinite(observed).all()


def test_the_altitude_stops_at_zero_and_can_increase_again():
    path = flown(flying(altitude=20.0), (0, -1), 20)
    assert path[-1]["position"][0, 2] == 0
    assert path[-1]["climb_rate"][0] == 0
    assert min(state["position"][0, 2] for state in path) == 0
    assert (
        flown(path[-1], (0, 1), 10)[-1]["position"][0, 2] > 0.5 * 10 * CONTROL_PERIOD * CLIMB_RATE
    )


@pytest.mark.slow
def test_every_goal_is_reached_by_its_random_flight():
    simulation, state, uniforms = started(5000)
    periods = 3 + np.floor(5 * uniforms[:, 1])
    commands = (2 * uniforms[:, 2:] - 1).reshape(-1, 4, 2)
    reached = np.zeros(5000, bool)
    nearest = np.full(5000, np.inf)
    for step in range(28):
        leg = np.minimum(step // periods, 3).astype(int)
        state = simulation.step(state, commands[np.arange(5000), leg])
        observation = simulation.observe(state)
        goals = observation["achieved_goal"], observation["desired_goal"]
        reached |= simulation.rule.success(*goals)
        nearest = np.minimum(nearest, simulation.rule.errors(*goals)[0])
    assert reached.all()
    assert nearest.max() < 0.1


@pytest.mark.slow
def test_no_start_satisfies_its_goal():
    simulation, state, _ = started(100_000)
    observation = simulation.observe(state)
    goals = observation["achieved_goal"], observation["desired_goal"]
    assert not simulation.rule.success(*goals).any()
    assert state["goal"][:, 2].min() > 0


def test_a_random_flight_that_ends_at_its_start_is_shortened():
    simulation = WaypointSimulation()
    uniforms = np.full((5000, simulation.draws), 0.5)
    # Level circles at constant rates; the fastest complete one or more.
    uniforms[:, 1] = 0.99
    uniforms[:, 2::2] = np.linspace(0.5, 1, 5000)[:, None]
    state = simulation.initial(uniforms)
    full = 28 * CONTROL_PERIOD * TURN_RATE * (2 * uniforms[:, 2] - 1)
    came_round = np.abs(full - 2 * np.pi) < 0.05
    assert came_round.sum() > 10
    distance = np.linalg.norm(state["goal"][:, :2], axis=1)
    assert distance[came_round].min() > 0.2


def test_rows_are_independent():
    simulation, rng = WaypointSimulation(), np.random.default_rng(4)
    uniforms = rng.random((9, simulation.draws))
    assert_rows_are_independent(simulation, uniforms, 60, lambda _: rng.uniform(-1, 1, (9, 2)))


def pose(x, y, z, heading):
    return np.array([[x, y, z, np.cos(heading), np.sin(heading)]])


@pytest.mark.parametrize(
    ("achieved", "success"),
    [
        (pose(99.0, 0.0, 0.0, 0.0), True),
        (pose(101.0, 0.0, 0.0, 0.0), False),
        (pose(60.0, 60.0, 60.0, 0.0), False),
        (pose(0.0, 0.0, 0.0, 0.34), True),
        (pose(0.0, 0.0, 0.0, -0.36), False),
        (pose(0.0, 0.0, 0.0, np.pi), False),
        (pose(0.0, 0.0, 0.0, 2 * np.pi - 0.1), True),
    ],
)
def test_success_needs_position_and_direction(achieved, success):
    goal = pose(0.0, 0.0, 0.0, 0.0)
    assert WaypointRule().success(achieved, goal) == [success]
    assert WaypointRule().terminated(achieved, goal) == [success]
    assert WaypointRule().reward(achieved, goal) == [0.0 if success else -1.0]
    assert WaypointRule(terminates=False).terminated(achieved, goal) == [False]


def test_the_dense_reward_adds_distance_and_weighted_heading_error():
    rule = WaypointRule(sparse=False, heading_weight=200.0)
    reward = rule.reward(pose(300.0, 0.0, 400.0, 3.0), pose(0.0, 0.0, 0.0, -3.0))
    np.testing.assert_allclose(reward, [-5.0 - 2.0 * (2 * np.pi - 6.0)])


def test_the_rule_obeys_its_laws():
    rng = np.random.default_rng(0)
    angle = rng.uniform(-np.pi, np.pi, (2, 301))
    position = 150.0 * rng.random((2, 301, 3))
    goals = np.concatenate([position, np.cos(angle)[..., None], np.sin(angle)[..., None]], axis=2)
    achieved, desired = goals.astype(np.float32)
    for rule in (WaypointRule(), WaypointRule(sparse=False)):
        for method in ("reward", "success", "terminated"):
            batch = getattr(rule, method)(achieved, desired)
            copy = getattr(pickle.loads(pickle.dumps(rule)), method)
            loop = [copy(achieved[i : i + 1], desired[i : i + 1]) for i in range(301)]
            assert batch.shape == (301,)
            np.testing.assert_array_equal(batch, np.concatenate(loop))
    assert 0 < WaypointRule().success(achieved, desired).mean() < 1


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"must be positive, got 0 m"):
        WaypointRule(radius=0)
    with pytest.raises(ValueError, match=r"must not be negative, got -1"):
        WaypointRule(heading_weight=-1)
    with pytest.raises(ValueError, match='"sparse" or "dense", got \'shaped\''):
        Waypoint(reward="shaped")


def guidance(observation):
    """Aims at a point before the waypoint on its line, which approaches it with the aircraft."""
    numbers, goal = observation["observation"].astype(float), observation["desired_goal"]
    to_goal = goal[:, :2] - numbers[:, :2]
    distance = np.hypot(*to_goal.T)
    aim = to_goal - np.clip(0.6 * distance, 0, 450)[:, None] * goal[:, 3:]
    error = np.arctan2(aim[:, 1], aim[:, 0]) - np.arctan2(numbers[:, 4], numbers[:, 3])
    error = (error + np.pi) % (2 * np.pi) - np.pi
    turn = error / 2.5 - 0.5 * numbers[:, 5]
    climb = 1.5 * (goal[:, 2] - numbers[:, 2]) / np.maximum(distance / AIRSPEED, 8)
    action = np.stack([turn / TURN_RATE, climb / CLIMB_RATE], axis=1)
    return np.clip(action, -1, 1).astype(np.float32)


def test_simple_guidance_reaches_most_waypoints():
    env = Waypoint.vector(300, max_episode_steps=100)
    observation, _ = env.reset(seed=0)
    over, succeeded = np.zeros(300, bool), np.zeros(300, bool)
    for _ in range(100):
        observation, _, terminated, truncated, info = env.step(guidance(observation))
        ended = terminated | truncated
        if ended.any():
            succeeded |= info["final_info"]["is_success"] & ~over
        over |= ended
    assert succeeded.mean() >= 0.85


@pytest.mark.parametrize("reward", ["sparse", "dense"])
def test_an_episode_ends_at_success_with_the_rules_reward(reward):
    env = Waypoint(reward=reward)
    observation, _ = env.reset(seed=0)
    terminated = False
    for _ in range(100):
        batch = {key: value[None] for key, value in observation.items()}
        observation, value, terminated, _, info = env.step(guidance(batch)[0])
        goals = observation["achieved_goal"], observation["desired_goal"]
        assert value == env.compute_reward(*goals)
        assert terminated == info["is_success"] == env.compute_terminated(*goals)
        if terminated:
            break
    assert terminated
    assert value == 0.0 if reward == "sparse" else -1.4 < value < 0


@pytest.mark.filterwarnings("ignore:.*infinity. This is probably too")  # positions are unbounded
def test_the_environment_passes_gymnasiums_checker():
    check_env(Waypoint(), skip_render_check=True)


def test_images_show_the_flight_and_its_altitude():
    simulation = WaypointSimulation()
    pictures = [
        simulation.render(state, 96)
        for state in (flying(), flying(altitude=400.0), flying(heading=1.0))
    ]
    assert all(picture.shape == (96, 96, 3) for picture in pictures)
    map_width = 70
    assert (pictures[0][:, :map_width] == pictures[1][:, :map_width]).all()
    assert (pictures[0] != pictures[1]).any()
    assert (pictures[0][:, :map_width] != pictures[2][:, :map_width]).any()
