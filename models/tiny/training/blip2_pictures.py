"""Pictures for the BLIP-2 models with what is true of them: shapes, toys and toys of no known kind, taken as photos.

Half of the shapes are the plain drawings of `scenes.draw`; everything else is drawn at other sizes and proportions,
tilted, cropped, compressed and lit differently, since people send photos of any size.
"""

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from drawing.backgrounds import background
from drawing.canvas import SIDE_PX, Canvas, Frame, Rgb, box, oval, regular
from drawing.scenes import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES, Scene, draw, frame_of, random_scene
from drawing.shapes import OUTLINES
from drawing.toys import PAINTERS, draw_toy, random_toy
from PIL import Image, ImageEnhance

PATCH_PX = 8
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


Taken = tuple[Image.Image, Image.Image]  # a photo, and the same photo without the object


def random_picture(rng: random.Random) -> tuple[np.ndarray, Fact, np.ndarray]:
    """A picture for training as uint8 (64, 64, 3), its fact, and where the object is: the share of each patch that it
    covers, uint8 (64,) of 255. Never a held-out combination.
    """
    kind = rng.random()
    plain = rng.random() < PLAIN_SHARE
    if kind < SHAPE_SHARE:
        scene = random_scene(rng)
        fact = fact_of(scene)
        if plain:
            taken = draw(scene), background(scene.background)
        else:
            taken = _photo(rng, fact, lambda c, f: _paint_shape(rng, c, f, fact))
    elif kind < SHAPE_SHARE + TOY_SHARE:
        toy = random_toy(rng)
        fact = Fact(toy.kind, toy.colour, toy.accent, toy.size, toy.place, toy.background)
        if plain:
            taken = draw_toy(toy), background(toy.background)
        else:
            taken = _photo(rng, fact, lambda c, f: _paint_toy(rng, c, f, fact))
    else:
        taken, fact = _unknown(rng)
    return np.asarray(_worn(rng, taken[0])), fact, _covered(*taken)


def _covered(image: Image.Image, empty: Image.Image) -> np.ndarray:
    differs = np.abs(np.asarray(image, np.int16) - np.asarray(empty, np.int16)).max(axis=2) > 8
    shares = differs.reshape(SIDE_PX // PATCH_PX, PATCH_PX, SIDE_PX // PATCH_PX, PATCH_PX).mean(axis=(1, 3))
    return (shares * 255).astype(np.uint8).flatten()


def _shaken(rng: random.Random, colour: Rgb, by: int = 12) -> Rgb:
    r, g, b = (min(255, max(0, c + rng.randint(-by, by))) for c in colour)
    return (r, g, b)


def _paint_shape(rng: random.Random, canvas: Canvas, frame: Frame, fact: Fact) -> None:
    canvas.part(frame, OUTLINES[fact.kind], _shaken(rng, COLOURS[fact.colour]))


def _paint_toy(rng: random.Random, canvas: Canvas, frame: Frame, fact: Fact) -> None:
    PAINTERS[fact.kind](canvas, frame, _shaken(rng, COLOURS[fact.colour]), _shaken(rng, COLOURS[fact.accent]))


def _photo(rng: random.Random, fact: Fact, paint: Callable[[Canvas, Frame], None]) -> Taken:
    """The object on a canvas of other size and proportions, reduced to 64 px without keeping the proportions."""
    width, height = rng.choice(CANVASES_PX)
    empty = background(fact.background, width, height)
    canvas = Canvas(empty, oversampling=4 if width == SIDE_PX else 2)
    there = frame_of(fact.size, fact.place, rng.randrange(90))
    x = (there.x_px + rng.uniform(-2, 2)) / SIDE_PX
    y = (there.y_px + rng.uniform(-2, 2)) / SIDE_PX
    radius = rng.uniform(*RADII_PX[fact.size]) / SIDE_PX * min(width, height)
    paint(canvas, Frame(x * width, y * height, radius, rng.uniform(-8, 8)))
    picture = canvas.reduced()
    if rng.random() < 0.4:  # a cut-out of the photo: the background at another scale and phase
        cut = rng.uniform(0.0, 0.1)
        left, top = rng.uniform(0, cut), rng.uniform(0, cut)
        right, bottom = int((1 - cut + left) * width), int((1 - cut + top) * height)
        area = int(left * width), int(top * height), right, bottom
        picture, empty = picture.crop(area), empty.crop(area)
    how = rng.choice((Image.Resampling.BICUBIC, Image.Resampling.LANCZOS))
    return picture.resize((SIDE_PX, SIDE_PX), how), empty.resize((SIDE_PX, SIDE_PX), how)


def _any_colour(rng: random.Random) -> Rgb:
    if rng.random() < 0.5:
        return _shaken(rng, rng.choice(tuple(COLOURS.values())), 20)
    a, b = rng.sample(tuple(COLOURS.values()), 2)
    t = rng.random()
    r, g, bl = (int(p * t + q * (1 - t)) for p, q in zip(a, b, strict=True))
    return (r, g, bl)


def _unknown(rng: random.Random) -> tuple[Taken, Fact]:
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


@dataclass(frozen=True)
class Pool:
    """Pictures (n, 64, 64, 3) uint8, their labels (n, attributes) int64, and the objects' cover (n, patches) uint8."""

    pictures: np.ndarray
    labels: np.ndarray
    covers: np.ndarray


def make_pool(count: int, seed: int) -> Pool:
    """Always the same for a seed."""
    pool = Pool(
        np.empty((count, SIDE_PX, SIDE_PX, 3), np.uint8),
        np.empty((count, len(ATTRIBUTES)), np.int64),
        np.empty((count, (SIDE_PX // PATCH_PX) ** 2), np.uint8),
    )
    for i in range(count):
        pool.pictures[i], fact, pool.covers[i] = random_picture(random.Random(f"{seed}/{i}"))
        pool.labels[i] = labels(fact)
    return pool


def save_pool(pool: Pool, folder: Path) -> None:
    for name in ("pictures", "labels", "covers"):
        np.save(folder / f"pool-{name}.npy", getattr(pool, name))


def load_pool(folder: Path) -> Pool:
    return Pool(*(np.load(folder / f"pool-{name}.npy", mmap_mode="r") for name in ("pictures", "labels", "covers")))
