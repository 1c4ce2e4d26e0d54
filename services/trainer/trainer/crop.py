"""Where to cut: geometry of square crops and the salient region of a picture. Pure, numpy only.

`cropping` asks `place` with the faces that `faces` found. Cutting and scaling pixels is left to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SALIENCY_EDGE_PX = 64


@dataclass(frozen=True)
class Box:
    """A region in pixels of the upright picture; may reach beyond its edges."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Square:
    """A square wholly inside the picture, in pixels."""

    left: int
    top: int
    edge: int


def place(width: int, height: int, faces: Sequence[Box], focus: tuple[float, float]) -> Square:
    """The largest square inside a picture of width x height pixels: its edge is the short edge of the picture.

    Along the long edge it is centred on the faces that fit into it whole, the largest face first; without faces on
    focus (x, y in pixels).
    """
    edge = min(width, height)
    wide = width >= height
    spans = [(box.left, box.left + box.width) if wide else (box.top, box.top + box.height) for box in _by_area(faces)]
    centre = _centre_of(spans, edge) if spans else focus[0 if wide else 1]
    start = round(centre - edge / 2)
    start = min(max(start, 0), max(width, height) - edge)
    return Square(start, 0, edge) if wide else Square(0, start, edge)


def _by_area(faces: Sequence[Box]) -> list[Box]:
    return sorted(faces, key=lambda box: box.width * box.height, reverse=True)


def _centre_of(spans: Sequence[tuple[float, float]], edge: int) -> float:
    low, high = spans[0]
    for start, end in spans[1:]:
        if max(high, end) - min(low, start) <= edge:
            low, high = min(low, start), max(high, end)
    return (low + high) / 2


def salient_point(grey: NDArray[np.float32], kept: tuple[float, float] = (1.0, 1.0)) -> tuple[float, float]:
    """Where to look (x, y) in pixels: the centre of mass of what stands out, in the part that holds most of it.

    grey: [height, width], any range. kept: shares (x, y) of the edges that a crop will keep, in 0 to 1; a centre over
    more than that would lie between two things and show neither. Spectral residual (Hou and Zhang 2007): what the smooth log spectrum does not predict.
    """
    if float(np.ptp(grey)) == 0.0:
        return (grey.shape[1] / 2, grey.shape[0] / 2)
    spectrum = np.fft.fft2(grey)
    log_amplitude = np.log(np.abs(spectrum) + 1e-6)
    residual = log_amplitude - _box_blur(log_amplitude, 1)
    saliency = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    saliency = _box_blur(saliency, 3)
    # Only the strongest tenth counts, else the noise of a large background pulls the centre to the middle.
    saliency = np.where(saliency >= np.quantile(saliency, 0.9), saliency, 0.0)
    return _centre_of_best(saliency.sum(axis=0), kept[0]), _centre_of_best(saliency.sum(axis=1), kept[1])


def _centre_of_best(profile: NDArray[np.floating], share: float) -> float:
    """Centre of mass within the window of this share of the cells that holds most."""
    length = max(1, round(share * len(profile)))
    sums = np.concatenate([[0.0], np.cumsum(profile)])
    start = int(np.argmax(sums[length:] - sums[:-length]))
    window = profile[start : start + length]
    return float((window * (np.arange(start, start + length) + 0.5)).sum() / window.sum())


def _box_blur(values: NDArray[np.floating], radius: int) -> NDArray[np.floating]:
    """Mean over (2 radius + 1)^2 neighbours; edges repeat."""
    for axis in (0, 1):
        pad = [(radius, radius) if index == axis else (0, 0) for index in (0, 1)]
        padded = np.pad(values, pad, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * radius + 1, axis=axis)
        values = windows.mean(axis=-1)
    return values
