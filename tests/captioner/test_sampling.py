"""The Gumbel-max sampler: draws from the distribution it is given, each row from its own seed."""

from collections import Counter

import torch
from captioner.generation import Settings
from captioner.sampling import RowSampler

PROBABILITIES = torch.tensor([0.5, 0.3, 0.15, 0.05])
NUM_DRAWS = 2000


def draw(**settings: float) -> Counter[int]:
    """Tokens drawn by rows of different seeds."""
    rows = [Settings(temperature=1.0, seed=seed) for seed in range(NUM_DRAWS)]
    sampler = RowSampler([Settings(**{**vars(row), **settings}) for row in rows])
    scores = PROBABILITIES.log().expand(NUM_DRAWS, -1)
    return Counter(sampler(torch.empty(0), scores).argmax(-1).tolist())


def test_draws_follow_the_distribution() -> None:
    drawn = draw()
    for token, probability in enumerate(PROBABILITIES.tolist()):
        assert abs(drawn[token] / NUM_DRAWS - probability) < 0.05


def test_top_p_and_top_k_keep_the_likeliest() -> None:
    assert set(draw(top_p=0.6)) == {0, 1}
    assert set(draw(top_k=3)) == {0, 1, 2}
    assert set(draw(top_p=0.01)) == {0}


def test_a_temperature_near_zero_is_greedy() -> None:
    assert set(draw(temperature=1e-44)) == {0}


def test_seeds_of_64_bits_are_taken() -> None:
    scores = torch.zeros(3, 100)
    sampled = RowSampler([Settings(temperature=1.0, seed=seed) for seed in (1, 2**63 + 2, 2**64 - 1)])(scores, scores)
    assert len({tuple(row.tolist()) for row in sampled}) == 3
