import numpy as np
from dreambooth.batches import View, views
from dreambooth.dataset import TrainingImage
from dreambooth.draws import Draws


def images(*sizes: tuple[int, int]) -> list[TrainingImage]:
    return [TrainingImage(f"{i}.png", "", "toy", np.zeros((*size, 3), np.uint8)) for i, size in enumerate(sizes)]


def test_every_image_is_shown_equally_often_across_epochs() -> None:
    found = images(*[(64, 64)] * 5)
    shown = [v.index for step in range(1, 11) for v in views(Draws(0, "unet"), found, 64, 3, False, step)]
    assert len(shown) == 30
    assert all(sorted(shown[first : first + 5]) == [0, 1, 2, 3, 4] for first in range(0, 30, 5))


def test_a_step_alone_gives_the_same_views_as_in_sequence() -> None:
    found = images((64, 90), (120, 64), (64, 64))
    sequence = [views(Draws(2, "unet"), found, 64, 2, True, step) for step in range(1, 9)]
    assert views(Draws(2, "unet"), found, 64, 2, True, 7) == sequence[6]


def test_crops_stay_inside_and_move_only_where_there_is_room() -> None:
    found = images((64, 90), (120, 64))
    shown = [v for step in range(1, 200) for v in views(Draws(4, "unet"), found, 64, 1, False, step)]
    wide = [v for v in shown if v.index == 0]
    tall = [v for v in shown if v.index == 1]
    assert {v.top for v in wide} == {0}
    assert {v.left for v in tall} == {0}
    assert min(v.left for v in wide) == 0
    assert max(v.left for v in wide) == 26
    assert max(v.top for v in tall) <= 56
    assert not any(v.mirrored for v in shown)


def test_flip_mirrors_about_half_and_changes_nothing_else() -> None:
    found = images((64, 90))
    plain = [views(Draws(4, "unet"), found, 64, 1, False, step)[0] for step in range(1, 101)]
    flipped = [views(Draws(4, "unet"), found, 64, 1, True, step)[0] for step in range(1, 101)]
    assert [View(v.index, v.top, v.left, False) for v in flipped] == plain
    assert 30 < sum(v.mirrored for v in flipped) < 70
