from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from dreambooth.batches import Images, View, views
from dreambooth.dataset import TrainingImage
from dreambooth.draws import Draws
from dreambooth.recipe import Recipe

RECIPE = Recipe("base", "/base", "c")
DRAWS = Draws(4, "unet")


def images(*sizes: tuple[int, int], cut: tuple[int, int] = (64, 64), num_class: int = 0) -> Images:
    found = [TrainingImage(f"{i}.png", "", "toy", np.zeros((*size, 3), np.uint8), cut) for i, size in enumerate(sizes)]
    return Images(found, len(found) - num_class)


def shown(found: Images, recipe: Recipe, steps: int, num_micro: int = 1) -> list[tuple[View, ...]]:
    return [views(DRAWS, found, recipe, step, m, num_micro) for step in range(1, steps + 1) for m in range(num_micro)]


@pytest.mark.parametrize(("batch_size", "num_micro"), [(3, 1), (1, 3)])
def test_every_image_is_shown_equally_often_across_epochs(batch_size: int, num_micro: int) -> None:
    recipe = replace(RECIPE, batch_size=batch_size)
    order = [v.index for batch in shown(images(*[(64, 64)] * 5), recipe, 10, num_micro) for v in batch]
    assert len(order) == 30
    assert all(sorted(order[first : first + 5]) == [0, 1, 2, 3, 4] for first in range(0, 30, 5))


def test_a_step_alone_gives_the_same_views_as_in_sequence() -> None:
    found, recipe = images((64, 90), (120, 64), (64, 64)), replace(RECIPE, batch_size=2, flip=True)
    sequence = shown(found, recipe, 8)
    assert views(DRAWS, found, recipe, 7, 0, 1) == sequence[6]


def test_crops_stay_inside_and_move_only_where_there_is_room() -> None:
    every = [v for (v,) in shown(images((64, 90), (120, 64)), RECIPE, 200)]
    wide = [v for v in every if v.index == 0]
    tall = [v for v in every if v.index == 1]
    assert {v.top for v in wide} == {0}
    assert {v.left for v in tall} == {0}
    assert min(v.left for v in wide) == 0
    assert max(v.left for v in wide) == 26
    assert max(v.top for v in tall) <= 56
    assert not any(v.mirrored for v in every)


def test_the_middle_is_always_the_same() -> None:
    every = [v for (v,) in shown(images((64, 91), (120, 64)), replace(RECIPE, crop="center"), 20)]
    assert {(v.index, v.top, v.left) for v in every} == {(0, 0, 14), (1, 28, 0)}


def test_flip_mirrors_about_half_and_changes_nothing_else() -> None:
    found = images((64, 90))
    plain = [v for (v,) in shown(found, RECIPE, 100)]
    flipped = [v for (v,) in shown(found, replace(RECIPE, flip=True), 100)]
    assert [View(v.index, v.top, v.left, False) for v in flipped] == plain
    assert 30 < sum(v.mirrored for v in flipped) < 70


def test_class_images_follow_the_instance_images_in_an_order_of_their_own() -> None:
    found = images(*[(64, 64)] * 7, num_class=4)
    batches = shown(found, replace(RECIPE, batch_size=2), 12)
    assert all(len(batch) == 4 for batch in batches)
    assert all(v.index < 3 for batch in batches for v in batch[:2])
    assert Counter(v.index for batch in batches for v in batch[2:]) == {3: 6, 4: 6, 5: 6, 6: 6}


def test_a_batch_comes_from_one_bucket_and_an_epoch_shows_every_image() -> None:
    square = [TrainingImage(f"s{i}.png", "", "toy", np.zeros((64, 64, 3), np.uint8), (64, 64)) for i in range(3)]
    tall = [TrainingImage(f"t{i}.png", "", "toy", np.zeros((88, 40, 3), np.uint8), (88, 40)) for i in range(5)]
    found = Images([*square, *tall], 8)
    batches = shown(found, replace(RECIPE, crop="buckets", batch_size=2), 10)
    assert all(len({found.every[v.index].cut for v in batch}) == 1 for batch in batches)
    for epoch in (batches[:5], batches[5:]):
        counts = Counter(v.index for batch in epoch for v in batch)
        assert set(counts) == set(range(8))
        assert sum(counts.values()) == 10  # the last batch of each bucket is filled up
    assert [batch[0].index for batch in batches[:5]] != [batch[0].index for batch in batches[5:]]
