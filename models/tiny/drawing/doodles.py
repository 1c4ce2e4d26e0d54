"""Pictures without captions for the VAE alone: random parts, and critters put together at random.

They make it keep many-coloured details in any colour. No critter has antennae: that family is the demo's subject.
"""

import colorsys
import random

from PIL import Image

from .backgrounds import NAMES as BACKGROUNDS
from .backgrounds import background
from .canvas import Canvas, Frame, Points, Rgb, box, oval, regular
from .scenes import COLOURS
from .toys import PAINTERS


def any_colour(rng: random.Random) -> Rgb:
    if rng.random() < 0.25:
        return rng.choice(tuple(COLOURS.values()))
    r, g, b = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.35, 1), rng.uniform(0.35, 1))
    return (int(255 * r), int(255 * g), int(255 * b))


def draw_doodle(rng: random.Random) -> Image.Image:
    """Loose parts, spots and eyes."""
    canvas = Canvas(background(rng.choice(BACKGROUNDS)))
    for _ in range(rng.randint(1, 2)):
        frame = Frame(rng.uniform(16, 48), rng.uniform(16, 48), rng.uniform(12, 26), rng.uniform(-40, 40))
        for _ in range(rng.randint(1, 4)):
            x, y, rx, ry = (rng.uniform(a, b) for a, b in ((-0.6, 0.6), (-0.6, 0.6), (0.2, 0.8), (0.2, 0.8)))
            shapes: list[Points] = [
                oval(x, y, rx, ry),
                box(x - rx, y - ry, x + rx, y + ry),
                [(x, y - ry), (x + rx, y + ry), (x - rx, y + ry)],
            ]
            (canvas.part if rng.random() < 0.6 else canvas.patch)(frame, rng.choice(shapes), any_colour(rng))
        for _ in range(rng.randint(0, 2)):
            canvas.eye(frame, rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), rng.uniform(0.15, 0.3))
    if rng.random() < 0.3:
        _lollipop(canvas, rng)
    return canvas.reduced()


def draw_recoloured(rng: random.Random) -> Image.Image:
    """A toy in two colours of the whole circle."""
    canvas = Canvas(background(rng.choice(BACKGROUNDS)))
    frame = Frame(rng.uniform(24, 40), rng.uniform(24, 40), rng.uniform(16, 28), rng.uniform(-15, 15))
    PAINTERS[rng.choice(tuple(PAINTERS))](canvas, frame, any_colour(rng), any_colour(rng))
    return canvas.reduced()


def draw_critter(rng: random.Random) -> Image.Image:
    """A body with some of: ears, horns, arms, feet, belly, eyes, mouth, spots, stripes."""
    canvas = Canvas(background(rng.choice(BACKGROUNDS)))
    frame = Frame(rng.uniform(26, 38), rng.uniform(28, 40), rng.uniform(16, 28), rng.uniform(-12, 12))
    body, second, third = any_colour(rng), any_colour(rng), any_colour(rng)
    _behind(canvas, frame, rng, body, second, third)
    width, height = rng.uniform(0.5, 0.85), rng.uniform(0.5, 0.8)
    y = rng.uniform(0.0, 0.25)
    shapes: list[Points] = [
        oval(0, y, width, height),
        box(-width, y - height, width, y + height),
        [(px * width, y + py * height) for px, py in regular(6)],
    ]
    canvas.part(frame, rng.choices(shapes, (4, 1, 1))[0], body)
    if rng.random() < 0.7:
        canvas.patch(
            frame, oval(0, y + 0.4 * height, width * rng.uniform(0.4, 0.7), height * rng.uniform(0.35, 0.55)), second
        )
    _face(canvas, frame, rng, y - rng.uniform(0.1, 0.4), third)
    return canvas.reduced()


def _behind(canvas: Canvas, frame: Frame, rng: random.Random, body: Rgb, second: Rgb, third: Rgb) -> None:
    ears, arms, feet = rng.choice(("", "round", "pointed", "horn")), rng.random() < 0.6, rng.random() < 0.6
    x, r = rng.uniform(0.3, 0.65), rng.uniform(0.14, 0.3)
    for side in (-1, 1):
        if ears == "round":
            canvas.part(
                frame,
                oval(x * side, -rng.uniform(0.6, 0.85), r, r * rng.uniform(1, 1.5), 24),
                rng.choice((body, third)),
            )
        if ears == "pointed":
            canvas.part(frame, [((x - r) * side, -0.4), (x * side * 1.2, -0.95), ((x + r) * side, -0.3)], third)
        if arms:
            canvas.part(frame, oval(0.8 * side, rng.uniform(0.1, 0.4), 0.17, 0.28, 24), body)
        if feet:
            canvas.part(frame, oval(0.35 * side, 0.87, rng.uniform(0.2, 0.3), 0.17, 24), second)
    if ears == "horn":
        canvas.part(frame, [(-r, -0.4), (0, -1.0), (r, -0.4)], third)


def _face(canvas: Canvas, frame: Frame, rng: random.Random, y: float, spots: Rgb) -> None:
    x, radius = rng.uniform(0.2, 0.36), rng.uniform(0.15, 0.28)
    if rng.random() < 0.15:
        canvas.eye(frame, 0, y, radius * 1.3)
    else:
        canvas.eye(frame, -x, y, radius)
        canvas.eye(frame, x, y, radius)
    if rng.random() < 0.25:
        for _ in range(3):
            canvas.spot(frame, rng.uniform(-0.5, 0.5), rng.uniform(0.1, 0.6), rng.uniform(0.08, 0.14), spots)


def _lollipop(canvas: Canvas, rng: random.Random) -> None:
    frame = Frame(rng.uniform(16, 48), rng.uniform(16, 48), rng.uniform(10, 22), rng.uniform(-50, 50))
    canvas.part(frame, box(-0.07, -0.5, 0.07, 0.9), any_colour(rng))
    radius = rng.uniform(0.2, 0.4)
    canvas.part(frame, oval(0, -0.6, radius, radius, 24), any_colour(rng))
