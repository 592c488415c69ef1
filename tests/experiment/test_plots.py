import json
import subprocess

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from rlkit.experiment import video
from rlkit.experiment.evaluate import EpisodeResult
from rlkit.experiment.plots import (
    bootstrap_interval,
    goal_heat_map,
    interquartile_mean,
    success_curves,
)
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


def test_without_pictures_there_is_a_message_and_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"renders no images.*rgb_array"):
        video.record(Still(), Shade(picture=False), tmp_path / "a.mp4", 1, 0)
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_fails_says_why(tmp_path):
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be encoded: .+"):
        video.record(Still(), Shade(size=(20_000, 2)), tmp_path / "a.mp4", 1, 0)
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


@pytest.mark.parametrize("goals", [np.empty((0, 2)), np.ones((5, 1)), np.eye(5), np.empty((0, 0))])
def test_goals_that_are_no_points_of_a_plane_give_no_map(goals):
    assert goal_heat_map(goals, np.ones(len(goals), bool)) is None


def write_run(path, successes, agent="sac", every=10, finished=True):
    path.mkdir()
    (path / "recipe.toml").write_text(make_recipe({"env": "E", "agent": agent}).to_toml())
    rows = [
        {"step": every * (i + 1), "success_rate": value, "return_mean": -1.0 - i, "final": False}
        for i, value in enumerate(successes)
    ]
    if rows:
        rows[-1]["final"] = finished
    (path / "evaluations.json").write_text(json.dumps(rows))
    return path


def lines(figure):
    return {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].get_lines()}


def test_runs_of_one_env_and_agent_share_a_curve(tmp_path):
    runs = [write_run(tmp_path / f"s{i}", [0.0, 0.3 * i, 1.0]) for i in range(3)]
    other = write_run(tmp_path / "t", [0.5], agent="td3")
    drawn = lines(success_curves([*runs, other]))
    assert drawn["E, sac (IQM of 3, 95 % interval)"] == [[10, 0], [20, pytest.approx(0.3)], [30, 1]]
    assert drawn["E, td3"] == [[10, 0.5]]


def test_a_run_that_stopped_early_keeps_its_last_value(tmp_path):
    runs = [write_run(tmp_path / "a", [0.2, 1.0]), write_run(tmp_path / "b", [0.2, 0.2, 0.6])]
    assert lines(success_curves(runs))["E, sac (mean and range of 2)"][-1] == [30, 0.8]


def test_a_curve_ends_where_one_of_its_runs_was_interrupted(tmp_path):
    runs = [
        write_run(tmp_path / "a", [0.2, 0.4], finished=False),
        write_run(tmp_path / "b", [0.2, 0.2, 0.6]),
    ]
    drawn = lines(success_curves(runs))["E, sac (mean and range of 2)"]
    assert drawn == [[10, 0.2], [20, pytest.approx(0.3)]]


def test_without_success_returns_are_drawn(tmp_path):
    assert lines(success_curves([write_run(tmp_path / "a", [None, None])]))["E, sac"] == [
        [10, -1],
        [20, -2],
    ]


def test_nothing_to_plot_is_named(tmp_path):
    with pytest.raises(ValueError, match="is no run"):
        success_curves([tmp_path / "none"])
    with pytest.raises(ValueError, match="no evaluations"):
        success_curves([write_run(tmp_path / "a", [])])


def test_interquartile_mean_and_its_interval():
    values = np.array([[0.0], [1.0], [2.0], [100.0]])
    assert interquartile_mean(values) == pytest.approx([1.5])
    assert interquartile_mean(values[:3]) == pytest.approx([1.0])
    low, high = bootstrap_interval(np.random.default_rng(0).normal(size=(40, 1)))
    assert low < 0 < high
    assert high - low < 1.2
