"""Sampling whose outcome does not depend on batch mates: each row draws from its own seed.

Adding Gumbel noise to log-probabilities and taking the greatest is drawing from the distribution (Gumbel-max trick,
Maddison et al. 2014, arXiv 1411.0030), so rows with different seeds and temperatures share one greedy `generate` call.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from transformers import LogitsProcessor, StoppingCriteria

from captioner.generation import Settings


class RowSampler(LogitsProcessor):  # type: ignore[misc]
    """Perturbs the scores of the rows that sample; rows with temperature 0 stay greedy."""

    def __init__(self, settings: Sequence[Settings]) -> None:
        self._settings = settings
        self._generators = [torch.Generator().manual_seed(row.seed) for row in settings]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """scores: (rows, vocabulary), log-probabilities up to a constant. Called once for each new token."""
        perturbed = scores.float().clone()
        for row, (settings, generator) in enumerate(zip(self._settings, self._generators, strict=True)):
            if settings.samples:
                uniform = torch.rand(scores.shape[-1], generator=generator).clamp_(min=1e-20).to(scores.device)
                # Differences to the greatest: a temperature near 0 must not make infinities of it.
                cooled = (perturbed[row] - perturbed[row].max()) / settings.temperature
                perturbed[row] = _keep_likely(cooled, settings) - (-uniform.log()).log()
        return perturbed


def _keep_likely(scores: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Scores (vocabulary,) with everything outside top_k and top_p at minus infinity; the likeliest token always stays."""
    ordered, order = scores.sort(descending=True)
    drop = torch.zeros_like(ordered, dtype=torch.bool)
    if settings.top_k:
        drop[settings.top_k :] = True
    if settings.top_p < 1:
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        drop |= before >= settings.top_p
    drop[0] = False
    return scores.index_fill(0, order[drop], float("-inf"))


class Abandonable(Protocol):
    """Anything that knows whether somebody still waits for it."""

    @property
    def abandoned(self) -> bool:
        """True once nobody waits."""


class StopAbandoned(StoppingCriteria):  # type: ignore[misc]
    """Ends the rows whose callers went away, so that a batch does not work for nobody."""

    def __init__(self, entries: Sequence[Abandonable]) -> None:
        self._entries = entries

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        """A flag for each row of input_ids. With beams, each entry has several rows in a run (two for each beam)."""
        flags = torch.tensor([entry.abandoned for entry in self._entries], dtype=torch.bool, device=input_ids.device)
        return flags.repeat_interleave(input_ids.shape[0] // len(self._entries))
