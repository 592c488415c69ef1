"""Anti-aliased drawing in two-dimensional world coordinates, on the CPU without a display."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

BACKGROUND, FLOOR, FLOOR_TILE = (250, 249, 246), (232, 230, 223), (242, 240, 235)
WALL, TEXT, TRAIL = (74, 85, 104), (60, 64, 72), (158, 190, 226)
AGENT, AGENT_EDGE = (49, 112, 191), (29, 71, 128)
GOAL, GOAL_AREA = (46, 160, 103), (205, 233, 216)
OBJECT, OBJECT_EDGE = (232, 150, 62), (176, 103, 28)

_SUPERSAMPLING = 3


class Canvas:
    """A square image in world coordinates, x to the right and y up.

    The aspect ratio is kept; the area outside of the bounds is background. All lengths, also line
    widths, are in world units.

    Args:
        size: Width and height of the image, pixels.
        bounds: The part of the world to show, `(left, bottom, right, top)`.
        background: Colour before anything is drawn.

    Raises:
        ValueError: If the size is not positive or the bounds are empty.
    """

    def __init__(
        self,
        size: int,
        bounds: tuple[float, float, float, float],
        background: Colour = BACKGROUND,
    ) -> None:
        left, bottom, right, top = bounds
        if size < 1:
            raise ValueError(f"size must be at least one pixel, got {size}")
        if not (left < right and bottom < top):
            raise ValueError(f"bounds must be (left, bottom, right, top), got {bounds}")
        self._size = size
        self._scale = size * _SUPERSAMPLING / max(right - left, top - bottom)
        self._centre = np.array([(left + right) / 2, (bottom + top) / 2])
        self._picture = Image.new("RGB", (size * _SUPERSAMPLING,) * 2, background)
        self._draw = ImageDraw.Draw(self._picture)

    def circle(
        self,
        centre: ArrayLike,
        radius: float,
        fill: Colour | None,
        outline: Colour | None = None,
        width: float = 0.0,
    ) -> None:
        """Draws a disc, a ring (`fill=None`), or both; the outline of `width` lies inside."""
        x, y = self._pixels([centre])[0]
        reach = radius * self._scale
        box = (x - reach, y - reach, x + reach, y + reach)
        self._draw.ellipse(box, fill, outline, self._width(width) if outline else 0)

    def polygon(
        self, points: ArrayLike, fill: Colour | None, outline: Colour | None = None
    ) -> None:
        """Draws the polygon with corners `(K, 2)`."""
        self._draw.polygon(self._pixels(points), fill, outline, _SUPERSAMPLING)

    def rectangle(
        self, centre: ArrayLike, size: tuple[float, float], fill: Colour, radius: float = 0.0
    ) -> None:
        """Draws an upright rectangle with corners rounded to `radius`."""
        half = np.asarray(size) / 2
        middle = np.asarray(centre, dtype=np.float64)
        (left, bottom), (right, top) = self._pixels([middle - half, middle + half])
        self._draw.rounded_rectangle((left, top, right, bottom), radius * self._scale, fill)

    def line(self, points: ArrayLike, fill: Colour, width: float) -> None:
        """Draws a polyline through `(K, 2)` with round joints and ends."""
        pixels = self._pixels(points)
        self._draw.line(pixels, fill, self._width(width), joint="curve")
        for point in (pixels[0], pixels[-1]):
            self._dot(point, width * self._scale / 2, fill)

    def arrow(self, start: ArrayLike, end: ArrayLike, fill: Colour, width: float) -> None:
        """Draws an arrow with a head of four widths; none if it is shorter than one width."""
        tail, tip = (np.asarray(point, dtype=np.float64) for point in (start, end))
        length = float(np.hypot(*(tip - tail)))
        if length < width:
            return
        along = (tip - tail) / length
        across = np.array([-along[1], along[0]])
        neck = tip - along * min(4 * width, length)
        self.line([tail, neck], fill, width)
        self.polygon([tip, neck + 2 * width * across, neck - 2 * width * across], fill)

    def text(self, position: ArrayLike, words: str, fill: Colour = TEXT, size: float = 0.3) -> None:
        """Writes words centred on a position, letters about `size` high."""
        font = ImageFont.load_default(max(size * self._scale, 1.0))
        self._draw.text(self._pixels([position])[0], words, fill, font, anchor="mm")

    def image(self) -> NDArray[np.uint8]:
        """The image, `(size, size, 3)`."""
        small = self._picture.resize((self._size, self._size), Image.Resampling.LANCZOS)
        return np.array(small, dtype=np.uint8)

    def _pixels(self, points: Sequence[ArrayLike] | ArrayLike) -> list[tuple[float, float]]:
        world = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        offset = (world - self._centre) * self._scale * (1.0, -1.0)
        return [(float(x), float(y)) for x, y in offset + self._size * _SUPERSAMPLING / 2]

    def _width(self, width: float) -> int:
        return max(round(width * self._scale), 1)

    def _dot(self, point: tuple[float, float], radius: float, fill: Colour) -> None:
        x, y = point
        self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill)
