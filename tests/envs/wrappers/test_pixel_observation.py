import os
import pickle
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import TimeLimit
from PIL import Image

from rlkit.envs import make as construct
from rlkit.envs.make import make
from rlkit.envs.point_maze import PointMazeSimulation
from rlkit.envs.simulation_env import SimulationEnv
from rlkit.envs.wrappers.pixel_observation import PixelGoals, PixelObservation
from rlkit.envs.wrappers.pixel_simulation import MarkerRule, Pixels, renderer_of
from rlkit.goals import DistanceRule, goal_rule
from rlkit.goals.check import check_env as check_training
from rlkit.vec.env_state import env_state, set_env_state


class Maze(SimulationEnv):
    """PointMaze with small images of itself and of its goal."""

    def __init__(self, render_mode="rgb_array"):
        maze = PointMazeSimulation("U", "sparse", False)
        super().__init__(maze, render_mode)
        self.pixels = Pixels(maze, renderer_of(maze), 64)

    def render(self):
        return self.pixels.picture(self._state)[0]

    def goal_picture(self):
        return self.pixels.picture(self.pixels.renderer.goal_state(self._state))[0]


class Clock(gym.Env):
    """Renders its clock, so that an image shows its time."""

    render_mode = "rgb_array"
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (as in gym.Env)
    observation_space = spaces.Dict(time=spaces.Discrete(100))
    action_space = spaces.Discrete(2)
    picture = np.zeros((40, 60, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 1
        return {"time": 1}, {}

    def step(self, action):
        self.time += 1
        return {"time": self.time}, float(self.time), False, self.time == 9, {}

    def render(self):
        return self.picture + np.uint8(self.time)


RULE = MarkerRule(DistanceRule(0.45), Maze().pixels.renderer.view)
WRAPPERS = {
    "observation": PixelObservation,
    "grey stack": lambda env: PixelObservation(env, size=32, grayscale=True, frames=3),
    "goals": lambda env: PixelGoals(env, rule=RULE),
    "goals stack": lambda env: PixelGoals(env, rule=RULE, frames=2),
}
# The checker warns of every wrapper.
checked = pytest.mark.filterwarnings("ignore:.*unwrapped")
every_wrapper = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())


def rollout(env, steps, seed=5):
    space = pickle.loads(pickle.dumps(env.action_space))
    space.seed(seed)
    return [env.step(space.sample()) for _ in range(steps)]


def assert_same(one, two):
    for left, right in zip(one, two, strict=True):
        for key in left[0]:
            np.testing.assert_array_equal(left[0][key], right[0][key], strict=True)
        assert left[1:] == right[1:]


@pytest.mark.slow
@every_wrapper
def test_laws(wrap):
    env = TimeLimit(wrap(Maze()), 30)
    assert [str(p) for p in check_training(lambda: env) if p.level != "note"] == []


@checked
@every_wrapper
def test_gymnasium_checker_passes(wrap):
    check_env(wrap(Maze()), skip_render_check=True)


@every_wrapper
def test_a_saved_state_continues_bit_for_bit(wrap):
    one, two = wrap(Maze()), wrap(Maze())
    one.reset(seed=1)
    two.reset(seed=2)
    rollout(one, 8)
    state = env_state(one)
    wanted = rollout(one, 20)
    set_env_state(two, state)
    assert_same(rollout(two, 20), wanted)


@pytest.mark.slow
def test_only_the_observation_changes():
    plain, env = (
        make("rlkit/PointMaze-U-v0"),
        PixelObservation(make("rlkit/PointMaze-U-v0", render_mode="rgb_array"), size=32),
    )
    assert goal_rule(env) == goal_rule(plain)
    first, other = plain.reset(seed=3)[0], env.reset(seed=3)[0]
    plain.action_space.seed(0)
    for _ in range(5):
        assert env.observation_space.contains(other)
        for key in ("achieved_goal", "desired_goal"):
            np.testing.assert_array_equal(other[key], first[key])
        shrunk = Image.fromarray(env.render()).resize((32, 32), Image.Resampling.BOX)
        np.testing.assert_array_equal(other["observation"], np.array(shrunk))
        action = plain.action_space.sample()
        first, *rest = plain.step(action)
        other, *others = env.step(action)
        assert rest == others


@pytest.mark.parametrize(("grayscale", "channels"), [(False, 3), (True, 1)])
def test_frames_are_stacked_oldest_first(grayscale, channels):
    env = PixelObservation(Clock(), size=20, grayscale=grayscale, frames=3)
    assert env.observation_space == spaces.Box(0, 255, (20, 20, 3 * channels), np.uint8)
    observed = [env.reset(seed=0)[0]] + [env.step(0)[0] for _ in range(4)]
    times = [picture[0, 0, ::channels].tolist() for picture in observed]
    assert times == [[1, 1, 1], [1, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]
    assert all((picture == picture[0, 0]).all() for picture in observed)
    assert env.reset()[0][0, 0, ::channels].tolist() == [1, 1, 1]


@checked
def test_an_environment_without_goals_keeps_its_rewards():
    env = PixelObservation(Clock(), size=20)
    check_env(env, skip_render_check=True)
    env.reset(seed=0)
    assert [step[1] for step in (env.step(1) for _ in range(3))] == [2.0, 3.0, 4.0]
    assert [
        p for p in check_training(lambda: env) if p.level != "note" and p.law != "action effect"
    ] == []


def test_a_spec_rebuilds_the_wrapper():
    inner = make("rlkit/PointMaze-U-v0", render_mode="rgb_array")
    env = PixelObservation(inner, size=32, grayscale=True, frames=2)
    again = gym.make(env.spec)
    assert again.observation_space == env.observation_space
    np.testing.assert_array_equal(
        again.reset(seed=4)[0]["observation"], env.reset(seed=4)[0]["observation"]
    )


def test_goals_become_images():
    env = PixelGoals(Maze(), rule=RULE, size=64, frames=2)
    observation = env.reset(seed=0)[0]
    np.testing.assert_array_equal(observation["desired_goal"], env.unwrapped.goal_picture())
    for action in np.random.default_rng(0).uniform(-1, 1, (30, 2)).astype(np.float32):
        observation, reward, terminated, _, info = env.step(action)
        assert env.observation_space.contains(observation)
        np.testing.assert_array_equal(observation["achieved_goal"], env.render())
        np.testing.assert_array_equal(observation["observation"][..., 3:], env.render())
        pair = observation["achieved_goal"], observation["desired_goal"]
        assert reward == env.compute_reward(*pair) == RULE.reward(*(p[None] for p in pair))[0]
        assert (terminated, info["is_success"]) == (False, reward == 0)
    rule = MarkerRule(DistanceRule(9.0, terminates=True), RULE.view)
    env = PixelGoals(Maze(), rule=rule)
    assert env.reset(seed=0)[1]["is_success"]
    assert env.step(env.action_space.sample())[1:3] == (0.0, True)


def test_a_function_may_render_the_goal():
    def drawn(env):
        return Clock.picture + np.uint8(env.unwrapped.time + 99)

    env = PixelGoals(Clock(), drawn, size=10, grayscale=True)
    assert (env.reset(seed=0)[0]["desired_goal"] == 100).all()
    observation, reward, _, _, info = env.step(0)
    assert (observation["desired_goal"] == 100).all()
    assert (observation["achieved_goal"] == 2).all()
    assert (reward, info) == (2.0, {})


def test_image_goals_without_a_rule():
    env, plain = PixelGoals(Maze()), Maze()
    env.reset(seed=0)
    plain.reset(seed=0)
    for one, other in zip(rollout(env, 10), rollout(plain, 10), strict=True):
        assert one[1:] == other[1:]
    observation = one[0]
    pair = observation["achieved_goal"], observation["desired_goal"]
    rule = goal_rule(env)
    assert rule.reward_range == (-np.inf, np.inf)
    batch = [picture[None] for picture in pair]
    for function in (rule.success, rule.terminated, rule.reward, env.compute_reward):
        with pytest.raises(ValueError, match="PixelGoals a rule= for images"):
            function(*batch)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PixelObservation(Clock(), size=0), "size must be .* at least 1, got 0"),
        (lambda: PixelObservation(Clock(), frames=1.5), "frames must be an integer .* got 1.5"),
        (lambda: PixelObservation(Maze(None)), 'render_mode="rgb_array", got None of <Maze'),
        (lambda: PixelGoals(Clock()), r"no method goal_picture\(\): pass goal_picture="),
        (
            lambda: PixelGoals(Clock(), lambda env: np.zeros((5, 5))).reset(),
            r"uint8 array \(H, W, 3\), .* gave float64 of shape \(5, 5\)",
        ),
    ],
)
def test_wrong_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def robot(**arguments):
    pytest.importorskip("gymnasium_robotics", reason="the extra `robotics` is not installed")
    return make("rlkit/FetchReach-Pixels-v0", **arguments)


@pytest.mark.slow
def test_fetch_reach_from_pixels():
    env, again, plain = robot(), robot(), make("FetchReach-v4")
    try:
        env.reset(seed=0)
    except RuntimeError as error:
        pytest.skip(str(error))
    assert env.observation_space["observation"] == spaces.Box(0, 255, (64, 64, 3), np.uint8)
    assert env.spec.max_episode_steps == plain.spec.max_episode_steps
    assert goal_rule(env) == goal_rule(plain)
    plain.reset(seed=0)
    for one, other in zip(rollout(env, 5), rollout(plain, 5), strict=True):
        np.testing.assert_array_equal(one[0]["achieved_goal"], other[0]["achieved_goal"])
        assert one[1:] == other[1:]
    # The goal is a red ball, unless it is hidden.
    picture = one[0]["observation"].astype(int)
    assert picture.std() > 20
    assert (picture[..., 0] - picture[..., 1] < 40).all()
    with_goal = robot(show_goal=True)
    balls = with_goal.reset(seed=0)[0]["observation"].astype(int)
    assert (balls[..., 0] - balls[..., 1] > 100).any()
    again.reset(seed=9)
    set_env_state(again, env_state(env))
    set_env_state(env, env_state(env))
    assert_same(rollout(again, 5), rollout(env, 5))
    assert [str(p) for p in check_training(lambda: again, episodes=1) if p.level != "note"] == []
    for opened in (env, again, with_goal):
        opened.close()


def test_a_robot_that_cannot_be_rendered_names_the_package(monkeypatch):
    env = robot()

    def fail():
        raise AttributeError("no context")

    monkeypatch.setattr(env.unwrapped.robot, "render", fail)
    message = r"AttributeError: no context.*apt install libegl1.*MUJOCO_GL=egl.*libosmesa6"
    with pytest.raises(RuntimeError, match=message):
        env.reset(seed=0)


def test_without_a_screen_egl_is_chosen(monkeypatch):
    pytest.importorskip("gymnasium_robotics", reason="the extra `robotics` is not installed")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: f"lib{name}.so")
    monkeypatch.setattr(sys, "platform", "linux")
    for chosen, display, mode, wanted in (
        (None, None, "rgb_array", "egl"),
        (None, None, None, None),
        (None, ":0", "rgb_array", None),
        ("osmesa", None, "rgb_array", "osmesa"),
    ):
        names = {"MUJOCO_GL": chosen, "DISPLAY": display, "WAYLAND_DISPLAY": None}
        for name, value in names.items():
            monkeypatch.setenv(name, str(value))  # undone after the test
            if value is None:
                monkeypatch.delenv(name)
        make("FetchReach-v4", render_mode=mode)
        assert os.environ.get("MUJOCO_GL") == wanted


@pytest.mark.slow
def test_only_fetch_hides_its_goal():
    pytest.importorskip("gymnasium_robotics", reason="the extra `robotics` is not installed")
    with pytest.raises(ValueError, match="is for Fetch tasks, got PointMazeEnv"):
        make("PointMaze_UMaze-v3", show_goal=False)


def test_fetch_pixels_without_its_extra(monkeypatch):
    monkeypatch.setattr(construct, "_import_robotics", lambda: False)
    with pytest.raises(ValueError, match=r"FetchReach-Pixels-v0.*rlkit-suite\[robotics\]"):
        make("rlkit/FetchReach-Pixels-v0")
