import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from simulations import assert_image_changes, assert_rows_are_independent

from rlkit.envs.planar_reach import (
    ARM_LENGTH,
    CONTROL_PERIOD,
    DAMPING,
    GOAL_RADII,
    INERTIA,
    JOINT_SPEED,
    TORQUE,
    PlanarReach,
    PlanarReachSimulation,
)


def started(rows, links=2, seed=0):
    simulation = PlanarReachSimulation(links)
    uniforms = np.random.default_rng(seed).random((rows, simulation.draws))
    return simulation, simulation.initial(uniforms)


def posed(angles):
    angle = np.array([angles])
    return {"angle": angle, "velocity": np.zeros_like(angle), "goal": np.array([[0.5, 0.0]])}


@pytest.mark.parametrize(
    ("angles", "tip"),
    [
        ([0.0, 0.0], (1.0, 0.0)),
        ([np.pi / 2, 0.0], (0.0, 1.0)),
        ([0.0, np.pi / 2], (0.5, 0.5)),
        ([np.pi / 2, -np.pi / 2], (0.5, 0.5)),
        ([0.3, np.pi], (0.0, 0.0)),
    ],
)
def test_forward_kinematics_of_two_links(angles, tip):
    observation = PlanarReachSimulation(2).observe(posed(angles))
    np.testing.assert_allclose(observation["achieved_goal"][0], tip, atol=1e-6)
    np.testing.assert_allclose(observation["observation"][0, -2:], tip, atol=1e-6)


@pytest.mark.parametrize("links", [2, 3, 5])
def test_links_keep_their_length(links):
    simulation, state = started(50, links)
    ends = np.concatenate([np.zeros((50, 1, 2)), simulation.joints(state["angle"])], axis=1)
    lengths = np.linalg.norm(np.diff(ends, axis=1), axis=2)
    np.testing.assert_allclose(lengths, ARM_LENGTH / links, rtol=1e-12)


def test_a_joint_approaches_its_top_speed():
    simulation, state = PlanarReachSimulation(2), posed([0.0, 0.0])
    for _ in range(40):
        state = simulation.step(state, np.array([[1.0, -0.5]]))
    np.testing.assert_allclose(state["velocity"], [[JOINT_SPEED, -0.5 * JOINT_SPEED]], rtol=1e-6)


def test_a_joint_follows_its_equation_of_motion():
    simulation, state, action = PlanarReachSimulation(2), posed([0.2, -1.0]), [0.7, -0.3]
    angle, velocity = state["angle"][0].copy(), state["velocity"][0].copy()
    ticks = 2000
    for _ in range(4):
        state = simulation.step(state, np.array([action]))
        for _ in range(ticks):
            acceleration = (TORQUE * np.array(action) - DAMPING * velocity) / INERTIA
            velocity = velocity + acceleration * CONTROL_PERIOD / ticks
            angle = angle + velocity * CONTROL_PERIOD / ticks
    np.testing.assert_allclose(state["velocity"][0], velocity, atol=1e-3)
    np.testing.assert_allclose(state["angle"][0], angle, atol=1e-3)


def test_without_torque_a_joint_only_loses_energy():
    simulation, state = started(100)
    state["velocity"] = np.random.default_rng(1).uniform(-JOINT_SPEED, JOINT_SPEED, (100, 2))
    for _ in range(20):
        after = simulation.step(state, np.zeros((100, 2)))
        assert (np.abs(after["velocity"]) < np.abs(state["velocity"])).all()
        state = after


def test_goals_are_uniform_by_area_over_the_annulus():
    _, state = started(20_000)
    radius = np.linalg.norm(state["goal"], axis=1)
    inner, outer = GOAL_RADII
    assert inner <= radius.min() < radius.max() <= outer
    share = (radius**2 - inner**2) / (outer**2 - inner**2)
    np.testing.assert_allclose(np.histogram(share, 10, (0, 1))[0] / 20_000, 0.1, atol=0.01)


@pytest.mark.parametrize("links", [2, 3])
def test_no_start_satisfies_its_goal(links):
    simulation, state = started(100_000, links)
    observation = simulation.observe(state)
    goals = observation["achieved_goal"], observation["desired_goal"]
    assert not simulation.rule.success(*goals).any()


def test_a_goal_at_the_tip_moves_to_the_other_side():
    simulation = PlanarReachSimulation(2)
    inner, outer = GOAL_RADII
    share = (0.5 - inner**2) / (outer**2 - inner**2)  # a tip at (0.5, 0.5) is sqrt(0.5) away
    state = simulation.initial(np.array([[0.5, 0.75, share, 1 / 8]]))
    np.testing.assert_allclose(simulation.joints(state["angle"])[0, -1], [0.5, 0.5])
    np.testing.assert_allclose(state["goal"], [[-0.5, -0.5]])


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3]))
def test_observations_stay_in_their_space(seed, links):
    simulation, state = started(1, links, seed)
    rng = np.random.default_rng(seed)
    action = np.zeros((1, links))
    for step in range(200):
        if step % 20 == 0:
            action = rng.choice([-1.0, 0.3, 1.0], (1, links))
        state = simulation.step(state, action)
        row = {key: value[0] for key, value in simulation.observe(state).items()}
        assert simulation.observation_space.contains(row)


@pytest.mark.parametrize("links", [2, 3])
def test_rows_are_independent(links):
    simulation, rng = PlanarReachSimulation(links), np.random.default_rng(2)
    uniforms = rng.random((7, simulation.draws))
    assert_rows_are_independent(simulation, uniforms, 30, lambda _: rng.uniform(-1, 1, (7, links)))


def test_actions_beyond_the_range_are_clipped():
    simulation, state = started(3)
    beyond = simulation.step(state, np.full((3, 2), 7.0))
    at_most = simulation.step(state, np.ones((3, 2)))
    np.testing.assert_array_equal(beyond["velocity"], at_most["velocity"])


def test_a_simple_controller_reaches_every_goal():
    env = PlanarReach.vector(200, max_episode_steps=50)
    observation, _ = env.reset(seed=0)
    for _ in range(50):
        pose = observation["observation"].astype(float)
        bend = np.arctan2(pose[:, 3], pose[:, 1])
        shoulder = np.arctan2(pose[:, 2], pose[:, 0])
        goal = observation["desired_goal"].astype(float)
        radius = np.hypot(*goal.T)
        # Two links of 0.5 m: the law of cosines gives the elbow's angle, half of it the direction.
        wanted = 2 * np.arccos(np.clip(radius, 0, 1))
        aim = np.arctan2(goal[:, 1], goal[:, 0]) - wanted / 2
        error = np.stack([aim - shoulder, wanted - bend], axis=1)
        error = (error + np.pi) % (2 * np.pi) - np.pi
        action = np.clip(4 * error - 0.3 * pose[:, 4:6], -1, 1).astype(np.float32)
        observation, _, _, _, info = env.step(action)
    assert info["final_info"]["is_success"].all()


@pytest.mark.parametrize("reward", ["sparse", "dense"])
def test_rewards_are_those_of_the_rule(reward):
    env = PlanarReach(reward=reward)
    env.reset(seed=3)
    env.action_space.seed(3)
    for _ in range(20):
        observation, value, terminated, _, info = env.step(env.action_space.sample())
        goals = observation["achieved_goal"], observation["desired_goal"]
        distance = np.linalg.norm(goals[0] - goals[1])
        assert info["is_success"] == (distance < 0.05)
        assert value == env.compute_reward(*goals)
        assert value == pytest.approx(-distance if reward == "dense" else -float(distance >= 0.05))
        assert not terminated


def test_the_environment_passes_gymnasiums_checker():
    check_env(PlanarReach(), skip_render_check=True)


def test_images_show_the_arm_move():
    assert_image_changes(*started(1), np.ones((1, 2)))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"links must be at least 2.*got 1"):
        PlanarReach(links=1)
    with pytest.raises(ValueError, match='"sparse" or "dense", got \'shaped\''):
        PlanarReach(reward="shaped")
