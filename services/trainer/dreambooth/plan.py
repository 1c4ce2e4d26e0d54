"""What a run is going to do, said before its first step: steps, epochs, images, settings, memory.

`training` calls it; `Plan.sentences` are for people and go into the records.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from dreambooth import stages, text
from dreambooth.order import Order
from dreambooth.parts import Parts
from dreambooth.recipe import Recipe
from dreambooth.stages import Stage

_FP32_BYTES = 4
_ADAMW_BYTES = 12  # gradient and two moments of each trained weight
_BF16_SHARE = 0.6  # of the fp32 activations; norms and the loss stay in fp32


@dataclass(frozen=True)
class Plan:
    """sentences: for a person. memory_bytes: predicted peak. available_bytes: what the device has free now."""

    sentences: tuple[str, ...]
    memory_bytes: int
    available_bytes: int
    flops_share: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_tight(self) -> bool:
        """Whether the prediction exceeds what is there."""
        return self.memory_bytes > self.available_bytes


def make(order: Order, parts: Parts) -> Plan:
    """The plan of this run on this device."""
    recipe, inputs = order.recipe, order.inputs
    base, num_images = inputs.base, inputs.num_images
    images_per_step = recipe.batch_size * recipe.gradient_accumulation_steps * order.world.size
    parts_of_work = [
        f"{stage.name.replace('_', ' ')}: {stage.num_steps} steps from {_peak(stage):g}, "
        f"{stage.num_steps * images_per_step / num_images:.1f} passes over the images"
        for stage in stages.of(recipe)
    ]
    edge_px = max(inputs.edges_px.values())
    memory_bytes, available_bytes = _memory(recipe, parts, edge_px), _available(parts.device)
    sentences = (
        f"{num_images} images at {edge_px} px, batch {recipe.batch_size}, {recipe.precision} on {parts.device.type}; "
        f"base {base.name} ({base.architecture}, {base.prediction_type})",
        "; ".join(parts_of_work),
        f"memory: about {memory_bytes / 2**20:,.0f} MiB needed, {available_bytes / 2**20:,.0f} MiB free",
    )
    return Plan(sentences, memory_bytes, available_bytes)


def announce(intended: Plan, order: Order, parts: Parts) -> None:
    """Say what is going to be done."""
    for sentence in intended.sentences:
        order.message(sentence)
    if intended.is_tight:
        order.message("the memory may not be enough: lower the batch size or the resolution", "warning")
    shown = [image.prompt for image in next(iter(order.inputs.images.values()))]
    text.warn_about_length(parts, [*shown, *order.recipe.sample_prompts], lambda said: order.message(said, "warning"))
    for prompt in dict.fromkeys(shown):
        order.message(f"prompt: {prompt}")


def _peak(stage: Stage) -> float:
    return max(rates.settings.learning_rate for rates in stage.rates.values())


def _memory(recipe: Recipe, parts: Parts, edge_px: int) -> int:
    weights = sum(_count(module) for module in (parts.text_encoder, parts.unet, parts.vae)) * _FP32_BYTES
    trained = max(sum(_count(parts.module(name)) for name in stage.rates) for stage in stages.of(recipe)) * _ADAMW_BYTES
    share = _BF16_SHARE if recipe.precision == "bf16" else 1.0
    return weights + trained + int(_activations(parts, recipe.batch_size, edge_px) * share)


def _activations(parts: Parts, batch_size: int, edge_px: int) -> int:
    """Bytes that the UNet's forward pass keeps for the backward pass, counted on the meta device: no arithmetic."""
    config = parts.unet.config
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.device("meta"):
        twin = type(parts.unet).from_config(config)
        latents = torch.empty(parts.latent_shape(batch_size, edge_px))
        states = torch.empty(batch_size, 77, config.cross_attention_dim)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            twin(latents, torch.zeros(batch_size, dtype=torch.long), states)
    own = {parameter.untyped_storage()._cdata for parameter in twin.parameters()}
    return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _available(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
