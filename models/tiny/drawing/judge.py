"""Plain computer vision that says what a picture of a scene shows; scores and tests use it, no network is involved.

The background is the known one that fits most of the picture; what differs from it is the object; its colour is the
median inside, its shape the outline of best overlap, its size follows from the area.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image

from .backgrounds import NAMES, background
from .canvas import SIDE_PX
from .scenes import COLOURS, SIZES
from .shapes import OUTLINES

_ENLARGED = 4  # segmentation runs on the picture enlarged by this factor
_DIFFERENT = 38.0  # RGB distance from which a pixel is the object's
_TEMPLATE_PX = 80
_TEMPLATE_AREA_PX = 1100


@dataclass(frozen=True)
class Verdict:
    """`shape`, `colour` and `size` are empty where no object was found; `overlap` is the IoU with the outline."""

    shape: str
    colour: str
    size: str
    background: str
    overlap: float


def judge(image: Image.Image) -> Verdict:
    """What a picture shows. Pictures of another size are reduced to 64 x 64 px first."""
    pixels = _pixels(image)
    name = background_of(pixels)
    mask = object_mask(pixels, name)
    area_px = float(mask.sum()) / 255 / _ENLARGED**2
    if area_px < 40:
        return Verdict("", "", "", name, 0.0)
    shape, overlap = _shape(mask)
    radius_px = (area_px / _unit_areas()[shape]) ** 0.5
    size = min(SIZES, key=lambda s: abs(SIZES[s] + 0.7 - radius_px))  # the outline adds 0.7 px
    return Verdict(shape, _colour(pixels, mask), size, name, overlap)


def background_of(pixels: np.ndarray) -> str:
    """The background whose best-fitting 60 % of the pixels lie nearest."""
    smooth = cv2.GaussianBlur(pixels, (0, 0), 1.0)

    def misfit(name: str) -> float:
        distance = np.linalg.norm(smooth - _smooth_background(name), axis=2).ravel()
        return float(np.partition(distance, int(0.6 * distance.size))[: int(0.6 * distance.size)].mean())

    return min(NAMES, key=misfit)


def object_mask(pixels: np.ndarray, background_name: str) -> np.ndarray:
    """0 / 255 mask of the largest thing that is not background, holes filled, enlarged by 4."""
    difference = np.linalg.norm(pixels - np.asarray(background(background_name), np.float32), axis=2)
    side = SIDE_PX * _ENLARGED
    large = cv2.resize(difference, (side, side), interpolation=cv2.INTER_CUBIC)
    mask = (cv2.GaussianBlur(large, (0, 0), 2.0) > _DIFFERENT).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((7, 7), np.uint8))
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros((side, side), np.uint8)
    if contours:
        cv2.drawContours(filled, [max(contours, key=cv2.contourArea)], -1, 255, cv2.FILLED)
    return filled


def _pixels(image: Image.Image) -> np.ndarray:
    rgb = image.convert("RGB")
    if rgb.size != (SIDE_PX, SIDE_PX):
        rgb = rgb.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    return np.asarray(rgb, np.float32)


@lru_cache(maxsize=len(NAMES))
def _smooth_background(name: str) -> np.ndarray:
    return cv2.GaussianBlur(np.asarray(background(name), np.float32), (0, 0), 1.0)


def _colour(pixels: np.ndarray, mask: np.ndarray) -> str:
    inner = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=2 * _ENLARGED)
    small = cv2.resize(inner, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA) > 200
    if small.sum() < 8:
        small = cv2.resize(mask, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA) > 200
    if not small.any():
        return ""
    colour = np.median(pixels[small], axis=0)
    return min(COLOURS, key=lambda name: float(np.linalg.norm(colour - np.array(COLOURS[name], np.float32))))


def _shape(mask: np.ndarray) -> tuple[str, float]:
    found = _normalised(mask)
    overlaps = {name: _overlap(found, template) for name, template in _templates().items()}
    best = max(overlaps, key=lambda name: overlaps[name])
    return best, overlaps[best]


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def _normalised(mask: np.ndarray) -> np.ndarray:
    """The mask with its centre of mass in the middle of a canvas and `_TEMPLATE_AREA_PX`, so that single pixels at its
    rim decide nothing, as they would if its bounding box did."""
    moments = cv2.moments(mask, binaryImage=True)
    scale = (_TEMPLATE_AREA_PX / moments["m00"]) ** 0.5
    x, y = (moments[name] / moments["m00"] for name in ("m10", "m01"))
    middle = (_TEMPLATE_PX - 1) / 2
    move = np.array([[scale, 0, middle - scale * x], [0, scale, middle - scale * y]])
    smooth = cv2.GaussianBlur(mask, (0, 0), 0.5 / scale)
    return cv2.warpAffine(smooth, move, (_TEMPLATE_PX, _TEMPLATE_PX)) > 127


@lru_cache(maxsize=1)
def _templates() -> dict[str, np.ndarray]:
    found = {}
    for name, points in OUTLINES.items():
        mask = np.zeros((256, 256), np.uint8)
        outline = np.round(np.array(points) * 96 + 128).astype(np.int32)
        cv2.fillPoly(mask, [outline], 255)
        cv2.polylines(mask, [outline], True, 255, 7)  # half of the drawn outline lies outside
        found[name] = _normalised(mask)
    return found


@lru_cache(maxsize=1)
def _unit_areas() -> dict[str, float]:
    return {name: float(cv2.contourArea(np.array(points, np.float32))) for name, points in OUTLINES.items()}
