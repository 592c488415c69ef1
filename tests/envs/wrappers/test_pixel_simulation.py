import pickle

import gymnasium as gym
import numpy as np
import pytest

from rlkit.envs.make import make
from rlkit.envs.planar_push import GOAL_AREA, PUCK_RADIUS, PUSHER_RADIUS, TABLE
from rlkit.envs.planar_reach import PlanarReachSimulation
from rlkit.envs.point_maze import PointMazeSimulation
from rlkit.envs.rendering.raster import View
from rlkit.envs.rendering.renderers import MARKER, MazeRenderer, renderer_of
from rlkit.envs.wrappers.pixel_simulation import (
    SIZES,
    MarkerRule,
    Pixels,
    PixelsEnv,
)
from rlkit.goals import DistanceRule, GoalRule
from rlkit.goals.check import check_env
from rlkit.vec.vec_env import make_vec_env, vec_goal_rule

FAMILIES = [
    "PointMaze-Open",
    "PointMaze-U",
    "PointMaze-Medium",
    "PointMaze-Large",
    "PlanarReach",
    "PlanarPush",
]
MARKERS = {"PointMaze": "position", "PlanarReach": "tip", "PlanarPush": "puck"}
every_family = pytest.mark.parametrize("family", FAMILIES)
every_size = pytest.mark.parametrize("size", SIZES)


def pixels_of(family, **arguments):
    return gym.make(f"rlkit/{family}-Pixels-v0", **arguments).unwrapped.simulation


def visited(simulation, rows, steps=30, seed=0):
    """States in the middle of episodes with random actions that are held for several steps."""
    rng = np.random.default_rng(seed)
    state = simulation.initial(rng.random((rows, simulation.draws)))
    for step in range(steps):
        if step % 10 == 0:
            actions = rng.uniform(-1, 1, (rows, *simulation.action_space.shape))
        state = simulation.step(state, actions.astype(np.float32))
    return state


def truth(simulation, state):
    observed = simulation.simulation.observe(state)
    return observed["achieved_goal"], observed["desired_goal"]


def rows_of(state, rows):
    return {name: value[rows] for name, value in state.items()}


@every_family
@every_size
def test_positions_follow_from_images(family, size):
    simulation = pixels_of(family, size=size)
    state = visited(simulation, 1000)
    pixel = simulation.renderer.view.side / size
    achieved, desired = truth(simulation, state)
    observed = simulation.observe(state)
    for pictures, positions in (("achieved_goal", achieved), ("desired_goal", desired)):
        error = simulation.rule.goal_vector(observed[pictures]) - positions
        assert np.hypot(*error.T).max() < 0.1 * pixel


@pytest.mark.slow
@every_family
def test_success_equals_the_state_environments_except_near_the_threshold(family):
    simulation = pixels_of(family)
    rule, state = simulation.simulation.rule, visited(simulation, 3000)
    achieved, desired = truth(simulation, state)
    # Goals close to the achieved ones, so that success and failure are both common.
    aside = np.random.default_rng(1).normal(0, rule.threshold, achieved.shape)
    wanted = rows_of(state, slice(None)) | {"goal": np.clip(achieved + aside, *bounds(desired))}
    wanted = simulation.renderer.goal_state(wanted)
    pictures = simulation.picture(state), simulation.picture(wanted)
    positions = achieved, wanted["goal"]
    distance = np.linalg.norm(positions[0] - positions[1], axis=1)
    within = np.abs(truth(simulation, wanted)[0] - wanted["goal"]).max(axis=1) < 1e-6  # reach
    assert within.mean() > 0.8
    band = 0.15 * simulation.renderer.view.side / 48
    clear = within & (np.abs(distance - rule.threshold) > band)
    success = simulation.rule.success(*pictures)
    np.testing.assert_array_equal(success[clear], rule.success(*positions)[clear])
    assert clear.mean() > 0.7
    assert 0.2 < success[clear].mean() < 0.8
    dense = MarkerRule(DistanceRule(rule.threshold, sparse=False), simulation.renderer.view)
    assert np.abs(dense.reward(*pictures) + distance)[within].max() < band


def bounds(desired):
    return desired.min(axis=0), desired.max(axis=0)


@every_family
def test_the_goal_image_is_of_a_state_that_satisfies_the_goal(family):
    simulation = pixels_of(family)
    state = visited(simulation, 500)
    reached = simulation.renderer.goal_state(state)
    achieved, desired = truth(simulation, reached)
    np.testing.assert_allclose(achieved, desired, atol=1e-6)
    for name in (name for name in reached if "velocity" in name):
        np.testing.assert_array_equal(reached[name], 0)
    observed = simulation.observe(state)
    np.testing.assert_array_equal(observed["desired_goal"], simulation.picture(reached))
    assert simulation.rule.success(simulation.picture(reached), observed["desired_goal"]).all()
    # A state at rest does not change.
    later = simulation.step(reached, np.zeros((500, *simulation.action_space.shape), np.float32))
    assert simulation.rule.success(simulation.picture(later), observed["desired_goal"]).all()


def test_the_pusher_of_a_goal_image_touches_nothing():
    renderer = renderer_of(pixels_of("PlanarPush").simulation)
    goal = GOAL_AREA * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1], [0, 0]], float)
    reached = renderer.goal_state({"goal": goal, "puck_velocity": np.ones((5, 2))})
    gap = np.linalg.norm(reached["pusher"] - reached["puck"], axis=1)
    np.testing.assert_allclose(gap, PUSHER_RADIUS + PUCK_RADIUS + 0.02)
    assert np.abs(reached["pusher"]).max() <= TABLE - PUSHER_RADIUS + 1e-12


def test_the_arm_of_a_goal_image_bends_one_way():
    simulation = pixels_of("PlanarReach")
    angle = simulation.renderer.goal_state(visited(simulation, 500))["angle"]
    assert (angle[:, 1] > 0).all()
    assert (angle[:, 1] < np.pi).all()
    stretched = simulation.renderer.goal_state({"goal": np.array([[0.6, 0.8]])})
    np.testing.assert_allclose(stretched["angle"], [[np.arctan2(0.8, 0.6), 0]], atol=1e-7)


@every_family
def test_an_image_shows_neither_goal_nor_velocity(family):
    simulation = pixels_of(family)
    state = visited(simulation, 20)
    other = {
        name: -value if name == "goal" or "velocity" in name else value
        for name, value in state.items()
    }
    np.testing.assert_array_equal(simulation.picture(state), simulation.picture(other))
    observed = simulation.observe(state)
    assert observed["observation"] is observed["achieved_goal"]
    assert observed["observation"].shape == (20, 48, 48, 3)
    assert observed["observation"].dtype == np.uint8
    assert len(np.unique(observed["observation"], axis=0)) == 20


@every_family
def test_images_do_not_depend_on_their_batch(family):
    simulation = pixels_of(family)
    state = visited(simulation, 40)
    batch = simulation.picture(state)
    for i in range(40):
        alone = simulation.picture(rows_of(state, slice(i, i + 1)))
        np.testing.assert_array_equal(alone[0], batch[i])


@every_family
def test_only_the_marker_has_its_colour(family):
    simulation = pixels_of(family)
    state = visited(simulation, 200)
    pictures = simulation.picture(state).astype(int)
    redness = pictures[..., 0] - pictures[..., 1]
    assert redness.min() == 0
    assert redness.max() == MARKER[0] - MARKER[1]
    middle = simulation.renderer.view.to_pixels(truth(simulation, state)[0], 48)
    column, row = np.moveaxis(np.indices((48, 48))[::-1] + 0.5, 0, -1).reshape(-1, 2).T
    distance = np.hypot(column - middle[:, :1], row - middle[:, 1:])
    far = distance.reshape(redness.shape) > 5
    assert (redness[far] == 0).all()


@every_family
def test_the_dynamics_are_the_familys(family):
    plain, pixels = make(f"rlkit/{family}-v0"), make(f"rlkit/{family}-Pixels-v0")
    assert plain.spec.max_episode_steps == pixels.spec.max_episode_steps
    assert plain.action_space == pixels.action_space
    assert plain.unwrapped.rule == pixels.unwrapped.rule.rule
    plain.reset(seed=4)
    pixels.reset(seed=4)
    pixels.action_space.seed(0)
    for _ in range(20):
        action = pixels.action_space.sample()
        plain.step(action)
        pixels.step(action)
    wanted = plain.unwrapped.get_state()["simulation"]
    state = pixels.unwrapped.get_state()["simulation"]
    for name, value in wanted.items():
        np.testing.assert_array_equal(state[name], value)


@every_family
def test_render_gives_the_familys_image(family):
    frames = []
    for name in (family, f"{family}-Pixels"):
        env = gym.make(f"rlkit/{name}-v0", render_mode="rgb_array")
        env.reset(seed=2)
        frames.append(env.render())
    np.testing.assert_array_equal(*frames)


@every_family
def test_factors_are_the_true_values(family):
    simulation = pixels_of(family)
    state = visited(simulation, 30)
    factors = simulation.factors(state)
    assert all(value.shape[0] == 30 and value.ndim == 2 for value in factors.values())
    position = factors[MARKERS[family.split("-")[0]]]
    np.testing.assert_allclose(position, truth(simulation, state)[0], atol=1e-6)
    if family == "PlanarReach":
        np.testing.assert_allclose(factors["angle"][:, 2:], np.sin(state["angle"]))
        np.testing.assert_allclose(factors["angle"][:, :2], np.cos(state["angle"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PointMaze-U", "PlanarReach", "PlanarPush"])
def test_laws(name):
    env = make(f"rlkit/{name}-Pixels-v0", max_episode_steps=25)
    assert [str(p) for p in check_env(lambda: env, episodes=2) if p.level != "note"] == []


@pytest.mark.parametrize("reward", ["sparse", "dense"])
def test_the_rule_is_the_wrapped_one_on_positions(reward):
    env = make("rlkit/PointMaze-U-Pixels-v0", reward=reward, terminates=True)
    rule = env.unwrapped.rule
    assert isinstance(rule, GoalRule)
    assert rule.reward_range == env.unwrapped.simulation.simulation.rule.reward_range
    assert pickle.loads(pickle.dumps(rule)) == rule
    simulation = env.unwrapped.simulation
    state = visited(simulation, 100)
    observed = simulation.observe(state)
    achieved, desired = observed["achieved_goal"], observed["desired_goal"]
    goals = np.concatenate([achieved[:50], desired[50:]])
    positions = rule.goal_vector(achieved), rule.goal_vector(goals)
    np.testing.assert_array_equal(rule.reward(achieved, goals), rule.rule.reward(*positions))
    np.testing.assert_array_equal(rule.terminated(achieved, goals), rule.success(achieved, goals))
    assert rule.terminated(achieved, goals)[:50].all()
    assert rule.reward(achieved, goals)[:50].tolist() == [0.0] * 50
    assert not make("rlkit/PointMaze-U-Pixels-v0").unwrapped.rule.terminated(achieved, goals).any()


def test_the_rule_of_a_batch_equals_its_rows_and_channels_first():
    simulation = pixels_of("PlanarReach", reward="dense")
    observed = simulation.observe(visited(simulation, 60))
    pair = observed["achieved_goal"], observed["desired_goal"]
    batch = simulation.rule.reward(*pair)
    rows = [simulation.rule.reward(*(p[i : i + 1] for p in pair))[0] for i in range(60)]
    np.testing.assert_array_equal(batch, rows)
    first = [np.ascontiguousarray(np.moveaxis(p, 3, 1)) for p in pair]
    np.testing.assert_array_equal(simulation.rule.reward(*first), batch)


def test_a_noisy_image_still_gives_its_position():
    simulation = pixels_of("PointMaze-U")
    state = visited(simulation, 200)
    noise = np.random.default_rng(0).normal(0, 4, (200, 48, 48, 3))
    noisy = np.clip(np.rint(simulation.picture(state) + noise), 0, 255).astype(np.uint8)
    error = simulation.rule.goal_vector(noisy) - state["position"]
    assert np.abs(error).max() < 0.15 * simulation.renderer.view.side / 48


def test_image_variants_have_native_vector_environments():
    venv = make_vec_env(make, "rlkit/PlanarPush-Pixels-v0", 3, seed=0)
    assert isinstance(venv.env.unwrapped.simulation, Pixels)
    assert venv.reset()["observation"].shape == (3, 48, 48, 3)
    assert vec_goal_rule(venv) == make("rlkit/PlanarPush-Pixels-v0").unwrapped.rule


def test_arguments_reach_the_family():
    env = make("rlkit/PointMaze-U-Pixels-v0", damping=0.5, size=64, reward="dense")
    assert env.observation_space["observation"].shape == (64, 64, 3)
    assert not env.unwrapped.rule.rule.sparse
    plain = PointMazeSimulation("U", "dense", False, 0.5)
    state = plain.initial(np.full((1, 6), 0.3))
    action = np.ones((1, 2), np.float32)
    after = env.unwrapped.simulation.step(state | {"goal_picture": np.zeros(1)}, action)
    np.testing.assert_array_equal(after["position"], plain.step(state, action)["position"])
    vector = gym.make_vec("rlkit/PointMaze-U-Pixels-v0", 2, size=32, maze="Open")
    assert vector.unwrapped.simulation.simulation.walls.shape == (7, 7)
    assert vector.single_observation_space["desired_goal"].shape == (32, 32, 3)


class Corner(MazeRenderer):
    """A user's renderer with a shifted view."""

    def __init__(self, simulation):
        super().__init__(simulation)
        self.view = View(-3.0, -2.0, 5.0)


def test_a_renderer_of_a_user():
    maze = PointMazeSimulation("U", "sparse", False)
    simulation = Pixels(maze, Corner(maze), 84)
    state = visited(simulation, 50)
    np.testing.assert_allclose(
        simulation.rule.goal_vector(simulation.picture(state)), state["position"], atol=0.01
    )


PICTURES = np.full((2, 48, 48, 3), 255, np.uint8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pixels_of("PointMaze-U", size=50), "32, 48, 64, 84, got 50"),
        (lambda: pixels_of("PlanarReach", links=3), "2 links.*got links=3"),
        (lambda: pixels_of("PlanarReach", reward="shaped"), "got 'shaped'"),
        (
            lambda: PixelsEnv("rlkit.envs.bit_flip:BitFlip"),
            "BitFlipSimulation has no renderer, PointMaze, PlanarReach and PlanarPush have",
        ),
        (
            lambda: PixelsEnv("gymnasium.envs.classic_control:CartPoleEnv"),
            "no Simulation, it builds CartPoleEnv",
        ),
        (
            lambda: Pixels(
                gym.make("rlkit/BitFlip-v0").unwrapped.simulation,
                renderer_of(PlanarReachSimulation()),
            ),
            "needs a DistanceRule, got ExactRule",
        ),
        (
            lambda: pixels_of("PlanarPush").rule.goal_vector(PICTURES),
            "image 0 of 2 shows no marker",
        ),
        (
            lambda: pixels_of("PlanarPush").rule.goal_vector(PICTURES / 255),
            r"got float64 of shape \(2, 48, 48, 3\)",
        ),
        (
            lambda: pixels_of("PlanarPush").rule.goal_vector(PICTURES[0]),
            r"got uint8 of shape \(48, 48",
        ),
        (lambda: pixels_of("PlanarPush").rule.goal_vector(PICTURES[..., :1]), r"\(2, 48, 48, 1\)"),
        (lambda: pixels_of("PlanarPush").rule.goal_vector(PICTURES[:, 1:]), r"\(2, 47, 48, 3\)"),
    ],
)
def test_wrong_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
