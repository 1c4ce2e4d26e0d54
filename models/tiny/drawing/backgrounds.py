"""The ten backgrounds at any size: five plain colours and five textures of fixed phase.

Textures are built on multiples of 8 px of the 64 px picture, so that a VAE of factor 8 sees few different cells.
"""

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from .canvas import SIDE_PX, Rgb

PLAIN: dict[str, Rgb] = {
    "gray": (150, 153, 160),
    "beige": (238, 222, 190),
    "black": (32, 32, 38),
    "mint": (168, 226, 200),
    "lilac": (204, 190, 236),
}
TEXTURED = ("meadow", "sea", "night", "bricks", "wood")
NAMES = (*PLAIN, *TEXTURED)


@lru_cache(maxsize=64)
def background(name: str, width_px: int = SIDE_PX, height_px: int = SIDE_PX) -> Image.Image:
    """The background as an RGB picture; treat it as read-only. Raises KeyError for an unknown name."""
    if name in PLAIN:
        return Image.new("RGB", (width_px, height_px), PLAIN[name])
    large = _PAINTERS[name]()
    side = max(width_px, height_px)
    left, top = (side - width_px) // 2, (side - height_px) // 2
    reduced = large.resize((side, side), Image.Resampling.LANCZOS)
    return reduced.crop((left, top, left + width_px, top + height_px))


_S = 8  # textures are painted at 512 px: 8 canvas pixels per final pixel
_SIDE = SIDE_PX * _S


def _gradient(top: Rgb, bottom: Rgb, height: int = _SIDE) -> Image.Image:
    t = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    rows = np.array(top, np.float32) * (1 - t) + np.array(bottom, np.float32) * t
    return Image.fromarray(np.broadcast_to(rows, (height, _SIDE, 3)).astype(np.uint8).copy())


def _meadow() -> Image.Image:
    picture = _gradient((120, 190, 245), (200, 230, 252))
    picture.paste(_gradient((140, 205, 95), (100, 175, 70), 24 * _S), (0, 40 * _S))
    draw = ImageDraw.Draw(picture)
    for x, y, r in ((9, 10, 4), (14, 8, 5), (19, 10, 4), (46, 17, 3), (51, 15, 4), (56, 17, 3)):
        draw.ellipse([(x - r) * _S, (y - r * 0.7) * _S, (x + r) * _S, (y + r * 0.7) * _S], fill=(250, 252, 255))
    for row, y in enumerate((46, 54, 62)):
        for x in range(4 + 4 * (row % 2), 64, 8):
            draw.line([(x * _S, y * _S), ((x - 1) * _S, (y - 3) * _S)], fill=(80, 155, 60), width=_S)
            draw.line([(x * _S, y * _S), ((x + 1) * _S, (y - 3) * _S)], fill=(80, 155, 60), width=_S)
    return picture


def _sea() -> Image.Image:
    picture = _gradient((70, 165, 215), (20, 95, 165))
    draw = ImageDraw.Draw(picture)
    for row in range(8):
        phase = math.pi * (row % 2)
        points = [
            (x, (row * 8 + 4) * _S + 1.6 * _S * math.sin(2 * math.pi * x / (16 * _S) + phase))
            for x in range(0, _SIDE + 1, 4)
        ]
        shade = 1 - row / 10
        draw.line(
            points, fill=(int(60 + 90 * shade), int(140 + 70 * shade), int(200 + 35 * shade)), width=int(1.3 * _S)
        )
    return picture


def _night() -> Image.Image:
    picture = _gradient((18, 20, 58), (52, 44, 104))
    draw = ImageDraw.Draw(picture)
    stars = (
        (4, 4),
        (20, 12),
        (36, 4),
        (52, 12),
        (12, 28),
        (60, 28),
        (4, 44),
        (28, 60),
        (44, 52),
        (60, 60),
        (12, 60),
        (44, 28),
    )
    for x, y in stars:
        r = 1.3
        draw.polygon(
            [
                ((x + dx * r) * _S, (y + dy * r) * _S)
                for dx, dy in (
                    (0, -1.5),
                    (0.4, -0.4),
                    (1.5, 0),
                    (0.4, 0.4),
                    (0, 1.5),
                    (-0.4, 0.4),
                    (-1.5, 0),
                    (-0.4, -0.4),
                )
            ],
            fill=(250, 240, 190),
        )
    return picture


def _bricks() -> Image.Image:
    picture = Image.new("RGB", (_SIDE, _SIDE), (214, 190, 170))
    draw = ImageDraw.Draw(picture)
    shades = ((178, 92, 70), (168, 84, 64), (186, 100, 78))
    for row in range(8):
        for column in range(-1, 5):
            left, top = column * 16 + 8 * (row % 2), row * 8
            fill = shades[(row + 2 * column) % 3]
            draw.rectangle([(left + 0.5) * _S, (top + 0.5) * _S, (left + 15.5) * _S, (top + 7.5) * _S], fill=fill)
    return picture


def _wood() -> Image.Image:
    picture = Image.new("RGB", (_SIDE, _SIDE), (120, 76, 40))
    draw = ImageDraw.Draw(picture)
    for row, fill in enumerate(((196, 142, 88), (184, 130, 78), (200, 148, 94), (188, 134, 82))):
        top = row * 16
        draw.rectangle([0, (top + 0.5) * _S, _SIDE, (top + 15.5) * _S], fill=fill)
        for line in (4, 8, 12):
            points = [
                (x, (top + line) * _S + 0.9 * _S * math.sin(2 * math.pi * x / (32 * _S) + line + row))
                for x in range(0, _SIDE + 1, 4)
            ]
            draw.line(points, fill=tuple(int(c * 0.86) for c in fill), width=_S)
    return picture


_PAINTERS = {"meadow": _meadow, "sea": _sea, "night": _night, "bricks": _bricks, "wood": _wood}
