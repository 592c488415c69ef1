"""Frames that a latent model is fitted to: checks, moments, and reading in chunks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rlkit.latents.networks import Frames, as_tensor, require_shape

CHUNK = 256


def require_frames(frames: Frames, shape: tuple[int, ...]) -> None:
    """Raises a ValueError unless there is something to learn from `frames (N, *shape)`."""
    require_shape(frames, shape, "frames")
    if frames.ndim != len(shape) + 1 or len(frames) < 2:
        wanted = ", ".join(str(n) for n in ("N", *shape))
        raise ValueError(f"frames have shape {tuple(frames.shape)}, not ({wanted}) with N >= 2")
    first: Tensor | None = None
    varied = False
    for rows in chunks(frames, len(shape) == 3):
        first = rows[:1] if first is None else first
        varied = varied or bool((rows != first).any())
        if varied and rows.dtype == torch.uint8:
            return  # bytes are always finite; floats are checked to the end
    if not varied:
        raise ValueError(
            f"all {len(frames)} frames are the same, there is nothing to learn from them; let the "
            f"environment act between them, and check its images"
        )


def moments(frames: Frames) -> tuple[Tensor, Tensor]:
    """Mean and one over the deviation `(F,)` of vectors `(N, F)`; 1 for what does not vary."""
    total, square = (torch.zeros(frames.shape[1]).double() for _ in range(2))
    for rows in chunks(frames, False):
        total += rows.cpu().double().sum(0)
    mean = total / len(frames)
    for rows in chunks(frames, False):
        square += (rows.cpu().double() - mean).square().sum(0)
    deviation = (square / len(frames)).sqrt()
    # Not divided by the rounding noise that is left of a constant.
    varies = deviation > 1e-5 * mean.abs() + 1e-12
    scale = torch.where(varies, 1 / deviation.clamp(min=1e-12), 1.0)
    return mean.float(), scale.float()


def chunks(frames: Frames, images: bool) -> Iterator[Tensor]:
    """Frames `(N, ...)` as tensors of a few hundred rows, checked."""
    for start in range(0, len(frames), CHUNK):
        yield as_tensor(frames[start : start + CHUNK], images)
