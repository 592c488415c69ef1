"""Batches of small images of two-dimensional worlds, in NumPy.

Edges are anti-aliased by distance: a pixel whose centre is d pixels inside a shape's edge has the
coverage clip(0.5 + d, 0, 1). All operations are elementwise, so that each row of a batch has the
same values, bit for bit, as in a batch of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlkit.envs.rendering.drawing import Colour

Pictures = NDArray[np.uint8]
Positions = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class View:
    """The square part of a two-dimensional world that an image shows, x to the right and y up.

    Attributes:
        left: Smallest x in view, metres.
        bottom: Smallest y in view, metres.
        side: Width and height, metres, > 0.
    """

    left: float
    bottom: float
    side: float

    def __post_init__(self) -> None:
        if not self.side > 0:
            raise ValueError(f"a view's side must be positive, got {self.side}")

    def to_pixels(self, world: ArrayLike, size: int) -> NDArray[np.float64]:
        """Columns and rows `(..., 2)`, from the upper left corner, of positions `(..., 2)`."""
        positions, scale = np.asarray(world, np.float64), size / self.side
        column = (positions[..., 0] - self.left) * scale
        return np.stack([column, size - (positions[..., 1] - self.bottom) * scale], axis=-1)

    def to_world(self, pixels: ArrayLike, size: int) -> NDArray[np.float64]:
        """Positions `(..., 2)`, metres, of columns and rows `(..., 2)`."""
        positions, scale = np.asarray(pixels, np.float64), self.side / size
        x = self.left + positions[..., 0] * scale
        return np.stack([x, self.bottom + (size - positions[..., 1]) * scale], axis=-1)


def centred_view(side: float) -> View:
    """The view of a square around the origin."""
    return View(-side / 2, -side / 2, side)


class Raster:
    """Draws shapes over batches of images `(N, size, size, 3)`, in place.

    Lengths are metres. Only the pixels of a window around each shape are computed.

    Args:
        view: The part of the world that the images show.
        size: Width and height of the images, pixels.

    Attributes:
        pixel: Width of a pixel in metres.
    """

    def __init__(self, view: View, size: int) -> None:
        self.view = view
        self.size = size
        self.pixel = view.side / size

    def filled(self, colour: Colour) -> Pictures:
        """A batch of one image of a single colour, `(1, size, size, 3)`."""
        return np.full((1, self.size, self.size, 3), colour, np.uint8)

    def squares(self, pictures: Pictures, centres: ArrayLike, side: float, colour: Colour) -> None:
        """Draws the same K upright squares, which do not overlap, over every image.

        Args:
            pictures: Images to draw on, `(N, size, size, 3)`.
            centres: Centres of the squares, metres, `(K, 2)`.
            side: Width and height of a square, metres.
            colour: Colour of the squares.
        """
        middles = np.arange(self.size) + 0.5
        offset = np.abs(self.view.to_pixels(centres, self.size)[:, :, None] - middles)
        along = np.clip(0.5 + side / self.pixel / 2 - offset, 0, 1)
        # Summed before blending, so that there is no seam where adjacent squares share pixels.
        coverage = np.einsum("kj,ki->ij", along[:, 0], along[:, 1]).astype(np.float32)
        pictures[:] = _over(pictures, np.minimum(coverage, 1), colour)

    def disc(self, pictures: Pictures, centre: Positions, radius: float, colour: Colour) -> None:
        """Draws one disc over each image.

        Args:
            pictures: Images to draw on, `(N, size, size, 3)`.
            centre: Centres of the discs, metres, `(N, 2)`.
            radius: Radius of the discs, metres.
            colour: Colour of the discs.
        """
        reach = np.float32(radius / self.pixel + 0.5)
        position = self.view.to_pixels(centre, self.size).astype(np.float32)
        window = self._window(position - reach, 2 * float(reach))
        x, y = _offsets(window, position)
        coverage = np.clip(reach - np.sqrt(x * x + y * y), 0, 1)
        self._blend(pictures, window, coverage, colour)

    def bar(
        self, pictures: Pictures, start: Positions, end: Positions, width: float, colour: Colour
    ) -> None:
        """Draws one straight bar with round ends over each image.

        Args:
            pictures: Images to draw on, `(N, size, size, 3)`.
            start: First ends of the bars, metres, `(N, 2)`.
            end: Second ends of the bars, `(N, 2)`; different from the first ones.
            width: Width of the bars, metres.
            colour: Colour of the bars.
        """
        reach = np.float32(width / self.pixel / 2 + 0.5)
        tail = self.view.to_pixels(start, self.size).astype(np.float32)
        along = self.view.to_pixels(end, self.size).astype(np.float32) - tail
        squared = along[:, 0] * along[:, 0] + along[:, 1] * along[:, 1]
        extent = math.sqrt(float(squared.max(initial=0))) + 2 * float(reach)
        window = self._window(np.minimum(tail, tail + along) - reach, extent)
        x, y = _offsets(window, tail)
        across, down = along[:, 0, None, None], along[:, 1, None, None]
        nearest = np.clip((x * across + y * down) / squared[:, None, None], 0, 1)
        x, y = x - nearest * across, y - nearest * down
        coverage = np.clip(reach - np.sqrt(x * x + y * y), 0, 1)
        self._blend(pictures, window, coverage, colour)

    def _window(self, corner: NDArray[np.float32], extent: float) -> NDArray[np.intp]:
        """Columns and rows `(N, 2, K)` of square windows of at least `extent` from a corner."""
        width = min(math.ceil(extent) + 1, self.size)
        first = np.clip(np.floor(corner), 0, self.size - width).astype(np.intp)
        window: NDArray[np.intp] = first[:, :, None] + np.arange(width)
        return window

    def _blend(
        self,
        pictures: Pictures,
        window: NDArray[np.intp],
        coverage: NDArray[np.float32],
        colour: Colour,
    ) -> None:
        batch = np.arange(len(pictures))[:, None]
        lines = (batch * self.size + window[:, 1]) * self.size
        index = lines[:, :, None] + window[:, 0][:, None, :]
        flat = pictures.reshape(-1, 3)
        flat[index] = _over(flat[index], coverage, colour)


def _offsets(
    window: NDArray[np.intp], position: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Offsets of a window's pixel centres from positions: `(N, 1, K)` and `(N, K, 1)`."""
    offset = window.astype(np.float32) + np.float32(0.5) - position[:, :, None]
    return offset[:, 0][:, None, :], offset[:, 1][:, :, None]


def _over(below: Pictures, coverage: NDArray[np.float32], colour: Colour) -> Pictures:
    above = np.array(colour, np.float32)
    mixed = below + coverage[..., None] * (above - below)
    return (mixed + np.float32(0.5)).astype(np.uint8)
