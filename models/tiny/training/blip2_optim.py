"""Optimisers and saved states that the three BLIP-2 stages share."""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from .muon import Muon
from .ranks import cosine


class Optimisers:
    """Muon for the matrices inside the layers, AdamW for embeddings, norms, biases and heads."""

    def __init__(self, named: Iterable[tuple[str, torch.nn.Parameter]], muon_rate: float, adam_rate: float) -> None:
        matrices, others = [], []
        for name, p in named:
            inner = p.ndim == 2 and ("layers." in name or ".layer." in name)
            (matrices if inner and "embed" not in name else others).append(p)
        self._all = [torch.optim.AdamW(others, adam_rate, (0.9, 0.98), weight_decay=0.0), Muon(matrices, muon_rate)]
        self._others = others
        self._rates = (adam_rate, muon_rate)

    def step(self, loss: torch.Tensor, factor: float) -> None:
        """One update with the learning rates times `factor`."""
        for optimiser, rate in zip(self._all, self._rates, strict=True):
            optimiser.param_groups[0]["lr"] = rate * factor
            optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._others, 1.0)
        for optimiser in self._all:
            optimiser.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [o.state_dict() for o in self._all]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for optimiser, state in zip(self._all, states, strict=True):
            optimiser.load_state_dict(state)


class Average(torch.nn.Module):
    """A copy of a model whose weights follow it slowly; it scores a little better than the last step."""

    def __init__(self, model: torch.nn.Module, decay: float = 0.99) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, model: torch.nn.Module, step: int) -> None:
        decay = min(self._decay, (step + 1) / (step + 5))
        for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs, 1 - decay)


def save_state(file: Path, step: int, optimisers: Optimisers, **modules: torch.nn.Module) -> None:
    """Whole or not at all, so that a run stopped while saving can resume."""
    state = {name: module.state_dict() for name, module in modules.items()}
    part = file.with_suffix(".part")
    torch.save({"step": step, "optimisers": optimisers.state_dict(), **state}, part)
    part.replace(file)


def load_state(file: Path, optimisers: Optimisers, **modules: torch.nn.Module) -> int:
    """The step to go on with; 0 where nothing is saved."""
    if not file.exists():
        return 0
    state = torch.load(file, weights_only=True)
    for name, module in modules.items():
        module.load_state_dict(state[name])
    optimisers.load_state_dict(state["optimisers"])
    return int(state["step"])


__all__ = ["Average", "Optimisers", "cosine", "load_state", "save_state"]
