"""The arithmetic of one micro-step on inputs of zeros: what `dry_run` counts on the meta device and `rehearsal` times.

It is that of `loop`: text states where the text encoder trains, the UNet, the loss, the gradients.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from dreambooth import loss, text
from dreambooth.parts import Parts
from dreambooth.recipe import Recipe
from dreambooth.stages import Stage

FORMATS: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Inputs:
    """noisy: (N, C, H, W). timesteps: (N,). ids: tokens (N, T) where the text encoder trains; states: (N, T, D) where it
    does not."""

    noisy: torch.Tensor
    timesteps: torch.Tensor
    ids: torch.Tensor | None
    states: torch.Tensor | None


def zeros(recipe: Recipe, parts: Parts, stage: Stage, cut: tuple[int, int], device: torch.device) -> Inputs:
    """Inputs of a whole batch, class images included. cut: height and width of a picture in pixels."""
    num_pictures = recipe.batch_size * (2 if recipe.prior_preservation else 1)
    num_tokens = text.token_ids(parts, [""]).shape[1]
    shape = (num_pictures, num_tokens)
    width = int(parts.unet.config.cross_attention_dim)
    return Inputs(
        noisy=torch.zeros(parts.latent_shape(num_pictures, *cut), device=device),
        timesteps=torch.zeros(num_pictures, dtype=torch.long, device=device),
        ids=torch.zeros(shape, dtype=torch.long, device=device) if stage.trains_text_encoder else None,
        states=None if stage.trains_text_encoder else torch.zeros(*shape, width, device=device),
    )


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass in this precision."""
    kind = FORMATS.get(precision)
    return torch.autocast(device.type, kind) if kind else nullcontext()


class MicroStep(nn.Module):
    """Forward and backward pass of the modules of `parts`. autocast: gives the context of the forward pass."""

    def __init__(self, parts: Parts, recipe: Recipe, autocast: Callable[[], AbstractContextManager[object]]) -> None:
        super().__init__()
        self.unet = parts.unet
        self.text_encoder = parts.text_encoder
        self._autocast = autocast
        self._prior_weight = recipe.prior_preservation.weight if recipe.prior_preservation else None

    def forward(self, inputs: Inputs) -> None:
        """Leave gradients in all weights that require them."""
        with self._autocast():
            states = inputs.states
            if inputs.ids is not None:
                states = self.text_encoder(inputs.ids, return_dict=False)[0]
            predicted = self.unet(inputs.noisy, inputs.timesteps, states, return_dict=False)[0]
        value = loss.of_batch(predicted, torch.zeros_like(inputs.noisy), None, self._prior_weight)
        torch.autograd.backward([value])
