"""The subjects are told from everything the models were trained on, and from each other."""

import random

import pytest
from drawing import scenes, subject, toys
from drawing.canvas import Frame
from drawing.subject import PIP, SUBJECTS, ZIG, Subject, subject_fidelity
from PIL import Image

both = pytest.mark.parametrize("shown", SUBJECTS.values(), ids=SUBJECTS)


@both
def test_photos_are_sized_like_photos_and_show_it(shown: Subject) -> None:
    photos = subject.photos(shown)
    assert len(photos) == 5
    assert len({photo.size for photo in photos.values()}) >= 3
    for name, photo in photos.items():
        assert min(photo.size) >= 480, name
        assert subject_fidelity(photo, shown) > 0.7, name


@both
@pytest.mark.parametrize("name", ["sea", "night", "bricks", "meadow", "wood"])
def test_on_a_new_background_it_scores_high(name: str, shown: Subject) -> None:
    assert subject_fidelity(subject.on_background(name, Frame(30, 33, 20, 3), shown), shown) > 0.7


@both
def test_scenes_and_toys_score_low(shown: Subject) -> None:
    rng = random.Random(5)
    others = [scenes.draw(scenes.random_scene(rng)) for _ in range(12)]
    others += [toys.draw_toy(toys.random_toy(rng)) for _ in range(28)]
    assert max(subject_fidelity(other, shown) for other in others) < 0.3


def test_one_is_not_taken_for_the_other() -> None:
    for shown, other in ((PIP, ZIG), (ZIG, PIP)):
        assert max(subject_fidelity(photo, other) for photo in subject.photos(shown).values()) < 0.3


@both
def test_in_wrong_colours_it_scores_low(shown: Subject) -> None:
    picture = subject.on_background("gray", Frame(32, 33, 21), shown)
    red, green, blue = picture.split()
    assert subject_fidelity(Image.merge("RGB", (green, blue, red)), shown) < 0.45
