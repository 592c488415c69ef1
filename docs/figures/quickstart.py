"""Draws the README's figure: `python docs/figures/quickstart.py runs/out/quickstart`."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

import gymnasium as gym
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rlkit.envs  # noqa: F401  registers the ids
from rlkit.experiment.curves import success_curves
from rlkit.experiment.run_logger import figure_pixels

HEIGHT, GAP = 420, 24


def panels(run: Path) -> list[Image.Image]:
    """The maze, success over steps, and the last heat map of the run."""
    env = gym.make("rlkit/PointMaze-U-v0", render_mode="rgb_array")
    env.reset(seed=29)  # start and goal at the two ends of the U
    curve = success_curves([run])
    curve.set_size_inches(6.0, 5.2)
    events = EventAccumulator(str(run), size_guidance={"images": 0})
    events.Reload()
    heat_map = events.Images("eval/goal_heat_map")[-1].encoded_image_string
    return [
        Image.fromarray(env.render()),
        Image.fromarray(figure_pixels(curve)),
        Image.open(BytesIO(heat_map)).convert("RGB"),
    ]


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """Pictures in a row, of one height."""
    scaled = [
        picture.resize((picture.width * HEIGHT // picture.height, HEIGHT), Image.Resampling.LANCZOS)
        for picture in pictures
    ]
    width = sum(picture.width for picture in scaled) + GAP * (len(scaled) - 1)
    row, x = Image.new("RGB", (width, HEIGHT), "white"), 0
    for picture in scaled:
        row.paste(picture, (x, 0))
        x += picture.width + GAP
    return row


if __name__ == "__main__":
    side_by_side(panels(Path(sys.argv[1]))).save(Path(__file__).with_suffix(".png"), optimize=True)
