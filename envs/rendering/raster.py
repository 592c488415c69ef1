"""Small pictures of flat worlds, many at once, in NumPy alone.

Edges are anti-aliased by distance: a pixel whose middle lies d pixels inside of a shape's edge is
covered by clip(0.5 + d, 0, 1). Every operation is elementwise, so that the rows of a batch never
influence each other, not even in the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlkit.envs.rendering.drawing import Colour

Pictures = NDArray[np.uint8]
Places = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class View:
    """The square part of a flat world that a picture shows, x to the right and y up.

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
        """Columns and rows `(..., 2)`, from the upper left corner, of places `(..., 2)`."""
        places, scale = np.asarray(world, np.float64), size / self.side
        column = (places[..., 0] - self.left) * scale
        return np.stack([column, size - (places[..., 1] - self.bottom) * scale], axis=-1)

    def to_world(self, pixels: ArrayLike, size: int) -> NDArray[np.float64]:
        """Places `(..., 2)`, metres, of columns and rows `(..., 2)`."""
        places, scale = np.asarray(pixels, np.float64), self.side / size
        x = self.left + places[..., 0] * scale
        return np.stack([x, self.bottom + (size - places[..., 1]) * scale], axis=-1)


def centred_view(side: float) -> View:
    """The view of a square around the origin."""
    return View(-side / 2, -side / 2, side)


class Raster:
    """Draws shapes over batches of pictures `(N, size, size, 3)`, in place.

    Lengths are metres of the view's world. A shape touches only a window around itself.

    Args:
        view: What the pictures show.
        size: Their width and height, pixels.

    Attributes:
        pixel: Width of a pixel in metres.
    """

    def __init__(self, view: View, size: int) -> None:
        self.view = view
        self.size = size
        self.pixel = view.side / size

    def filled(self, colour: Colour) -> Pictures:
        """A batch of one picture of a single colour, `(1, size, size, 3)`."""
        return np.full((1, self.size, self.size, 3), colour, np.uint8)

    def squares(self, pictures: Pictures, centres: ArrayLike, side: float, colour: Colour) -> None:
        """Draws the same upright squares, which do not overlap, over every picture.

        Args:
            pictures: To draw on, `(N, size, size, 3)`.
            centres: Their middles, metres, `(K, 2)`.
            side: Their width and height, metres.
            colour: Their colour.
        """
        middles = np.arange(self.size) + 0.5
        offset = np.abs(self.view.to_pixels(centres, self.size)[:, :, None] - middles)
        along = np.clip(0.5 + side / self.pixel / 2 - offset, 0, 1)
        # Summed before blending: neighbours share the pixels of their border without a seam.
        coverage = np.einsum("kj,ki->ij", along[:, 0], along[:, 1]).astype(np.float32)
        pictures[:] = _over(pictures, np.minimum(coverage, 1), colour)

    def disc(self, pictures: Pictures, centre: Places, radius: float, colour: Colour) -> None:
        """Draws one disc over each picture.

        Args:
            pictures: To draw on, `(N, size, size, 3)`.
            centre: The discs' middles, metres, `(N, 2)`.
            radius: Their radius, metres.
            colour: Their colour.
        """
        reach = np.float32(radius / self.pixel + 0.5)
        place = self.view.to_pixels(centre, self.size).astype(np.float32)
        window = self._window(place - reach, 2 * float(reach))
        x, y = _offsets(window, place)
        coverage = np.clip(reach - np.sqrt(x * x + y * y), 0, 1)
        self._blend(pictures, window, coverage, colour)

    def bar(
        self, pictures: Pictures, start: Places, end: Places, width: float, colour: Colour
    ) -> None:
        """Draws one straight bar with round ends over each picture.

        Args:
            pictures: To draw on, `(N, size, size, 3)`.
            start: Where the bars begin, metres, `(N, 2)`.
            end: Where they end, `(N, 2)`; not where they begin.
            width: Their width, metres.
            colour: Their colour.
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
        """Columns and rows `(N, 2, K)` of square windows that hold `extent` from a corner on."""
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
    window: NDArray[np.intp], place: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """From places to the middles of their windows' pixels: `(N, 1, K)` and `(N, K, 1)`."""
    offset = window.astype(np.float32) + np.float32(0.5) - place[:, :, None]
    return offset[:, 0][:, None, :], offset[:, 1][:, :, None]


def _over(below: Pictures, coverage: NDArray[np.float32], colour: Colour) -> Pictures:
    above = np.array(colour, np.float32)
    mixed = below + coverage[..., None] * (above - below)
    return (mixed + np.float32(0.5)).astype(np.uint8)
