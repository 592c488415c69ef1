"""Observations on their way into a latent model: checked, made tensors, standardised."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Frames = Tensor | NDArray[Any]
CHUNK = 256


def as_tensor(x: Frames, images: bool) -> Tensor:
    """Rows as a tensor, uint8 or float32.

    Raises:
        ValueError: If they hold numbers that are none, or images are of another type or range.
    """
    # Copied: a memory map is read-only, and torch shares memory only with what it may write.
    rows = x if isinstance(x, Tensor) else torch.from_numpy(np.array(x))
    if rows.dtype == torch.uint8:
        return rows
    if images and not rows.is_floating_point():
        raise ValueError(
            f"images are bytes (uint8), or floats in [0, 1], got {str(rows.dtype)[6:]}: convert "
            f"them with .astype(numpy.uint8)"
        )
    rows = rows.float()
    if rows.numel() == 0:
        return rows
    low, high = (float(end) for end in torch.aminmax(rows))
    if not (np.isfinite(low) and np.isfinite(high)):
        at = tuple((~rows.isfinite()).nonzero()[0].tolist())
        raise ValueError(
            f"observations must be finite, found {float(rows[at])} at index {at}; look for what "
            f"the environment divides by"
        )
    if images and not (low >= 0 and high <= 1):
        raise ValueError(
            f"images as floats are in [0, 1], found {low if low < 0 else high:.6g}: give them as "
            f"uint8, or divide by 255"
        )
    return rows


def require_shape(x: Frames, shape: tuple[int, ...], what: str) -> None:
    """Raises a ValueError unless the last axes of an array are a shape."""
    if tuple(x.shape[max(x.ndim - len(shape), 0) :]) != shape:
        advice = ""
        if len(shape) == 3 and tuple(x.shape[-3:]) == (shape[2], *shape[:2]):
            advice = "; images have their channels last, use numpy.moveaxis(images, -3, -1)"
        wanted = ", ".join(str(n) for n in ("...", *shape))
        raise ValueError(f"{what} have shape {tuple(x.shape)}, not ({wanted}){advice}")


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
            return  # bytes are always numbers; floats are looked at to the end
    if not varied:
        raise ValueError(
            f"all {len(frames)} frames are the same, there is nothing to learn from them; let the "
            f"environment act between them, and look at what its camera sees"
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
    # What is left of a constant is rounding noise; dividing by that would blow it up.
    varies = deviation > 1e-5 * mean.abs() + 1e-12
    scale = torch.where(varies, 1 / deviation.clamp(min=1e-12), 1.0)
    return mean.float(), scale.float()


def chunks(frames: Frames, images: bool) -> Iterator[Tensor]:
    """Frames `(N, ...)` as tensors of a few hundred rows, checked."""
    for start in range(0, len(frames), CHUNK):
        yield as_tensor(frames[start : start + CHUNK], images)
