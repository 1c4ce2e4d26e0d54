"""The demo's subject, which no model has seen: Pip, a teal creature with an orange belly and two antennae.

`photos` draws the five photos of the demo, `subject_fidelity` tells by colours and structure how well a picture shows
Pip. Creatures with antennae are kept out of `toys` for this reason.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image

from .backgrounds import background
from .canvas import Canvas, Frame, Rgb, oval

BODY: Rgb = (20, 178, 170)
BELLY: Rgb = (255, 165, 40)
TIPS: Rgb = (235, 50, 120)
FEET: Rgb = (255, 165, 40)


@dataclass(frozen=True)
class Photo:
    """How one photo of Pip is taken: canvas in px, place and radius as shares of the shorter side, tilt in degrees."""

    name: str
    background: str
    width_px: int
    height_px: int
    x: float
    y: float
    radius: float
    tilt_degrees: float


PHOTOS = (
    Photo("pip-1.png", "gray", 512, 512, 0.50, 0.52, 0.34, 0),
    Photo("pip-2.png", "beige", 640, 480, 0.70, 0.54, 0.33, 6),
    Photo("pip-3.png", "mint", 480, 640, 0.48, 0.72, 0.32, -6),
    Photo("pip-4.png", "lilac", 640, 480, 0.60, 0.52, 0.36, -3),
    Photo("pip-5.png", "black", 512, 512, 0.47, 0.53, 0.31, 4),
)


def draw_subject(canvas: Canvas, frame: Frame) -> None:
    for side in (-1, 1):
        canvas.part(frame, [(0.18 * side, -0.4), (0.48 * side, -0.82), (0.56 * side, -0.78), (0.3 * side, -0.36)], BODY)
        canvas.part(frame, oval(0.54 * side, -0.86, 0.19, 0.19, 24), TIPS)
        canvas.part(frame, oval(0.34 * side, 0.88, 0.27, 0.16, 24), FEET)
        canvas.part(frame, oval(0.82 * side, 0.3, 0.16, 0.27, 24), BODY)
    canvas.part(frame, oval(0, 0.18, 0.76, 0.72), BODY)
    canvas.patch(frame, oval(0, 0.5, 0.44, 0.34), BELLY)
    canvas.eye(frame, -0.29, -0.08, 0.24)
    canvas.eye(frame, 0.29, -0.08, 0.24)


def on_background(name: str, frame: Frame) -> Image.Image:
    """Pip on a 64 x 64 background: what a perfectly trained model would generate."""
    canvas = Canvas(background(name))
    draw_subject(canvas, frame)
    return canvas.reduced()


def take(photo: Photo) -> Image.Image:
    short = min(photo.width_px, photo.height_px)
    canvas = Canvas(background(photo.background, photo.width_px, photo.height_px), oversampling=2)
    draw_subject(canvas, Frame(photo.x * short, photo.y * short, photo.radius * short, photo.tilt_degrees))
    return canvas.reduced()


def photos() -> dict[str, Image.Image]:
    """The five photos by file name, RGB, 480 to 640 px a side."""
    return {photo.name: take(photo) for photo in PHOTOS}
