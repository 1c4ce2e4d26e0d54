"""Pictures for the BLIP-2 models with what is true of them: shapes, toys and toys of no known kind, taken as photos.

Half of the shapes are the plain drawings of `scenes.draw`; everything else is drawn at other sizes and proportions,
tilted, cropped, compressed and lit differently, since people send photos of any size.
"""

import io
import random
from dataclasses import dataclass

import numpy as np
from drawing.backgrounds import background
from drawing.canvas import SIDE_PX, Canvas, Frame, Rgb, box, oval, regular
from drawing.scenes import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES, Scene, draw, frame_of, random_scene
from drawing.shapes import OUTLINES
from drawing.toys import PAINTERS, draw_toy, random_toy
from PIL import Image, ImageEnhance

UNKNOWN = "toy"  # the word for an object of no known kind
KINDS = (*SHAPES, *PAINTERS, UNKNOWN)
NO_ACCENT = "none"
ACCENTS = (*COLOURS, NO_ACCENT)
CANVASES_PX = ((64, 64), (96, 96), (128, 96), (96, 128), (160, 160))
RADII_PX = {"small": (10.0, 14.0), "large": (17.0, 24.5)}  # in a picture of 64 px
PLAIN_SHARE, SHAPE_SHARE, TOY_SHARE = 0.5, 0.5, 0.3


@dataclass(frozen=True)
class Fact:
    """What a picture shows; `accent` is "none" for an object of one colour."""

    kind: str
    colour: str
    accent: str
    size: str
    place: str
    background: str


ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "colour": tuple(COLOURS),
    "accent": ACCENTS,
    "size": tuple(SIZES),
    "place": PLACES,
    "background": tuple(BACKGROUNDS),
}


def fact_of(scene: Scene) -> Fact:
    return Fact(scene.shape, scene.colour, NO_ACCENT, scene.size, scene.place, scene.background)


def labels(fact: Fact) -> list[int]:
    """The fact as one class number per attribute, in the order of ATTRIBUTES."""
    return [values.index(getattr(fact, name)) for name, values in ATTRIBUTES.items()]


def fact_from(numbers: list[int]) -> Fact:
    """The inverse of `labels`."""
    return Fact(*(values[n] for values, n in zip(ATTRIBUTES.values(), numbers, strict=True)))


def nearest_colour(colour: Rgb) -> str:
    """The name whose colour is nearest, in chroma above all: dark teal is rather green than blue or black."""
    target = _opponent(colour)
    return min(COLOURS, key=lambda name: float(np.square(_opponent(COLOURS[name]) - target).sum()))


def _opponent(colour: Rgb) -> np.ndarray:
    r, g, b = colour
    return np.array([0.5 * (r + g + b) / 3, r - g, (r + g) / 2 - b], np.float32)


def random_picture(rng: random.Random) -> tuple[np.ndarray, Fact]:
    """A picture for training as uint8 (64, 64, 3), and its fact; never a held-out combination."""
    kind = rng.random()
    plain = rng.random() < PLAIN_SHARE
    if kind < SHAPE_SHARE:
        scene = random_scene(rng)
        fact = fact_of(scene)
        image = draw(scene) if plain else _photo(rng, fact, lambda c, f: _paint_shape(rng, c, f, fact))
    elif kind < SHAPE_SHARE + TOY_SHARE:
        toy = random_toy(rng)
        fact = Fact(toy.kind, toy.colour, toy.accent, toy.size, toy.place, toy.background)
        image = draw_toy(toy) if plain else _photo(rng, fact, lambda c, f: _paint_toy(rng, c, f, fact))
    else:
        image, fact = _unknown(rng)
    return np.asarray(_worn(rng, image)), fact


def _shaken(rng: random.Random, colour: Rgb, by: int = 12) -> Rgb:
    r, g, b = (min(255, max(0, c + rng.randint(-by, by))) for c in colour)
    return (r, g, b)


def _paint_shape(rng: random.Random, canvas: Canvas, frame: Frame, fact: Fact) -> None:
    canvas.part(frame, OUTLINES[fact.kind], _shaken(rng, COLOURS[fact.colour]))


def _paint_toy(rng: random.Random, canvas: Canvas, frame: Frame, fact: Fact) -> None:
    PAINTERS[fact.kind](canvas, frame, _shaken(rng, COLOURS[fact.colour]), _shaken(rng, COLOURS[fact.accent]))


def _photo(rng: random.Random, fact: Fact, paint) -> Image.Image:  # noqa: ANN001
    """The object on a canvas of other size and proportions, reduced to 64 px without keeping the proportions."""
    width, height = rng.choice(CANVASES_PX)
    canvas = Canvas(background(fact.background, width, height), oversampling=4 if width == SIDE_PX else 2)
    there = frame_of(fact.size, fact.place, rng.randrange(90))
    x = (there.x_px + rng.uniform(-2, 2)) / SIDE_PX
    y = (there.y_px + rng.uniform(-2, 2)) / SIDE_PX
    radius = rng.uniform(*RADII_PX[fact.size]) / SIDE_PX * min(width, height)
    paint(canvas, Frame(x * width, y * height, radius, rng.uniform(-8, 8)))
    picture = canvas.reduced()
    if rng.random() < 0.4:  # a cut-out of the photo: the background at another scale and phase
        cut = rng.uniform(0.0, 0.1)
        left, top = rng.uniform(0, cut), rng.uniform(0, cut)
        picture = picture.crop(
            (
                int(left * width),
                int(top * height),
                int((1 - cut + left) * width),
                int((1 - cut + top) * height),
            )
        )
    return picture.resize((SIDE_PX, SIDE_PX), rng.choice((Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)))


def _any_colour(rng: random.Random) -> Rgb:
    if rng.random() < 0.5:
        return _shaken(rng, rng.choice(tuple(COLOURS.values())), 20)
    a, b = rng.sample(tuple(COLOURS.values()), 2)
    t = rng.random()
    r, g, bl = (int(p * t + q * (1 - t)) for p, q in zip(a, b, strict=True))
    return (r, g, bl)


def _unknown(rng: random.Random) -> tuple[Image.Image, Fact]:
    """A toy put together from random parts: body, belly or stripes, limbs, eyes."""
    colour, accent = _any_colour(rng), _any_colour(rng)
    while nearest_colour(colour) == nearest_colour(accent):
        accent = _any_colour(rng)
    fact = Fact(
        UNKNOWN,
        nearest_colour(colour),
        nearest_colour(accent),
        rng.choice(("small", "large", "large")),
        rng.choice(PLACES),
        rng.choice(BACKGROUNDS),
    )
    return _photo(rng, fact, lambda c, f: _paint_unknown(rng, c, f, colour, accent)), fact


def _paint_unknown(rng: random.Random, canvas: Canvas, frame: Frame, colour: Rgb, accent: Rgb) -> None:
    for _ in range(rng.randint(1, 3)):  # limbs in pairs, behind the body
        x, y = rng.uniform(0.4, 0.85), rng.uniform(-0.7, 0.9)
        rx, ry = rng.uniform(0.12, 0.3), rng.uniform(0.12, 0.35)
        fill = rng.choice((colour, accent))
        for side in (-1, 1):
            limb = oval(x * side, y, rx, ry, 24) if rx < ry else box(x * side - rx, y - ry, x * side + rx, y + ry)
            canvas.part(frame, limb, fill)
    body = rng.choice(
        (
            oval(0, 0.1, rng.uniform(0.55, 0.9), rng.uniform(0.55, 0.85)),
            box(-0.65, -0.6, 0.65, 0.8),
            regular(rng.choice((5, 7, 8)), 0.85),
        )
    )
    canvas.part(frame, body, colour)
    if rng.random() < 0.6:
        canvas.patch(frame, oval(0, 0.4, rng.uniform(0.25, 0.5), rng.uniform(0.2, 0.38)), accent)
    else:
        canvas.patch(frame, box(-0.5, 0.15, 0.5, rng.uniform(0.3, 0.5)), accent)
    if rng.random() < 0.8:
        radius, apart = rng.uniform(0.13, 0.25), rng.uniform(0.25, 0.38)
        canvas.eye(frame, -apart, -0.15, radius)
        canvas.eye(frame, apart, -0.15, radius)


def _worn(rng: random.Random, image: Image.Image) -> Image.Image:
    """A third of the pictures lightly compressed, enlarged and reduced, or lit differently; sizes stay."""
    if rng.random() < 0.2:
        side = rng.randint(100, 256)
        filter_ = rng.choice((Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.NEAREST))
        image = image.resize((side, side), filter_).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    if rng.random() < 0.25:
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.88, 1.12))
    if rng.random() < 0.15:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(70, 95))
        image = Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
    return image


def make_pool(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (count, 64, 64, 3) uint8 and their labels (count, attributes) int64, always the same for a seed."""
    pictures = np.empty((count, SIDE_PX, SIDE_PX, 3), np.uint8)
    numbers = np.empty((count, len(ATTRIBUTES)), np.int64)
    for i in range(count):
        pictures[i], fact = random_picture(random.Random(f"{seed}/{i}"))
        numbers[i] = labels(fact)
    return pictures, numbers
