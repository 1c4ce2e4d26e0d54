"""Pip is told from everything the models were trained on."""

import random

import pytest
from drawing import scenes, subject, toys
from drawing.canvas import Frame
from PIL import Image


def test_photos_are_sized_like_photos_and_show_pip() -> None:
    photos = subject.photos()
    assert len(photos) == 5
    assert len({photo.size for photo in photos.values()}) >= 3
    for name, photo in photos.items():
        assert min(photo.size) >= 480, name
        assert subject.subject_fidelity(photo) > 0.7, name


@pytest.mark.parametrize("name", ["sea", "night", "bricks", "meadow", "wood"])
def test_pip_on_a_new_background_scores_high(name: str) -> None:
    assert subject.subject_fidelity(subject.on_background(name, Frame(30, 33, 20, 3))) > 0.7


def test_scenes_and_toys_score_low() -> None:
    rng = random.Random(5)
    others = [scenes.draw(scenes.random_scene(rng)) for _ in range(12)]
    others += [toys.draw_toy(toys.random_toy(rng)) for _ in range(28)]
    assert max(subject.subject_fidelity(other) for other in others) < 0.25


def test_pip_in_wrong_colours_scores_low() -> None:
    picture = subject.on_background("gray", Frame(32, 33, 21))
    red, green, blue = picture.split()
    assert subject.subject_fidelity(Image.merge("RGB", (green, blue, red))) < 0.4
