import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from simulations import assert_image_changes, assert_rows_are_independent

from rlkit.envs.planar_push import (
    CONTROL_PERIOD,
    DAMPING,
    FORCE,
    FRICTION,
    PUCK_MASS,
    PUCK_RADIUS,
    PUSHER_MASS,
    PUSHER_RADIUS,
    PUSHER_SPEED,
    SUBSTEPS,
    TABLE,
    PlanarPush,
    PlanarPushSimulation,
)

TOUCHING = PUSHER_RADIUS + PUCK_RADIUS


def started(rows, seed=0):
    simulation = PlanarPushSimulation()
    return simulation, simulation.initial(np.random.default_rng(seed).random((rows, 6)))


def placed(pusher, puck, pusher_velocity=(0.0, 0.0), puck_velocity=(0.0, 0.0)):
    return {
        "pusher": np.array([pusher], float),
        "pusher_velocity": np.array([pusher_velocity], float),
        "puck": np.array([puck], float),
        "puck_velocity": np.array([puck_velocity], float),
        "goal": np.array([[0.3, 0.3]]),
    }


def ran(state, action, steps):
    simulation = PlanarPushSimulation()
    for _ in range(steps):
        state = simulation.step(state, np.array([action], float))
    return state


def energy(state):
    pusher, puck = state["pusher_velocity"], state["puck_velocity"]
    return (PUSHER_MASS * (pusher**2).sum(1) + PUCK_MASS * (puck**2).sum(1)) / 2


def chasing(state, rng, action):
    toward = state["puck"] - state["pusher"]
    chaser = np.clip(30 * toward + rng.normal(0, 0.5, toward.shape), -1, 1)
    return np.where(np.arange(len(toward))[:, None] % 2 == 0, action, chaser)


@pytest.mark.parametrize("speed", [0.1, 0.5, 0.8, 1.1])
def test_a_free_puck_stops_after_the_distance_of_dry_friction(speed):
    after = ran(
        placed((-0.4, -0.4), (0.0, 0.0), puck_velocity=(0.6 * speed, 0.8 * speed)), (0, 0), 5
    )
    covered = np.linalg.norm(after["puck"])
    # The first substep brakes before it moves, which loses at most half a substep's distance.
    lost = speed**2 / (2 * FRICTION) - covered
    assert 0 <= lost <= speed * CONTROL_PERIOD / SUBSTEPS / 2
    np.testing.assert_allclose(after["puck"] / covered, [[0.6, 0.8]])
    np.testing.assert_array_equal(after["puck_velocity"], 0)


def test_the_pusher_approaches_its_top_speed():
    state = ran(placed((-0.45, -0.3), (0.0, 0.3)), (1.0, 0.0), 9)
    np.testing.assert_allclose(state["pusher_velocity"], [[PUSHER_SPEED, 0]], rtol=2e-4)
    # With a velocity that approaches v with time constant T, the distance tends to v * (t - T).
    covered = PUSHER_SPEED * (9 * CONTROL_PERIOD - PUSHER_MASS / DAMPING)
    np.testing.assert_allclose(state["pusher"][0, 0] + 0.45, covered, rtol=0.01)


def test_a_steady_push_balances_force_damping_and_friction():
    state = ran(placed((-0.45, 0.0), (-0.45 + TOUCHING, 0.0)), (1.0, 0.0), 9)
    balance = (FORCE - FRICTION * PUCK_MASS) / DAMPING
    np.testing.assert_allclose(state["pusher_velocity"][0, 0], balance, rtol=0.01)
    np.testing.assert_allclose(state["puck_velocity"][0, 0], balance, rtol=0.01)
    np.testing.assert_allclose(state["puck"] - state["pusher"], [[TOUCHING, 0]], atol=1e-9)


def test_a_collision_conserves_momentum_except_for_drag_and_friction():
    speed = 0.8
    pusher = (-TOUCHING - 1e-9, 0.0)
    action = (speed / PUSHER_SPEED, 0.0)  # balances the drag
    state = ran(placed(pusher, (0.0, 0.0), pusher_velocity=(speed, 0.0)), action, 1)
    moved = PUSHER_MASS * state["pusher_velocity"] + PUCK_MASS * state["puck_velocity"]
    lost = FRICTION * PUCK_MASS * CONTROL_PERIOD
    together = PUSHER_MASS * speed / (PUSHER_MASS + PUCK_MASS)
    regained = DAMPING * (speed - together) * CONTROL_PERIOD
    assert PUSHER_MASS * speed - lost <= moved[0, 0] <= PUSHER_MASS * speed + regained - lost / 2
    assert state["puck_velocity"][0, 0] < speed
    np.testing.assert_array_equal(moved[0, 1], 0)


def test_an_off_centre_push_moves_the_puck_along_the_line_of_centres():
    direction = np.array([0.8, 0.6])
    state = placed(-(TOUCHING + 0.001) * direction, (0.0, 0.0), pusher_velocity=(0.8, 0.0))
    after = ran(state, (1.0, 0.0), 1)
    moved = after["puck"][0] / np.linalg.norm(after["puck"][0])
    assert moved @ direction > 0.98
    assert after["puck"][0, 1] > 0.0


def test_walls_stop_both_discs():
    state = ran(placed((0.0, 0.0), (TOUCHING, 0.0)), (1.0, 0.0), 30)
    np.testing.assert_allclose(state["puck"], [[TABLE - PUCK_RADIUS, 0]], atol=1e-9)
    np.testing.assert_allclose(state["pusher"], state["puck"] - [[TOUCHING, 0]], atol=1e-9)
    np.testing.assert_allclose(state["pusher_velocity"], 0, atol=1e-6)
    alone = ran(placed((0.0, 0.0), (0.0, 0.3)), (-1.0, -1.0), 30)
    np.testing.assert_array_equal(alone["pusher"], [[PUSHER_RADIUS - TABLE] * 2])
    np.testing.assert_array_equal(alone["pusher_velocity"], 0)


def test_without_drive_energy_never_increases():
    simulation, state = started(500)
    rng = np.random.default_rng(1)
    action = np.zeros((500, 2))
    for _ in range(10):
        for _ in range(5):
            state = simulation.step(state, chasing(state, rng, rng.uniform(-1, 1, (500, 2))))
        # Without drive, contacts may only reduce the energy.
        after = simulation.step(state, action)
        assert (energy(after) <= energy(state) + 1e-12).all()
        state = after


@pytest.mark.slow
@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_discs_never_overlap_and_observations_stay_in_their_space(seed):
    simulation, state = started(32, seed)
    rng = np.random.default_rng(seed)
    space = simulation.observation_space["observation"]
    for step in range(120):
        if step % 6 == 0:
            action = rng.choice([-1.0, 0.0, 1.0], (32, 2))
        before, state = state, simulation.step(state, chasing(state, rng, action))
        gap = np.linalg.norm(state["puck"] - state["pusher"], axis=1)
        assert gap.min() >= TOUCHING - 1e-8
        assert np.abs(state["puck"]).max() <= TABLE - PUCK_RADIUS
        assert np.abs(state["pusher"]).max() <= TABLE - PUSHER_RADIUS
        observed = simulation.observe(state)["observation"]
        assert ((space.low <= observed) & (observed <= space.high)).all()
        # Corrections included, a substep moves no disc farther than its size.
        jump = np.abs(state["puck"] - before["puck"]).max()
        assert jump <= 1.2 * np.sqrt(2) * PUSHER_SPEED * CONTROL_PERIOD


def test_a_substep_is_too_short_to_tunnel():
    assert 2 * np.sqrt(2) * PUSHER_SPEED * CONTROL_PERIOD / SUBSTEPS < TOUCHING


def test_a_pusher_in_the_corner_with_the_puck_can_leave_it():
    corner = TABLE - PUCK_RADIUS
    state = ran(placed((0.45, 0.25), (corner, corner)), (1.0, 1.0), 20)
    assert np.linalg.norm(state["puck"] - state["pusher"]) >= TOUCHING - 1e-8
    state = ran(state, (-1.0, -1.0), 10)
    assert np.linalg.norm(state["puck"] - state["pusher"]) > 2 * TOUCHING


def test_starts_are_apart_and_no_start_satisfies_its_goal():
    _, state = started(100_000)
    assert np.linalg.norm(state["puck"] - state["pusher"], axis=1).min() >= TOUCHING + 0.02 - 1e-12
    assert np.linalg.norm(state["puck"] - state["goal"], axis=1).min() >= 0.1 - 1e-12
    assert np.abs(state["puck"]).max() <= 0.25
    assert 0.29 < np.abs(state["goal"]).max() <= 0.3
    assert 0.43 < np.abs(state["pusher"]).max() <= 0.44


@pytest.mark.slow
def test_rows_are_independent():
    rng = np.random.default_rng(4)

    def act(state):
        return chasing(state, rng, rng.uniform(-1, 1, (9, 2)))

    assert_rows_are_independent(PlanarPushSimulation(), rng.random((9, 6)), 60, act)


def go_behind_and_push(observation):
    """Circles the puck to the side opposite to the goal, then drives towards the goal."""
    numbers = observation["observation"].astype(float)
    pusher, velocity, puck = numbers[:, :2], numbers[:, 2:4], numbers[:, 4:6]
    to_goal = observation["desired_goal"] - puck
    distance = np.linalg.norm(to_goal, axis=1, keepdims=True)
    ahead = to_goal / np.maximum(distance, 1e-9)
    out = (pusher - puck) / np.linalg.norm(pusher - puck, axis=1, keepdims=True)
    radius = np.linalg.norm(pusher - puck, axis=1, keepdims=True)
    side = ahead[:, :1] * out[:, 1:] - ahead[:, 1:] * out[:, :1]
    tangent = np.stack([-out[:, 1], out[:, 0]], axis=1) * np.where(side >= 0, 1, -1)
    circle = 0.7 * tangent + 6 * (TOUCHING + 0.05 - radius) * out
    push = np.minimum(0.75, 2.5 * distance) * ahead - 2.5 * (out + ahead)
    behind = (out * ahead).sum(1, keepdims=True) < -0.8
    wanted = np.where(distance < 0.02, 0, np.where(behind, push, circle))
    action = 1.2 * (wanted - velocity) + wanted / PUSHER_SPEED
    return np.clip(action, -1, 1).astype(np.float32)


def test_a_scripted_pusher_reaches_the_goal():
    env = PlanarPush.vector(200, max_episode_steps=50)
    observation, _ = env.reset(seed=0)
    for _ in range(50):
        observation, _, _, truncated, info = env.step(go_behind_and_push(observation))
    assert truncated.all()
    assert info["final_info"]["is_success"].mean() >= 0.95


@pytest.mark.parametrize("reward", ["sparse", "dense"])
def test_rewards_are_those_of_the_rule(reward):
    env = PlanarPush(reward=reward)
    observation, _ = env.reset(seed=1)
    successes = []
    for _ in range(50):
        batch = {key: value[None] for key, value in observation.items()}
        observation, value, terminated, _, info = env.step(go_behind_and_push(batch)[0])
        goals = observation["achieved_goal"], observation["desired_goal"]
        distance = np.linalg.norm(goals[0] - goals[1])
        assert value == env.compute_reward(*goals)
        assert value == pytest.approx(-distance if reward == "dense" else -float(distance >= 0.05))
        assert not terminated
        successes.append(info["is_success"])
    assert successes[-1]
    assert not successes[0]


def test_the_environment_passes_gymnasiums_checker():
    check_env(PlanarPush(), skip_render_check=True)


def test_images_show_the_pusher_move():
    assert_image_changes(*started(1), np.ones((1, 2)))


def test_an_unknown_reward_is_named():
    with pytest.raises(ValueError, match='"sparse" or "dense", got \'shaped\''):
        PlanarPush(reward="shaped")
