"""Composite toys in two colours (robot, house, fish ...) with captions; they teach the UNet the word "toy".

The demo's subject (`subject`) belongs to a family that is not among them: creatures with antennae.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from .backgrounds import NAMES as BACKGROUNDS
from .backgrounds import background
from .canvas import Canvas, Frame, Rgb, box, oval, regular
from .scenes import BACKGROUND_PHRASES, COLOURS, PLACES, VARIATIONS, frame_of, with_article

Painter = Callable[[Canvas, Frame, Rgb, Rgb], None]
_DARK: Rgb = (40, 40, 48)


@dataclass(frozen=True)
class Toy:
    kind: str
    colour: str
    accent: str
    size: str
    place: str
    background: str
    variation: int = 0


def _robot(canvas: Canvas, frame: Frame, colour: Rgb, accent: Rgb) -> None:
    canvas.part(frame, box(-0.45, 0.75, -0.12, 1.0), accent)
    canvas.part(frame, box(0.12, 0.75, 0.45, 1.0), accent)
    canvas.part(frame, box(-0.95, -0.05, -0.65, 0.5), accent)
    canvas.part(frame, box(0.65, -0.05, 0.95, 0.5), accent)
    canvas.part(frame, box(-0.65, -0.1, 0.65, 0.75), colour)
    canvas.part(frame, box(-0.5, -0.95, 0.5, -0.15), accent)
    canvas.eye(frame, -0.22, -0.58, 0.18)
    canvas.eye(frame, 0.22, -0.58, 0.18)
    canvas.patch(frame, box(-0.35, 0.15, 0.35, 0.5), accent)


def _house(canvas: Canvas, frame: Frame, colour: Rgb, accent: Rgb) -> None:
    canvas.part(frame, box(0.35, -0.85, 0.6, -0.3), _DARK)
    canvas.part(frame, box(-0.75, -0.1, 0.75, 0.9), colour)
    canvas.part(frame, [(0, -1.0), (1.0, -0.05), (-1.0, -0.05)], accent)
    canvas.part(frame, box(-0.55, 0.25, -0.1, 0.9), accent)
    canvas.part(frame, box(0.15, 0.15, 0.55, 0.5), (180, 225, 250))


def _fish(canvas: Canvas, frame: Frame, colour: Rgb, accent: Rgb) -> None:
    canvas.part(frame, [(0.35, 0), (1.0, -0.6), (1.0, 0.6)], accent)
    canvas.part(frame, [(-0.3, -0.45), (0.1, -0.9), (0.35, -0.35)], accent)
    canvas.part(frame, oval(-0.2, 0, 0.78, 0.58), colour)
    canvas.patch(frame, box(-0.08, -0.5, 0.08, 0.5), accent)
    canvas.patch(frame, box(0.22, -0.42, 0.36, 0.42), accent)
    canvas.eye(frame, -0.58, -0.12, 0.18)


def _mushroom(canvas: Canvas, frame: Frame, colour: Rgb, accent: Rgb) -> None:
    canvas.part(frame, [(-0.35, 0), (0.35, 0), (0.45, 0.95), (-0.45, 0.95)], (245, 232, 205))
    cap = [p for p in oval(0, 0.1, 0.98, 1.05, 48) if p[1] <= 0.11]
    canvas.part(frame, cap, colour)
    for x, y, r in ((-0.5, -0.25, 0.18), (0.05, -0.55, 0.2), (0.52, -0.2, 0.17), (0, -0.1, 0.12)):
        canvas.spot(frame, x, y, r, accent)
    canvas.eye(frame, -0.16, 0.4, 0.11)
    canvas.eye(frame, 0.16, 0.4, 0.11)


def _flower(canvas: Canvas, frame: Frame, colour: Rgb, accent: Rgb) -> None:
    canvas.part(frame, box(-0.09, 0.1, 0.09, 1.0), (60, 150, 60))
    canvas.part(frame, oval(0.35, 0.72, 0.3, 0.15), (60, 150, 60))
    for x, y in regular(6, 0.5):
        canvas.part(frame, oval(x, y - 0.3, 0.32, 0.32, 20), colour)
    canvas.part(frame, oval(0, -0.3, 0.33, 0.33), accent)


def _car(canvas: Canvas, frame: Frame, colour: Rgb, accent: Rgb) -> None:
    canvas.part(frame, [(-0.5, -0.15), (-0.3, -0.65), (0.4, -0.65), (0.65, -0.15)], accent)
    canvas.patch(frame, [(-0.32, -0.2), (-0.2, -0.5), (0.02, -0.5), (0.02, -0.2)], (190, 230, 250))
    canvas.patch(frame, [(0.12, -0.2), (0.12, -0.5), (0.32, -0.5), (0.46, -0.2)], (190, 230, 250))
    canvas.part(frame, box(-1.0, -0.2, 1.0, 0.4), colour)
    for x in (-0.55, 0.55):
        canvas.part(frame, oval(x, 0.42, 0.28, 0.28), _DARK)
        canvas.spot(frame, x, 0.42, 0.12, (220, 220, 225))


def _boat(canvas: Canvas, frame: Frame, colour: Rgb, accent: Rgb) -> None:
    canvas.part(frame, box(-0.06, -0.95, 0.06, 0.35), (130, 90, 50))
    canvas.part(frame, [(0.1, -0.9), (0.8, 0.2), (0.1, 0.2)], accent)
    canvas.part(frame, [(-0.1, -0.7), (-0.1, 0.2), (-0.65, 0.2)], accent)
    canvas.part(frame, [(-1.0, 0.35), (1.0, 0.35), (0.65, 0.9), (-0.65, 0.9)], colour)


def _tree(canvas: Canvas, frame: Frame, colour: Rgb, accent: Rgb) -> None:
    canvas.part(frame, box(-0.17, 0.3, 0.17, 1.0), (130, 85, 45))
    canvas.part(frame, oval(0, -0.25, 0.8, 0.75), colour)
    for x, y in ((-0.35, -0.4), (0.3, -0.55), (0.4, 0.0), (-0.2, 0.1)):
        canvas.spot(frame, x, y, 0.15, accent)


def _cat(canvas: Canvas, frame: Frame, colour: Rgb, accent: Rgb) -> None:
    canvas.part(frame, [(-0.8, -0.95), (-0.1, -0.55), (-0.8, 0.0)], colour)
    canvas.part(frame, [(0.8, -0.95), (0.1, -0.55), (0.8, 0.0)], colour)
    canvas.part(frame, oval(0, 0.15, 0.92, 0.8), colour)
    canvas.patch(frame, oval(0, 0.48, 0.48, 0.36), accent)
    canvas.eye(frame, -0.38, 0.0, 0.22)
    canvas.eye(frame, 0.38, 0.0, 0.22)
    canvas.patch(frame, [(-0.13, 0.3), (0.13, 0.3), (0, 0.48)], _DARK)


def _ladybug(canvas: Canvas, frame: Frame, colour: Rgb, accent: Rgb) -> None:
    canvas.part(frame, oval(0, -0.62, 0.42, 0.36), _DARK)
    canvas.part(frame, oval(0, 0.15, 0.82, 0.82), colour)
    canvas.patch(frame, box(-0.05, -0.62, 0.05, 0.92), _DARK)
    for x, y in ((-0.42, -0.15), (0.42, -0.15), (-0.38, 0.45), (0.38, 0.45)):
        canvas.spot(frame, x, y, 0.18, accent)


def _rocket(canvas: Canvas, frame: Frame, colour: Rgb, accent: Rgb) -> None:
    canvas.part(frame, [(-0.25, 0.6), (0.25, 0.6), (0, 1.1)], (250, 170, 40))
    canvas.part(frame, [(-0.35, 0.1), (-0.8, 0.75), (-0.35, 0.65)], accent)
    canvas.part(frame, [(0.35, 0.1), (0.8, 0.75), (0.35, 0.65)], accent)
    canvas.part(
        frame, [(0, -1.05), (0.3, -0.65), (0.4, -0.1), (0.35, 0.65), (-0.35, 0.65), (-0.4, -0.1), (-0.3, -0.65)], colour
    )
    canvas.part(frame, oval(0, -0.25, 0.2, 0.2), (190, 230, 250))
    canvas.patch(frame, box(-0.34, 0.3, 0.34, 0.45), accent)


def _snowman(canvas: Canvas, frame: Frame, colour: Rgb, accent: Rgb) -> None:
    canvas.part(frame, oval(0, 0.45, 0.6, 0.55), colour)
    canvas.part(frame, oval(0, -0.25, 0.42, 0.4), colour)
    canvas.part(frame, box(-0.42, 0.0, 0.42, 0.16), accent)
    canvas.part(frame, box(-0.3, -1.0, 0.3, -0.55), accent)
    canvas.spot(frame, -0.14, -0.32, 0.08, _DARK)
    canvas.spot(frame, 0.14, -0.32, 0.08, _DARK)
    canvas.patch(frame, [(0, -0.24), (0.32, -0.16), (0, -0.1)], (246, 140, 20))


def _duck(canvas: Canvas, frame: Frame, colour: Rgb, accent: Rgb) -> None:
    canvas.part(frame, [(-0.5, -0.5), (-1.0, -0.4), (-0.5, -0.2)], accent)
    canvas.part(frame, oval(0.15, 0.35, 0.8, 0.52), colour)
    canvas.part(frame, oval(-0.3, -0.4, 0.42, 0.42), colour)
    canvas.part(frame, oval(0.3, 0.32, 0.38, 0.24), accent)
    canvas.eye(frame, -0.4, -0.5, 0.14)


def _cupcake(canvas: Canvas, frame: Frame, colour: Rgb, accent: Rgb) -> None:
    canvas.part(frame, [(-0.72, 0.1), (0.72, 0.1), (0.5, 0.95), (-0.5, 0.95)], colour)
    for x in (-0.36, 0.0, 0.36):
        canvas.patch(frame, box(x - 0.06, 0.16, x + 0.06, 0.9), tuple(int(c * 0.75) for c in colour))  # type: ignore[arg-type]
    canvas.part(frame, oval(0, -0.05, 0.88, 0.35), accent)
    canvas.part(frame, oval(0, -0.38, 0.58, 0.32), accent)
    canvas.part(frame, oval(0, -0.78, 0.2, 0.2, 20), (222, 44, 48))


PAINTERS: dict[str, Painter] = {
    "robot": _robot,
    "house": _house,
    "fish": _fish,
    "mushroom": _mushroom,
    "flower": _flower,
    "car": _car,
    "boat": _boat,
    "tree": _tree,
    "cat": _cat,
    "ladybug": _ladybug,
    "rocket": _rocket,
    "snowman": _snowman,
    "duck": _duck,
    "cupcake": _cupcake,
}


def random_toy(rng: random.Random) -> Toy:
    colour, accent = rng.sample(tuple(COLOURS), 2)
    return Toy(
        kind=rng.choice(tuple(PAINTERS)),
        colour=colour,
        accent=accent,
        size=rng.choice(("small", "large", "large")),
        place=rng.choice(PLACES),
        background=rng.choice(BACKGROUNDS),
        variation=rng.randrange(VARIATIONS),
    )


def draw_toy(toy: Toy) -> Image.Image:
    """The toy as a 64 x 64 RGB picture; toys are a tenth larger than shapes, so that their details survive."""
    canvas = Canvas(background(toy.background))
    frame = frame_of(toy.size, toy.place, toy.variation)
    grown = Frame(frame.x_px, frame.y_px, frame.radius_px * 1.1, (toy.variation % 7 - 3) * 3.0)
    PAINTERS[toy.kind](canvas, grown, COLOURS[toy.colour], COLOURS[toy.accent])
    return canvas.reduced()


def toy_captions(toy: Toy) -> list[str]:
    """Captions of a toy, from full to "a toy"; the background is always named."""
    colours = f"{toy.colour} and {toy.accent}"
    texts = []
    for phrase in BACKGROUND_PHRASES[toy.background]:
        texts += [
            f"{with_article(f'{toy.size} {colours} {toy.kind}')} {phrase}",
            f"a photo of {with_article(f'{colours} {toy.kind}')} {phrase}",
            f"a photo of {with_article(toy.kind)} {phrase}",
            f"a photo of a {colours} toy {phrase}",
            f"a photo of a toy {phrase}",
        ]
    return texts
