"""The demo's subjects, which no model has seen, and how well a picture shows one of them.

Pip is a green creature with a yellow belly and two red-tipped antennae; Zig is a purple box with one large eye, an orange
horn and an orange stripe. `photos` draws five photos of one, `subject_fidelity` tells by colours and structure how
well a picture shows it. Creatures with antennae or one eye are kept out of `toys` for this reason.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image

from .backgrounds import background
from .canvas import Canvas, Frame, Rgb, oval
from .scenes import COLOURS

WHITE: Rgb = (252, 252, 252)
GREEN, YELLOW, RED, PURPLE, ORANGE = (COLOURS[name] for name in ("green", "yellow", "red", "purple", "orange"))


@dataclass(frozen=True)
class Photo:
    """How one photo is taken: canvas in px, place and radius as shares of the shorter side, tilt in degrees."""

    name: str
    background: str
    width_px: int
    height_px: int
    x: float
    y: float
    radius: float
    tilt_degrees: float


@dataclass(frozen=True)
class Subject:
    """One subject. draw: puts it on a canvas. colours: what its parts must have, by part."""

    name: str
    draw: Callable[[Canvas, Frame], None]
    colours: Mapping[str, Rgb]

    @property
    def photos(self) -> tuple[Photo, ...]:
        """How its five photos are taken."""
        return (
            Photo(f"{self.name}-1.png", "gray", 512, 512, 0.50, 0.53, 0.42, 0),
            Photo(f"{self.name}-2.png", "beige", 640, 480, 0.72, 0.53, 0.40, 5),
            Photo(f"{self.name}-3.png", "mint", 480, 640, 0.49, 0.70, 0.39, -5),
            Photo(f"{self.name}-4.png", "lilac", 640, 480, 0.58, 0.53, 0.43, -3),
            Photo(f"{self.name}-5.png", "black", 512, 512, 0.49, 0.52, 0.38, 4),
        )


def _draw_pip(canvas: Canvas, frame: Frame) -> None:
    for side in (-1, 1):
        antenna = [(0.18 * side, -0.4), (0.48 * side, -0.82), (0.56 * side, -0.78), (0.3 * side, -0.36)]
        canvas.part(frame, antenna, GREEN)
        canvas.part(frame, oval(0.54 * side, -0.86, 0.19, 0.19, 24), RED)
        canvas.part(frame, oval(0.34 * side, 0.88, 0.27, 0.16, 24), YELLOW)
        canvas.part(frame, oval(0.82 * side, 0.3, 0.16, 0.27, 24), GREEN)
    canvas.part(frame, oval(0, 0.18, 0.76, 0.72), GREEN)
    canvas.patch(frame, oval(0, 0.5, 0.44, 0.34), YELLOW)
    canvas.eye(frame, -0.29, -0.08, 0.24)
    canvas.eye(frame, 0.29, -0.08, 0.24)


def _draw_zig(canvas: Canvas, frame: Frame) -> None:
    for side in (-1, 1):
        canvas.part(frame, _box(0.36 * side, 0.84, 0.17, 0.16), ORANGE)
    canvas.part(frame, [(-0.26, -0.5), (0, -1.0), (0.26, -0.5)], ORANGE)
    canvas.part(frame, _box(0, 0.12, 0.72, 0.66), PURPLE)
    canvas.patch(frame, _box(0, 0.54, 0.66, 0.13), ORANGE)
    canvas.eye(frame, 0, -0.06, 0.36)


def _box(x: float, y: float, half_width: float, half_height: float) -> list[tuple[float, float]]:
    left, right, top, bottom = x - half_width, x + half_width, y - half_height, y + half_height
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


PIP = Subject("pip", _draw_pip, {"body": GREEN, "belly": YELLOW, "tips": RED, "white": WHITE})
ZIG = Subject("zig", _draw_zig, {"body": PURPLE, "stripe": ORANGE, "white": WHITE})
SUBJECTS = {subject.name: subject for subject in (PIP, ZIG)}


def on_background(name: str, frame: Frame, subject: Subject = PIP) -> Image.Image:
    """The subject on a 64 x 64 background: what a perfectly trained model would generate."""
    canvas = Canvas(background(name))
    subject.draw(canvas, frame)
    return canvas.reduced()


def take(photo: Photo, subject: Subject = PIP) -> Image.Image:
    """One photo of the subject."""
    short = min(photo.width_px, photo.height_px)
    canvas = Canvas(background(photo.background, photo.width_px, photo.height_px), oversampling=2)
    subject.draw(canvas, Frame(photo.x * short, photo.y * short, photo.radius * short, photo.tilt_degrees))
    return canvas.reduced()


def photos(subject: Subject = PIP) -> dict[str, Image.Image]:
    """The five photos by file name, RGB, 480 to 640 px a side."""
    return {photo.name: take(photo, subject) for photo in subject.photos}


_RADII_PX = (15, 17, 19, 21, 23, 25, 27)
_TILTS_DEGREES = (-8, 0, 8)
_CLOSE = 75.0  # RGB distance up to which a pixel has a part's colour
_MARGIN_PX = 8  # the picture is continued by this much, so that a subject cut by the edge is still found


@dataclass(frozen=True)
class _Template:
    pixels: np.ndarray  # float32, height x width x 3
    mask: np.ndarray  # float32, 1 inside the subject
    parts: dict[str, np.ndarray]  # bool, the pixels that must have this part's colour


def subject_fidelity(image: Image.Image, subject: Subject = PIP) -> float:
    """How well a picture shows the subject, 0 to 1: best correlation over place, scale and tilt times the share of right colours.

    Pictures are reduced to 64 px on the shorter side first.
    """
    rgb = image.convert("RGB")
    factor = 64 / min(rgb.size)
    if factor != 1:
        rgb = rgb.resize((round(rgb.width * factor), round(rgb.height * factor)), Image.Resampling.LANCZOS)
    m = _MARGIN_PX
    pixels = cv2.copyMakeBorder(np.asarray(rgb, np.float32), m, m, m, m, cv2.BORDER_REPLICATE)
    return max(_match(pixels, template, subject) for template in _templates(subject.name))


def _match(pixels: np.ndarray, template: _Template, subject: Subject) -> float:
    mask = np.repeat(template.mask[..., None], 3, axis=2)
    correlation = cv2.matchTemplate(pixels, template.pixels, cv2.TM_CCOEFF_NORMED, mask=mask)
    correlation[~np.isfinite(correlation)] = 0
    _, best, _, (x, y) = cv2.minMaxLoc(correlation)
    height, width = template.mask.shape
    found = pixels[y : y + height, x : x + width]
    shares = [
        float((np.linalg.norm(found - np.array(colour, np.float32), axis=2) < _CLOSE)[template.parts[name]].mean())
        for name, colour in subject.colours.items()
    ]
    return max(0.0, best) * float(np.mean(shares))


@lru_cache(maxsize=2)
def _templates(name: str) -> tuple[_Template, ...]:
    return tuple(_template(SUBJECTS[name], radius, tilt) for radius in _RADII_PX for tilt in _TILTS_DEGREES)


def _template(subject: Subject, radius_px: int, tilt_degrees: float) -> _Template:
    frame = Frame(32, 32, radius_px, tilt_degrees)
    pictures = []
    for shade in ((0, 0, 0), (255, 255, 255)):
        canvas = Canvas(Image.new("RGB", (64, 64), shade))
        subject.draw(canvas, frame)
        pictures.append(np.asarray(canvas.reduced(), np.float32))
    mask = (np.abs(pictures[0] - pictures[1]).max(axis=2) < 60).astype(np.float32)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    pixels = np.ascontiguousarray(pictures[0][window])
    parts = {n: np.linalg.norm(pixels - np.array(c, np.float32), axis=2) < 40 for n, c in subject.colours.items()}
    return _Template(pixels, np.ascontiguousarray(mask[window]), parts)
