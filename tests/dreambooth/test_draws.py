import random

import numpy as np
import torch
from dreambooth.draws import CROP, LATENT, NOISE, TIMESTEP, Draws, generator

SHAPE = (2, 4, 8, 8)


def test_a_draw_does_not_depend_on_the_draws_before_it() -> None:
    calls = [(step, purpose) for step in range(1, 30) for purpose in (LATENT, NOISE)]
    first = {call: Draws(5, "unet").normal(*call, SHAPE) for call in calls}
    random.Random(0).shuffle(calls)
    torch.manual_seed(1)
    torch.rand(17)
    again = {call: Draws(5, "unet").normal(*call, SHAPE) for call in calls}
    assert all(torch.equal(first[call], again[call]) for call in calls)


def test_every_part_of_the_name_changes_the_numbers() -> None:
    names = [
        (5, "unet", 1, 0, NOISE),
        (6, "unet", 1, 0, NOISE),
        (5, "text_encoder", 1, 0, NOISE),
        (5, "unet", 2, 0, NOISE),
        (5, "unet", 1, 1, NOISE),
        (5, "unet", 1, 0, LATENT),
        (2**63 - 1, "unet", 1, 0, NOISE),
    ]
    firsts = {generator(*name).standard_normal() for name in names}
    assert len(firsts) == len(names)


def test_numbers_never_change_between_versions() -> None:
    """A resumed run, or one repeated next year, must draw these. Update only with a note in the changelog."""
    numbers = Draws(0, "unet").normal(1, NOISE, (3,))
    recorded = [1.2128881216049194, -2.0804076194763184, -0.47759777307510376]
    assert numbers.tolist() == recorded


def test_normals_are_standard_and_timesteps_uniform() -> None:
    draws = Draws(3, "unet")
    normals = torch.stack([draws.normal(step, NOISE, SHAPE) for step in range(1, 201)])
    assert abs(normals.mean().item()) < 0.01
    assert abs(normals.std().item() - 1) < 0.01
    steps = [draws.integers(step, TIMESTEP, [1000])[0] for step in range(1, 2001)]
    counts = np.histogram(steps, bins=10, range=(0, 1000))[0]
    assert min(steps) >= 0
    assert max(steps) <= 999
    assert counts.min() > 150


def test_integers_stay_below_their_own_limits() -> None:
    drawn = [Draws(0, "unet").integers(step, CROP, [1, 3, 200]) for step in range(1, 100)]
    assert {first for first, _, _ in drawn} == {0}
    assert {second for _, second, _ in drawn} == {0, 1, 2}
    assert max(third for _, _, third in drawn) > 150


def test_epochs_are_different_orders_of_all_images() -> None:
    draws = Draws(1, "unet")
    orders = [draws.permutation(epoch, 6) for epoch in range(5)]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
