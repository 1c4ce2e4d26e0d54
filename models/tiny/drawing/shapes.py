"""Outlines of the eight shapes in the unit frame; `scenes` draws them, `judge` compares against them."""

import math

from .canvas import Points, box, oval, regular


def _star() -> Points:
    turns = [math.radians(-90 + 36 * i) for i in range(10)]
    return [
        ((1.08 if i % 2 == 0 else 0.46) * math.cos(t), 0.05 + (1.08 if i % 2 == 0 else 0.46) * math.sin(t))
        for i, t in enumerate(turns)
    ]


def _heart() -> Points:
    points = []
    for i in range(48):
        t = 2 * math.pi * i / 48
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / 16.5, -(y + 2.0) / 16.0))
    return points


def _cross() -> Points:
    a = 0.34
    return [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]


OUTLINES: dict[str, Points] = {
    "circle": oval(0, 0, 0.94, 0.94, 48),
    "square": box(-0.84, -0.84, 0.84, 0.84),
    "triangle": [(0, -0.95), (1.02, 0.82), (-1.02, 0.82)],
    "star": _star(),
    "heart": _heart(),
    "diamond": [(0, -1.05), (0.72, 0), (0, 1.05), (-0.72, 0)],
    "hexagon": regular(6, 1.0, 0.0),
    "cross": _cross(),
}
