"""Scenes are reproducible, held-out ones stay apart, captions and questions tell the truth."""

import random

import numpy as np
from drawing import scenes, toys
from drawing.scenes import Scene

SCENE = Scene("circle", "red", "small", "left", "bricks", 7)


def test_equal_scenes_draw_equal_pictures_of_64_px() -> None:
    first, second = scenes.draw(SCENE), scenes.draw(SCENE)
    assert (first.mode, first.size) == ("RGB", (64, 64))
    assert np.array_equal(np.asarray(first), np.asarray(second))


def test_random_scenes_keep_to_their_side_of_the_hold_out() -> None:
    rng = random.Random(1)
    assert not any(scenes.is_held_out(scenes.random_scene(rng)) for _ in range(200))
    assert all(scenes.is_held_out(scenes.random_scene(rng, held_out=True)) for _ in range(50))


def test_hold_out_is_about_a_tenth_and_ignores_the_variation() -> None:
    everything = [
        Scene(shape, colour, size, place, background)
        for shape in scenes.SHAPES
        for colour in scenes.COLOURS
        for size in scenes.SIZES
        for place in scenes.PLACES
        for background in scenes.BACKGROUNDS
    ]
    share = sum(map(scenes.is_held_out, everything)) / len(everything)
    assert 0.08 < share < 0.12
    assert {scenes.is_held_out(Scene("star", "blue", "large", "top", "sea", v)) for v in range(20)} in ({True}, {False})


def test_captions_name_what_is_drawn() -> None:
    texts = scenes.captions(SCENE)
    assert texts[0] == "a small red circle on a brick wall"
    assert all("red circle" in text for text in texts)
    assert len(set(texts)) == len(texts)
    assert scenes.captions(Scene("heart", "orange", "large", "top", "night"))[4].startswith("an orange heart")


def test_questions_have_true_answers_and_balanced_yes_and_no() -> None:
    pairs = scenes.questions(SCENE, random.Random(3))
    answers = [answer for _, answer in pairs]
    assert answers[:4] == ["red", "circle", "bricks", "small"]
    assert answers.count("yes") == answers.count("no") == 2
    assert ("is there a circle?", "yes") in pairs


def test_toys_draw_and_are_captioned() -> None:
    toy = toys.Toy("fish", "orange", "blue", "large", "middle", "sea", 3)
    assert toys.draw_toy(toy).size == (64, 64)
    assert toys.toy_captions(toy)[0] == "a large orange and blue fish on the sea"
    assert "a photo of a toy on the sea" in toys.toy_captions(toy)
