"""The judge is right on drawn scenes, and says so when nothing or something else is shown."""

import random

import cv2
import numpy as np
from drawing import edges, judge, scenes
from drawing.backgrounds import NAMES, background
from PIL import Image, ImageFilter

SIDES = ("shape", "colour", "size", "background")


def test_drawn_scenes_are_judged_without_a_mistake_in_a_hundred() -> None:
    rng = random.Random(11)
    wanted = [scenes.random_scene(rng, held_out=i % 2 == 0) for i in range(200)]
    verdicts = [judge.judge(scenes.draw(scene)) for scene in wanted]
    for side in SIDES:
        right = sum(getattr(v, side) == getattr(s, side) for v, s in zip(verdicts, wanted, strict=True))
        assert right / len(wanted) >= 0.99, side


def test_slightly_blurred_scenes_are_still_recognised() -> None:
    rng = random.Random(12)
    wanted = [scenes.random_scene(rng) for _ in range(80)]
    verdicts = [judge.judge(scenes.draw(scene).filter(ImageFilter.GaussianBlur(0.7))) for scene in wanted]
    for side in SIDES:
        right = sum(getattr(v, side) == getattr(s, side) for v, s in zip(verdicts, wanted, strict=True))
        assert right / len(wanted) >= 0.95, side


def test_shapes_with_wavy_sides_are_still_recognised() -> None:
    rng = random.Random(13)
    wanted = [scenes.random_scene(rng) for _ in range(80)]
    verdicts = [judge.judge(_wavy(scenes.draw(scene))) for scene in wanted]
    right = sum(v.shape == s.shape for v, s in zip(verdicts, wanted, strict=True))
    assert right / len(wanted) >= 0.95


def _wavy(image: Image.Image) -> Image.Image:
    """Every pixel moved by up to 1 px along sines of 14 px, as hands and small networks draw straight lines."""
    places = np.arange(64, dtype=np.float32)
    x, y = np.meshgrid(places, places)
    waves = np.sin(2 * np.pi * places / 14).astype(np.float32)
    return Image.fromarray(cv2.remap(np.asarray(image), x + waves[:, None], y + waves[None], cv2.INTER_LINEAR))


def test_an_empty_background_has_no_object() -> None:
    for name in NAMES:
        verdict = judge.judge(background(name))
        assert (verdict.shape, verdict.colour, verdict.background) == ("", "", name)


def test_a_scene_of_another_size_is_reduced_first() -> None:
    scene = scenes.Scene("star", "yellow", "large", "middle", "night")
    verdict = judge.judge(scenes.draw(scene).resize((256, 256), Image.Resampling.LANCZOS))
    assert (verdict.shape, verdict.colour, verdict.background) == ("star", "yellow", "night")


def test_edges_agree_with_themselves_and_not_with_another_scene() -> None:
    first = edges.canny(scenes.draw(scenes.Scene("star", "yellow", "large", "left", "gray")))
    second = edges.canny(scenes.draw(scenes.Scene("square", "red", "small", "right", "gray")))
    assert edges.agreement(first, first) == 1.0
    assert edges.agreement(first, second) < 0.1
