"""A training as far as its memory depends on it, taken from an order: what `memory` predicts and `cheaper` varies."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import torch

from dreambooth import stages, text
from dreambooth.dataset import TrainingImage
from dreambooth.latents import MAX_CACHE_BYTES
from dreambooth.order import Order
from dreambooth.parts import Parts
from dreambooth.recipe import RANDOM_CROP, Recipe
from dreambooth.stages import Stage

FP32_BYTES: Final = 4


@dataclass(frozen=True)
class Case:
    """One training.

    cuts: height and width in pixels of the largest picture of each stage. cache_bytes: latents and text states that a
    stage keeps. sample_px, class_px: edges of samples and of class images that are drawn, 0 if there are none. file_bytes:
    of the largest file that is published. num_processes: that train together.
    """

    recipe: Recipe
    parts: Parts
    cuts: Mapping[str, tuple[int, int]]
    cache_bytes: Mapping[str, int]
    sample_px: int
    class_px: int
    file_bytes: int
    num_processes: int


def of(order: Order, parts: Parts) -> Case:
    """The case of an order."""
    recipe, inputs = order.recipe, order.inputs
    file_numbers = max(numel(parts.module(name).parameters()) for stage in stages.of(recipe) for name in stage.rates)
    return Case(
        recipe=recipe,
        parts=parts,
        cuts={name: max((image.cut for image in inputs.images_of(name)), key=math.prod) for name in inputs.edges_px},
        cache_bytes={stage.name: _cache_bytes(order, parts, stage) for stage in stages.of(recipe)},
        sample_px=inputs.edge_px if recipe.sample_prompts else 0,
        class_px=inputs.base.resolution_px if recipe.prior_preservation else 0,
        file_bytes=file_numbers * (FP32_BYTES if inputs.base.precision == "fp32" else 2),
        num_processes=order.world.size,
    )


def numel(weights: Iterable[torch.Tensor]) -> int:
    """Numbers in all these weights."""
    return sum(weight.numel() for weight in weights)


def _cache_bytes(order: Order, parts: Parts, stage: Stage) -> int:
    recipe = order.recipe
    if recipe.reference_order:
        return 0
    images, prior = order.inputs.images_of(stage.name), recipe.prior_preservation
    edge_px = order.inputs.edges_px[stage.name]
    num_class = prior.num_class_images if prior else 0
    latents = sum(_num_views(image, recipe) * _latent_bytes(parts, image.cut) for image in images)
    latents += num_class * (2 if recipe.flip else 1) * _latent_bytes(parts, (edge_px, edge_px))
    prompts = {image.prompt for image in images} | ({prior.class_prompt} if prior else set())
    num_states = 0 if stage.trains_text_encoder else len(prompts | {""})
    num_tokens = text.token_ids(parts, [""]).shape[1]
    width = int(parts.unet.config.cross_attention_dim)
    states = num_states * num_tokens * width * FP32_BYTES
    return min(latents, MAX_CACHE_BYTES) + min(states, text.MAX_CACHE_BYTES)


def _num_views(image: TrainingImage, recipe: Recipe) -> int:
    places = math.prod(image.num_places) if recipe.crop == RANDOM_CROP else 1
    return places * (2 if recipe.flip else 1)


def _latent_bytes(parts: Parts, cut: tuple[int, int]) -> int:
    return 2 * math.prod(parts.latent_shape(1, *cut)) * FP32_BYTES  # mean and deviation
