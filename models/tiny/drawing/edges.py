"""Canny edge maps as ControlNet takes them (white on black), and how well two maps agree."""

import cv2
import numpy as np
from PIL import Image

LOW, HIGH = 100, 200  # the thresholds of the usual canny preprocessors


def canny(image: Image.Image) -> Image.Image:
    edges = cv2.Canny(np.asarray(image.convert("RGB")), LOW, HIGH)
    return Image.fromarray(np.repeat(edges[..., None], 3, axis=2))


def agreement(first: Image.Image, second: Image.Image) -> float:
    """IoU in 0 .. 1 of two edge maps of one size, each line widened by a pixel to each side."""
    kernel = np.ones((3, 3), np.uint8)
    a, b = (cv2.dilate(np.asarray(image.convert("L")), kernel) > 127 for image in (first, second))
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0
