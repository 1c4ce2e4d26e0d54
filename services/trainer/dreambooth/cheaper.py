"""Settings that would need less memory, for a training that does not fit."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any, Final

import torch
from torch import nn

from dreambooth import lora, memory
from dreambooth.case import Case
from dreambooth.parts import Parts
from dreambooth.recipe import ADAMW, ADAMW_8BIT, Lora, Recipe

_LORA: Final = Lora(16, 16.0)  # the recipe's own default
_MOST_MICRO_STEPS: Final = 256  # the recipe's limit of gradient_accumulation_steps


@dataclass(frozen=True)
class Proposal:
    """changes: settings and values, for a person. num_bytes: predicted with them."""

    changes: str
    num_bytes: int


@dataclass(frozen=True)
class _Change:
    words: str
    fields: dict[str, Any]


def find(case: Case, available_bytes: int) -> Proposal | None:
    """The first combination that fits: few changes before many, and adapters instead of weights last."""
    found = _first(case, (), available_bytes)
    if found or case.recipe.lora or case.recipe.reference_order:
        return found
    adapters = _Change(f"lora (rank {_LORA.rank})", {"lora": _LORA})
    return _first(_with_adapters(case), (adapters,), available_bytes)


def _first(case: Case, made: tuple[_Change, ...], available_bytes: int) -> Proposal | None:
    """made: what distinguishes this case from the training that was ordered already."""

    def fitting(changes: Sequence[_Change]) -> Proposal | None:
        fields = {name: value for change in changes for name, value in change.fields.items()}
        needed = memory.predict(replace(case, recipe=replace(case.recipe, **fields))).num_bytes
        words = " and ".join(change.words for change in (*changes, *made))
        return Proposal(words, needed) if needed <= available_bytes else None

    singles = [*_checkpointing(case.recipe), *_optimizer(case.recipe)]
    batches = list(_batches(case.recipe))
    # Nothing needs less than one of these: accumulated gradients may weigh more than the smaller batch saves.
    if not (fitting(singles) or fitting([*batches[-1:], *singles])):
        return None
    if made and (found := fitting([])):
        return found
    for count in range(1, len(singles) + 2):
        for chosen in combinations(singles, count):
            if found := fitting(chosen):
                return found
        for chosen in combinations(singles, count - 1):
            if found := _largest([partial(fitting, [batch, *chosen]) for batch in batches]):
                return found
    return None


def _largest(tries: Sequence[Callable[[], Proposal | None]]) -> Proposal | None:
    """The first that fits, if after it all fit."""
    index = bisect_left(range(len(tries)), True, key=lambda number: tries[number]() is not None)
    return tries[index]() if index < len(tries) else None


def _checkpointing(recipe: Recipe) -> Iterable[_Change]:
    if not recipe.gradient_checkpointing:
        yield _Change("gradient_checkpointing", {"gradient_checkpointing": True})


def _optimizer(recipe: Recipe) -> Iterable[_Change]:
    # The rates of other optimizers mean something else.
    if recipe.optimizer == ADAMW:
        yield _Change(f"optimizer {ADAMW_8BIT}", {"optimizer": ADAMW_8BIT})


def _batches(recipe: Recipe) -> Iterable[_Change]:
    """Smaller batches with as many images for each update, the largest first."""
    for size in range(recipe.batch_size - 1, 0, -1):
        count = recipe.gradient_accumulation_steps * recipe.batch_size // size
        if recipe.batch_size % size == 0 and count <= _MOST_MICRO_STEPS:
            words = f"batch_size {size} with gradient_accumulation_steps {count}"
            yield _Change(words, {"batch_size": size, "gradient_accumulation_steps": count})


def _with_adapters(case: Case) -> Case:
    """The case with adapters on copies of the modules that have no content."""
    parts: Parts = replace(case.parts, unet=_on_meta(case.parts.unet), text_encoder=_on_meta(case.parts.text_encoder))
    lora.attach(parts, _LORA, seed=0)
    return replace(case, parts=parts, recipe=replace(case.recipe, lora=_LORA))


def _on_meta(module: nn.Module) -> nn.Module:
    tensors = [*module.parameters(), *module.buffers()]
    empty = {id(tensor): _empty(tensor) for tensor in tensors}
    return deepcopy(module, empty)


def _empty(tensor: torch.Tensor) -> torch.Tensor:
    made = torch.empty_like(tensor, device="meta")
    return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made
