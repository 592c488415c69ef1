import shutil
import subprocess
from types import SimpleNamespace

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image
from small_envs import Bandit

from rlkit.experiment import pictures, video
from rlkit.experiment.evaluate import EpisodeResult
from rlkit.experiment.plots import goal_heat_map
from rlkit.experiment.recipe import make_recipe
from rlkit.experiment.run_logger import figure_pixels


class Shade(gym.Env):
    """A square that brightens."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    observation_space = spaces.Box(0, 1, (1,))
    action_space = spaces.Box(0, 1, (1,))

    def __init__(self, size=(301, 401), picture=True):
        self.render_mode = "rgb_array"
        self.size, self.picture, self.seeds = size, picture, []

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), 0.0, False, self.steps == 30, {}

    def render(self):
        return np.full((*self.size, 3), 8 * self.steps, np.uint8) if self.picture else None


class Reaches(Shade):
    """Reports success from one step on, and until another."""

    def __init__(self, step, leaves=1000):
        super().__init__(size=(4, 4))
        self.success = range(step, leaves)

    def step(self, action):
        observation, reward, terminated, truncated, _ = super().step(action)
        return (
            observation,
            reward,
            terminated,
            truncated,
            {"is_success": self.steps in self.success},
        )


def decode(path, width, height):
    program = imageio_ffmpeg.get_ffmpeg_exe()
    options = ["-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-loglevel", "error", "-"]
    raw = subprocess.run([program, *options], capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


class Still:
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros(1, np.float32), state


@pytest.mark.slow
def test_a_video_holds_every_frame_and_the_gif_moves(tmp_path):
    env = Shade()
    path = tmp_path / "videos" / "a.mp4"
    small = video.record(Still(), env, path, episodes=2, seed=5)
    frames = decode(path, 402, 302)  # even, as the pixel format demands
    assert len(frames) == 2 * (31 + 10)  # every observation, and half a second at the end
    assert frames[30].mean() == pytest.approx(240, abs=4)
    assert env.seeds == [5, 6]
    assert [path.name for path in path.parent.iterdir()] == ["a.mp4"]
    (tmp_path / "a.gif").write_bytes(video.gif(small))
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames > 10
        assert image.size[0] == 240
        assert image.info["loop"] == 0


def test_an_episode_is_shown_until_half_a_second_after_its_success():
    frames = list(video.frames_of(Still(), Reaches(12), episodes=1, seed=0))
    assert (
        len(frames) == 1 + 12 + 10 - 1
    )  # the step of the success counts as the first that holds it
    # The goal is left again at once: the episode goes on to its end.
    assert len(list(video.frames_of(Still(), Reaches(12, leaves=13), 1, 0))) == 1 + 30 + 10


def test_without_pictures_there_is_a_message_and_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"renders no images.*rgb_array"):
        video.record(Still(), Shade(picture=False), tmp_path / "a.mp4", 1, 0)
    assert list(tmp_path.iterdir()) == []


def without_render_mode(env_id, **options):
    return Bandit(**options)


@pytest.mark.parametrize("is_separate", [True, False])
def test_an_environment_that_takes_no_render_mode_is_one_that_draws_nothing(tmp_path, is_separate):
    make = without_render_mode if is_separate else lambda *a, **kw: without_render_mode(*a, **kw)
    session = SimpleNamespace(make=make, recipe=make_recipe({"env": "Bandit-v0"}))
    with pytest.raises(ValueError, match=r"takes no render_mode\. Give it render_mode=None"):
        pictures.record(session, tmp_path / "a.mp4", 1)


def test_an_encoder_that_fails_says_why(tmp_path):
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be encoded: .+"):
        video.record(Still(), Shade(size=(20_000, 2)), tmp_path / "a.mp4", 1, 0)
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_ends_early_is_an_error_with_frames_still_buffered(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_encoder_program", lambda: shutil.which("false"))
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be encoded: exit code 1 "):
        video.record(Still(), Shade(size=(20, 60)), tmp_path / "a.mp4", 1, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_heat_map_shows_where_goals_are_reached():
    x, y = np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 32))
    goals = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1)
    figure = goal_heat_map(goals, goals[:, 0] > 0, title="half")
    shares = figure.axes[0].collections[0].get_array().reshape(16, 16)
    assert (shares[:, :7] == 0).all()
    assert (shares[:, 9:] == 1).all()
    assert figure_pixels(figure).shape == (520, 620, 3)


def test_evaluated_goals_are_marked_even_without_training_data():
    points = [np.array([i, 2.0 * i]) for i in range(5)]
    rows = [EpisodeResult(i, 1, 0.0, i > 1, p, p, p) for i, p in enumerate(points)]
    axes = goal_heat_map(np.empty((0, 2)), np.empty(0), rows).axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["test goal reached (3)", "test goal missed (2)"]


@pytest.mark.parametrize("goals", [np.empty((0, 2)), np.eye(5), np.empty((0, 0))])
def test_no_goals_and_bits_give_no_map(goals):
    assert goal_heat_map(goals, np.ones(len(goals), bool)) is None


def test_cells_show_how_many_goals_they_stand_for():
    goals = np.array([[0.0, 0.0], [0.01, 0.01], [1.0, 1.0]])
    axes = goal_heat_map(goals, np.array([True, False, False]), names=("x (m)", "y (m)")).axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ["1", "2"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x (m)", "y (m)")
    opacity = axes.collections[0].get_alpha()
    assert opacity.min() < 0.6  # a share of one or two goals is no evidence, and looks like none


def test_a_goal_of_one_dimension_gets_bars():
    goals = np.linspace(-1, 1, 48)[:, None]
    rows = [EpisodeResult(0, 1, 0.0, True, goals[0], goals[0], goals[0])]
    axes = goal_heat_map(goals, goals[:, 0] > 0, rows, names=("angle (rad)",)).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [0, 0, 0, 1, 1, 1]
    assert sum(int(text.get_text()) for text in axes.texts) == 48
    assert axes.get_xlabel() == "angle (rad)"
