"""Shapes of training pictures: one square, or aspect buckets of about the same area. Pure.

Buckets as in NovelAI's and kohya's trainers: edges are multiples of a step, the area is at most that of the square and
as near to it as the step allows, and an image goes to the bucket whose aspect ratio is nearest on a logarithmic scale.
"""

import math
from functools import lru_cache
from typing import Final

_MAX_RATIO: Final = 2.0


def step_of(edge_px: int) -> int:
    """Multiple for the edges: 64 px, or 8 px where 64 would leave too few shapes."""
    return 64 if edge_px >= 256 else 8


@lru_cache(maxsize=8)
def shapes(edge_px: int) -> tuple[tuple[int, int], ...]:
    """All (height, width) for pictures as large as a square of `edge_px`, from 1:2 to 2:1."""
    step = step_of(edge_px)
    found = set()
    for height in range(step, int(edge_px * _MAX_RATIO) + 1, step):
        width = edge_px * edge_px // height // step * step
        if width and max(height / width, width / height) <= _MAX_RATIO:
            found |= {(height, width), (width, height)}
    return tuple(sorted(found))


def nearest(width: int, height: int, edge_px: int) -> tuple[int, int]:
    """The bucket (height, width) for an image of this size; the larger one of two that are equally near."""

    def distance(shape: tuple[int, int]) -> tuple[float, int]:
        return abs(math.log(shape[0] / shape[1]) - math.log(height / width)), -shape[0] * shape[1]

    return min(shapes(edge_px), key=distance)
