"""Geometry of crops and saliency: pure numbers."""

import numpy as np
import pytest
from trainer.crop import Box, Square, place, salient_point


@pytest.mark.parametrize("seed", range(5))
def test_a_crop_is_the_largest_square_inside_the_picture(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(200):
        width, height = (int(edge) for edge in random.integers(1, 8000, 2))
        faces = [
            Box(*random.uniform(-100, 8000, 2), *random.uniform(1, 3000, 2)) for _ in range(int(random.integers(0, 4)))
        ]
        square = place(width, height, faces, (float(random.uniform(0, width)), float(random.uniform(0, height))))
        assert square.edge == min(width, height)
        assert 0 <= square.left <= width - square.edge
        assert 0 <= square.top <= height - square.edge


def test_it_is_centred_on_the_focus() -> None:
    assert place(300, 100, [], (200.0, 50.0)) == Square(150, 0, 100)
    assert place(100, 300, [], (50.0, 299.0)) == Square(0, 200, 100)


def test_a_face_is_kept_whole_wherever_it_is() -> None:
    for left in range(0, 560, 7):
        square = place(640, 100, [Box(left, 10, 80, 80)], (0, 0))
        assert square.left <= left
        assert left + 80 <= square.left + square.edge


def test_all_faces_are_kept_if_they_fit() -> None:
    faces = [Box(100, 0, 50, 50), Box(200, 0, 30, 30), Box(260, 0, 20, 20)]
    square = place(1000, 200, faces, (0, 0))
    assert square.left <= 100
    assert square.left + square.edge >= 280


def test_the_largest_face_wins_over_faces_too_far_away() -> None:
    square = place(1000, 200, [Box(900, 0, 20, 20), Box(300, 0, 100, 100)], (0, 0))
    assert square == Square(250, 0, 200)


def test_the_salient_point_is_where_something_is() -> None:
    random = np.random.default_rng(0)
    grey = random.normal(100, 2, (64, 64)).astype(np.float32)
    grey[10:20, 44:54] += 100
    x, y = salient_point(grey)
    assert abs(x - 49) < 8
    assert abs(y - 15) < 8


def test_a_plain_picture_has_its_focus_in_the_middle() -> None:
    assert salient_point(np.full((64, 64), 7.0, np.float32)) == (32, 32)
