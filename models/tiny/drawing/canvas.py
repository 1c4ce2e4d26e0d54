"""A 4x oversized canvas with round-cornered, outlined parts; `scenes`, `toys` and `subject` draw on it.

Points are in the unit frame of the object (x right, y down, the object fits a circle of radius 1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

OVERSAMPLING = 4
SIDE_PX = 64
OUTLINE_PX = 1.4

Rgb = tuple[int, int, int]
Points = Sequence[tuple[float, float]]


def darker(colour: Rgb, factor: float = 0.5) -> Rgb:
    return (int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor))


@dataclass(frozen=True)
class Frame:
    """Where the unit frame lies on the picture: centre and radius in final pixels, tilt in degrees."""

    x_px: float
    y_px: float
    radius_px: float
    tilt_degrees: float = 0.0

    def place(self, points: Points, oversampling: float) -> list[tuple[float, float]]:
        c, s = math.cos(math.radians(self.tilt_degrees)), math.sin(math.radians(self.tilt_degrees))
        r = self.radius_px
        return [
            ((self.x_px + r * (c * x - s * y)) * oversampling, (self.y_px + r * (s * x + c * y)) * oversampling)
            for x, y in points
        ]


class Canvas:
    """Draws on an enlarged copy of `background`; `reduced` brings it back by Lanczos."""

    def __init__(self, background: Image.Image, oversampling: int = OVERSAMPLING) -> None:
        self._background = background
        self._oversampling = oversampling
        self._size = (background.width * oversampling, background.height * oversampling)
        self._layer = Image.new("RGB", self._size)
        self._mask = Image.new("L", self._size)
        self._draw = ImageDraw.Draw(self._layer)
        self._mask_draw = ImageDraw.Draw(self._mask)

    def part(self, frame: Frame, points: Points, fill: Rgb, outline: Rgb | None = None) -> None:
        """A closed polygon; the outline is a darker shade of the fill unless given."""
        placed = frame.place(points, self._oversampling)
        edge = darker(fill) if outline is None else outline
        width = max(1, round(OUTLINE_PX * self._oversampling * self._background.width / SIDE_PX))
        ring = [*placed, placed[0], placed[1]]
        self._draw.polygon(placed, fill=fill)
        self._draw.line(ring, fill=edge, width=width, joint="curve")
        self._mask_draw.polygon(placed, fill=255)
        self._mask_draw.line(ring, fill=255, width=width, joint="curve")

    def spot(self, frame: Frame, x: float, y: float, radius: float, fill: Rgb) -> None:
        """A round part without outline (eyes, dots)."""
        self._plain(frame.place(oval(x, y, radius, radius, 20), self._oversampling), fill)

    def patch(self, frame: Frame, points: Points, fill: Rgb) -> None:
        """A polygon without outline (bellies, stripes)."""
        self._plain(frame.place(points, self._oversampling), fill)

    def _plain(self, placed: list[tuple[float, float]], fill: Rgb) -> None:
        self._draw.polygon(placed, fill=fill)
        self._mask_draw.polygon(placed, fill=255)

    def eye(self, frame: Frame, x: float, y: float, radius: float) -> None:
        self.spot(frame, x, y, radius, (252, 252, 252))
        self.spot(frame, x, y + 0.1 * radius, 0.55 * radius, (25, 25, 30))

    def reduced(self) -> Image.Image:
        size = self._background.size
        # premultiplied reduction, so that the black of the empty layer never bleeds into the edge
        mask = np.asarray(self._mask.resize(size, Image.Resampling.LANCZOS), np.float32)[..., None] / 255.0
        layer = np.asarray(self._layer.resize(size, Image.Resampling.LANCZOS), np.float32)
        picture = np.asarray(self._background, np.float32) * (1.0 - mask) + layer
        return Image.fromarray(np.clip(picture + 0.5, 0, 255).astype(np.uint8))


def oval(x: float, y: float, rx: float, ry: float, count: int = 40) -> list[tuple[float, float]]:
    turns = (2 * math.pi * i / count for i in range(count))
    return [(x + rx * math.cos(t), y + ry * math.sin(t)) for t in turns]


def box(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def regular(count: int, radius: float = 1.0, start_degrees: float = -90.0) -> list[tuple[float, float]]:
    turns = (math.radians(start_degrees + 360 * i / count) for i in range(count))
    return [(radius * math.cos(t), radius * math.sin(t)) for t in turns]
