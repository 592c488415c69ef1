"""Forecasts of images: imagined latents, decoded next to the true ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rlkit.experiment.video import gif
from rlkit.latents import FittedLatent

_COLUMNS = (0, 1, 2, 3, 5, 8, 12, 15, 20, 30, 40, 50)  # steps of a strip
_SIDE = 96  # pixels of an image in the animation, at least
_MARGIN = 4  # pixels between images
_WINDOWS = 2  # in a figure
Array = NDArray[Any]


def decoded(
    latent: FittedLatent, past: Array, truth: Array, samples: Array, columns: Sequence[int]
) -> list[Array]:
    """Images `(3, H + 1, *image)` in [0, 1] of a few windows: truth, mean, and one sample.

    Args:
        latent: The latent model.
        past: Context `(b, C + 1, F)`.
        truth: `(b, H, F)`.
        samples: Forecasts `(S, b, H, F)`.
        columns: Which columns are latents.
    """
    found, picked = [], list(columns)
    for window in range(min(len(past), _WINDOWS)):
        now = past[window][-1:, picked]
        trajectories = (truth[window], samples[:, window].mean(0), samples[0, window])
        paths = np.stack(
            [np.concatenate([now, trajectory[:, picked]]) for trajectory in trajectories]
        )
        drawn = latent.decode(paths.astype(np.float32))
        found.append(np.asarray(drawn))
    return found


def strip(windows: list[Array], of: str) -> Figure:
    """Truth above forecast, step by step; see `decoded`."""
    steps = [step for step in _COLUMNS if step < windows[0].shape[1]]
    rows = [window[kind, steps] for window in windows for kind in range(3)]
    height, width = rows[0].shape[1:3]
    padded = [np.pad(row, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0) for row in rows]
    lines = [np.concatenate(list(row), axis=1) for row in padded]
    gap = np.ones((height // 5, *lines[0].shape[1:]))
    spaced = [part for i, line in enumerate(lines) for part in ([gap, line] if i == 3 else [line])]
    tiled = np.concatenate(spaced, axis=0)
    inches = 0.85 * np.array([len(steps) * width / height, len(rows)])
    figure = Figure(figsize=(inches[0] + 1.2, inches[1] + 1.0), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    drawn = tiled if tiled.shape[2] == 3 else tiled.mean(2)
    axes.imshow(drawn.clip(0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    middle = [(i + 0.5) * (width + 2) - 0.5 for i in range(len(steps))]
    axes.set_xticks(middle, [str(step) for step in steps])
    middle = [(i + 0.5) * (height + 2) - 0.5 + len(gap) * (i >= 3) for i in range(len(rows))]
    axes.set_yticks(middle, ["truth", "mean forecast", "one sample"] * len(windows))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set(xlabel="steps from the present, without observations")
    axes.set_title(f"Latents imagined by {of}, decoded", fontsize=11)
    return figure


def animation(windows: list[Array]) -> tuple[bytes, int, int]:
    """Truth, mean and one sample side by side, as an animated GIF, its height and its width."""
    times = max(1, -(-_SIDE // windows[0].shape[2]))
    frames = []
    for window in windows:
        for step in range(window.shape[1]):
            images = [_enlarged(window[kind, step], times) for kind in range(3)]
            frames.append(np.concatenate(images, axis=1))
    height, width = frames[0].shape[:2]
    return gif(frames), height, width


def _enlarged(image: Array, times: int) -> NDArray[np.uint8]:
    colour = np.broadcast_to(image, (*image.shape[:2], 3))
    large = np.repeat(np.repeat(colour, times, 0), times, 1)
    drawn = np.pad(large, ((_MARGIN,) * 2, (_MARGIN,) * 2, (0, 0)), constant_values=1.0)
    return np.asarray((drawn.clip(0, 1) * 255).round(), np.uint8)
