"""A micro-step without arithmetic: its modules run on torch's meta device, where tensors have shapes and no content, and
every tensor that comes and goes is counted, and every multiplication.

The count is exact for what autograd keeps, also with gradient checkpointing, mixed precision, adapters and frozen
modules. Not seen is what a kernel allocates inside itself. `memory` uses the counts.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dreambooth import micro_step, stages
from dreambooth.meta import AsOnDevice, Counter
from dreambooth.micro_step import MicroStep
from dreambooth.parts import Parts
from dreambooth.recipe import Recipe
from dreambooth.stages import Stage

_META: Final = torch.device("meta")


@dataclass(frozen=True)
class Counted:
    """peak_bytes: most that lived at one time beside weights and inputs. flops: 2 for each multiply-add."""

    peak_bytes: int
    flops: int


def micro_step_of(
    recipe: Recipe, parts: Parts, stage: Stage, cut: tuple[int, int], kind: str, *, accumulates: bool
) -> Counted:
    """A micro-step of a stage on a device of this kind ("cpu", "cuda"), its new gradients included in the peak.

    accumulates: there are gradients of micro-steps before, to which the new ones are added; the peak is without them then.
    """
    trained = {f"{name}.{key}" for name in stage.rates for key, _ in stages.trainable(parts, name)}
    as_there = partial(AsOnDevice, recipe.precision, kind)
    step = MicroStep(parts, recipe, as_there)
    tensors = _on_meta(step, trained)
    before = {name: torch.empty_like(tensors[name]) for name in trained} if accumulates else {}
    for name, gradient in before.items():
        tensors[name].grad = gradient
    inputs = micro_step.zeros(recipe, parts, stage, cut, _META)
    counter = Counter([*tensors.values(), *before.values()])
    with _checkpointing(parts.unet, recipe.gradient_checkpointing, as_there), counter:
        torch.func.functional_call(step, tensors, (inputs,))
    return Counted(counter.peak_bytes, counter.flops)


def encoding(parts: Parts, num_pictures: int, cut: tuple[int, int]) -> Counted:
    """The VAE's encoder on pictures of this height and width in pixels."""
    pictures = torch.empty(num_pictures, 3, *cut, device=_META)
    return _without_gradients(parts.vae.encoder, pictures)


def decoding(parts: Parts, edge_px: int) -> Counted:
    """The VAE's decoder on one square picture."""
    return _without_gradients(parts.vae.decoder, torch.empty(parts.latent_shape(1, edge_px), device=_META))


def _without_gradients(module: nn.Module, given: torch.Tensor) -> Counted:
    tensors = _on_meta(module, set())
    counter = Counter(tensors.values())
    with torch.no_grad(), counter, AsOnDevice("fp32", "cpu"):
        torch.func.functional_call(module, tensors, (given,))
    return Counted(counter.peak_bytes, counter.flops)


def _on_meta(module: nn.Module, trained: set[str]) -> dict[str, torch.Tensor]:
    """Stand-ins for all weights and buffers of a module."""
    found = {name: torch.empty_like(weight, device=_META) for name, weight in module.named_parameters()}
    for name in trained:
        found[name].requires_grad_()
    return found | {name: torch.empty_like(buffer, device=_META) for name, buffer in module.named_buffers()}


@contextmanager
def _checkpointing(unet: Any, wanted: bool, context: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """Inside, the UNet has gradient checkpointing or not. context: in which blocks are computed again."""
    before = bool(unet.is_gradient_checkpointing)

    def checkpointed(module: nn.Module, *args: Any) -> Any:
        return checkpoint(module, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), context()))

    try:
        if wanted:
            unet.enable_gradient_checkpointing(checkpointed)
        else:
            unet.disable_gradient_checkpointing()
        yield
    finally:
        (unet.enable_gradient_checkpointing if before else unet.disable_gradient_checkpointing)()
