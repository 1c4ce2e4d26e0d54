"""Drawn scenes: one coloured shape on a background, with captions and questions; every tiny model trains on them.

A tenth of all combinations is held out (`is_held_out`): no model sees them, scores are measured on them.
"""

import hashlib
import random
from dataclasses import dataclass

from PIL import Image

from .backgrounds import NAMES as BACKGROUNDS
from .backgrounds import PLAIN, TEXTURED, background
from .canvas import Canvas, Frame, Rgb
from .shapes import OUTLINES

COLOURS: dict[str, Rgb] = {
    "red": (222, 44, 48),
    "orange": (246, 140, 20),
    "yellow": (252, 218, 50),
    "green": (36, 160, 72),
    "blue": (36, 84, 222),
    "purple": (140, 60, 190),
    "pink": (250, 130, 185),
    "white": (250, 250, 250),
}
SHAPES = tuple(OUTLINES)
SIZES: dict[str, float] = {"small": 12.0, "large": 19.0}  # radius in px
PLACES = ("middle", "left", "right", "top", "bottom")
VARIATIONS = 100  # each shifts by up to 1 px and scales by up to 5 %
BACKGROUND_PHRASES: dict[str, tuple[str, ...]] = {
    **{name: (f"on a {name} background",) for name in PLAIN},
    "meadow": ("on a meadow", "on the grass"),
    "sea": ("on the sea", "in front of the sea"),
    "night": ("at night", "under the stars"),
    "bricks": ("on a brick wall", "on bricks"),
    "wood": ("on a wooden table", "on wood"),
}
PLACE_PHRASES = {
    "middle": "in the middle",
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
}
HELD_OUT_PERCENT = 10
__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "PLACES",
    "PLAIN",
    "SHAPES",
    "SIZES",
    "TEXTURED",
    "Scene",
    "captions",
    "draw",
    "is_held_out",
    "questions",
    "random_scene",
]


@dataclass(frozen=True)
class Scene:
    shape: str
    colour: str
    size: str
    place: str
    background: str
    variation: int = 0  # 0 .. VARIATIONS - 1


def is_held_out(scene: Scene) -> bool:
    """Whether this combination is kept for scores; the variation plays no part."""
    key = f"{scene.shape}/{scene.colour}/{scene.size}/{scene.place}/{scene.background}"
    return hashlib.sha256(key.encode()).digest()[0] * 100 < HELD_OUT_PERCENT * 256


def random_scene(rng: random.Random, held_out: bool = False) -> Scene:
    """A scene for training, or with `held_out` one that no model has seen."""
    while True:
        scene = Scene(
            shape=rng.choice(SHAPES),
            colour=rng.choice(tuple(COLOURS)),
            size=rng.choice(tuple(SIZES)),
            place=rng.choice(PLACES),
            background=rng.choice(BACKGROUNDS),
            variation=rng.randrange(VARIATIONS),
        )
        if is_held_out(scene) == held_out:
            return scene


def frame_of(size: str, place: str, variation: int) -> Frame:
    """Centre and radius in px of an object of this size at this place."""
    radius = SIZES[size] * (0.95 + 0.1 * (variation % 10) / 9)
    reach = 14.0 if size == "small" else 11.0
    dx, dy = {"middle": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}[place]
    shift_x, shift_y = (variation // 10) % 3 - 1, (variation // 30) % 3 - 1
    return Frame(32 + reach * dx + shift_x, 32 + reach * dy + shift_y, radius)


def draw(scene: Scene) -> Image.Image:
    """The scene as a 64 x 64 RGB picture, always the same for equal scenes."""
    canvas = Canvas(background(scene.background))
    frame = frame_of(scene.size, scene.place, scene.variation)
    canvas.part(frame, OUTLINES[scene.shape], COLOURS[scene.colour])
    return canvas.reduced()


def with_article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def captions(scene: Scene) -> list[str]:
    """Every caption of the scene; the first one, "a small red circle on a brick wall", is the canonical one."""
    full = with_article(f"{scene.size} {scene.colour} {scene.shape}")
    short = with_article(f"{scene.colour} {scene.shape}")
    where = PLACE_PHRASES[scene.place]
    texts = []
    for phrase in BACKGROUND_PHRASES[scene.background]:
        texts += [
            f"{full} {phrase}",
            f"a photo of {full} {phrase}",
            f"{full} {phrase}, {where}",
            f"a photo of {short} {phrase}",
            f"{short} {phrase}",
        ]
    return texts


def questions(scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
    """Pairs of question and answer; half of the yes-or-no questions are answered by "no"."""
    other_shape = rng.choice([s for s in SHAPES if s != scene.shape])
    other_colour = rng.choice([c for c in COLOURS if c != scene.colour])
    return [
        (
            rng.choice(("what colour is the object?", "what color is it?", f"what colour is the {scene.shape}?")),
            scene.colour,
        ),
        (rng.choice(("what shape is the object?", "what shape is it?", "what is this?")), scene.shape),
        (rng.choice(("what is in the background?", "what is the background?")), scene.background),
        (rng.choice(("how big is the object?", f"how big is the {scene.shape}?")), scene.size),
        (f"is there {with_article(scene.shape)}?", "yes"),
        (f"is there {with_article(other_shape)}?", "no"),
        (f"is there {with_article(f'{scene.colour} {scene.shape}')}?", "yes"),
        (f"is there {with_article(f'{other_colour} {scene.shape}')}?", "no"),
    ]
