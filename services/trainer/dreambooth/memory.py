"""The memory that a training will need at its worst moment, predicted before it begins.

Weights, gradients, optimizer, averages and caches are computed from shapes; what comes and goes within a step is counted
by `dry_run`. `plan` compares the prediction with `available`, `cheaper` looks for settings that need less.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from dreambooth import dry_run, stages
from dreambooth.case import FP32_BYTES, Case, numel
from dreambooth.dry_run import Counted
from dreambooth.parts import Parts
from dreambooth.point_files import HELPER_BYTES, MIN_HELPED_BYTES
from dreambooth.recipe import ADAFACTOR, ADAMW, ADAMW_8BIT, PRODIGY, THEN_FREEZE, UNET, Recipe
from dreambooth.stages import Stage
from dreambooth.world import CHUNK_BYTES

# What cannot be counted: gaps between blocks of the allocator, work space of kernels, code that is loaded at first use.
# On CUDA a customary allowance. On a CPU measured with models/tiny/sd15-tiny from 64 to 512 px, batch 1 to 16: the
# process grew by up to 1.35 times what came and went, oneDNN's copies of weights and pictures, and by some 20 MiB.
_CUDA_FACTOR: Final = 1.1
_CUDA_BYTES: Final = 500 * 2**20
_CPU_FACTOR: Final = 1.35
_CPU_BYTES: Final = 32 * 2**20
_MIN_8BIT: Final = 4096  # bitsandbytes keeps the state of smaller tensors in fp32
_BLOCK_8BIT: Final = 256  # numbers that share one scale


@dataclass(frozen=True)
class Prediction:
    """num_bytes: the peak, margin included. moment: when that is. micro_flops: arithmetic of a micro-step by stage."""

    num_bytes: int
    moment: str
    micro_flops: Mapping[str, int]


def predict(case: Case) -> Prediction:
    """The worst moment of all stages."""
    device = case.parts.device.type
    beside = _helper_bytes(case)
    moments = {name: _with_margin(device, held + beside, passing) for name, held, passing in _moments(case)}
    moment = max(moments, key=lambda name: moments[name])
    flops = {stage.name: _micro_step(case, stage).flops for stage in stages.of(case.recipe)}
    return Prediction(moments[moment], moment, flops)


def loaded_bytes(parts: Parts) -> int:
    """Weights of all modules, which are there already when the prediction is made."""
    return sum(numel(module.parameters()) for module in _modules(parts)) * FP32_BYTES


def state_bytes(recipe: Recipe, parts: Parts) -> int:
    """Size of the largest resume point: trained weights, optimizer, averages."""
    return max(
        (2 if recipe.ema_decay else 1) * numel(_trained(parts, changed)) * FP32_BYTES
        + _optimizer_bytes(recipe, parts, stage)
        for stage, changed in stages.with_changed(recipe)
    )


def optimizer_bytes(optimizer: str, shape: torch.Size) -> int:
    """State of one weight, as the libraries of `optimizer` keep it."""
    size = shape.numel()
    if optimizer == ADAMW_8BIT and size >= _MIN_8BIT:
        return 2 * (size + math.ceil(size / _BLOCK_8BIT) * FP32_BYTES)  # two moments and their scales
    if optimizer in (ADAMW, ADAMW_8BIT):
        return 2 * size * FP32_BYTES
    if optimizer == PRODIGY:
        return 4 * size * FP32_BYTES  # two moments, the first values, and the sum of the gradients
    if optimizer == ADAFACTOR:
        return (size if len(shape) < 2 else size // shape[-1] + size // shape[-2]) * FP32_BYTES
    raise ValueError(f"optimizer {optimizer!r} is none of this program's")


def _helper_bytes(case: Case) -> int:
    """Of the process that uploads large resume points; samples are drawn beside only if there is room for it."""
    on_cpu = case.parts.device.type == "cpu"
    return HELPER_BYTES if on_cpu and state_bytes(case.recipe, case.parts) >= MIN_HELPED_BYTES else 0


def _with_margin(device: str, held: int, passing: int) -> int:
    if device == "cuda":
        return int((held + passing) * _CUDA_FACTOR) + _CUDA_BYTES
    return held + int(passing * _CPU_FACTOR) + _CPU_BYTES


def _moments(case: Case) -> Iterable[tuple[str, int, int]]:
    """Name, bytes that stay, and bytes that come and go."""
    recipe, parts = case.recipe, case.parts
    loaded = loaded_bytes(parts)
    if case.class_px:
        yield "drawing class images", loaded, _decoding(case, case.class_px)
    for stage, changed in stages.with_changed(recipe):
        where = f"training the {stage.name.replace('_', ' ')}"
        trained = _trained(parts, stage.rates)
        gradients = numel(trained) * FP32_BYTES
        averages = numel(_trained(parts, changed)) * FP32_BYTES if recipe.ema_decay else 0
        held = loaded + _optimizer_bytes(recipe, parts, stage) + averages + case.cache_bytes[stage.name]
        waiting = gradients if recipe.gradient_accumulation_steps > 1 else 0
        yield f"{where}, a micro-step", held + waiting, _micro_step(case, stage).peak_bytes
        yield f"{where}, encoding images", held + waiting, _encoding(case, stage)
        averaging = _averaging_bytes(trained) if case.num_processes > 1 else 0
        yield f"{where}, an update", held + gradients, max(averaging, _update_bytes(recipe, parts, trained))
        if case.sample_px:
            # Without gradients the UNet keeps little: the decoder, at the resolution of the picture, is the larger.
            yield f"{where}, drawing samples", held + averages, _decoding(case, case.sample_px)
        if stage.discards_unet and not recipe.lora:
            yield f"{where}, its end", held + numel(parts.module(UNET).parameters()) * FP32_BYTES, 0
        if parts.device.type == "cpu":
            yield "publishing", held + 2 * case.file_bytes, 0  # the base's file and the new one, module by module


def _averaging_bytes(trained: list[torch.Tensor]) -> int:
    """The largest message in which processes average their gradients, see `World.average`."""
    largest = max(weight.numel() for weight in trained) * FP32_BYTES
    return min(numel(trained) * FP32_BYTES, CHUNK_BYTES + largest)


def _optimizer_bytes(recipe: Recipe, parts: Parts, stage: Stage) -> int:
    names = set(stage.rates)
    if recipe.stages == THEN_FREEZE:  # one optimizer for the whole run
        names = {name for each in stages.of(recipe) for name in each.rates}
    return sum(optimizer_bytes(recipe.optimizer, weight.shape) for weight in _trained(parts, names))


def _update_bytes(recipe: Recipe, parts: Parts, trained: list[torch.Tensor]) -> int:
    """What an update needs for itself. On CUDA, torch's AdamW that is not fused works on all weights at once.

    Adafactor, Prodigy: measured on an H100 with SD1.5's UNet, 1.8 and 1.0 times the largest weight.
    """
    if recipe.optimizer == ADAMW_8BIT or (recipe.optimizer == ADAMW and not recipe.reference_order):
        return 0
    at_once = parts.device.type == "cuda" and recipe.optimizer == ADAMW
    copied = numel(trained) if at_once else max(weight.numel() for weight in trained)
    return (1 if recipe.optimizer == ADAMW else 2) * copied * FP32_BYTES


def _micro_step(case: Case, stage: Stage) -> Counted:
    recipe, parts, cut = case.recipe, case.parts, case.cuts[stage.name]
    kind, accumulates = parts.device.type, recipe.gradient_accumulation_steps > 1
    num_pictures = recipe.batch_size * (2 if recipe.prior_preservation else 1)
    settings = (num_pictures, recipe.precision, recipe.gradient_checkpointing, recipe.lora, tuple(stage.rates))
    key = ("micro-step", _topology(parts), settings, cut, kind, accumulates)
    if key not in _known:
        _known[key] = dry_run.micro_step_of(recipe, parts, stage, cut, kind, accumulates=accumulates)
    return _known[key]


def _encoding(case: Case, stage: Stage) -> int:
    recipe, cut = case.recipe, case.cuts[stage.name]
    # One picture at a time fills the cache; the reference encodes whole batches.
    num_pictures = recipe.batch_size * (2 if recipe.prior_preservation else 1) if recipe.reference_order else 1
    key = ("encoding", _topology(case.parts), num_pictures, cut)
    if key not in _known:
        _known[key] = dry_run.encoding(case.parts, num_pictures, cut)
    return _known[key].peak_bytes


def _decoding(case: Case, edge_px: int) -> int:
    key = ("decoding", _topology(case.parts), edge_px)
    if key not in _known:
        _known[key] = dry_run.decoding(case.parts, edge_px)
    return _known[key].peak_bytes


# Counts of this process: they depend on shapes alone, and a search asks for the same ones again and again.
_known: dict[tuple[object, ...], Counted] = {}


def _topology(parts: Parts) -> str:
    configs: list[Any] = [parts.unet.config, parts.vae.config, parts.text_encoder.config.to_dict()]
    lengths = [parts.tokenizer.model_max_length]
    return json.dumps([*lengths, *(dict(config) for config in configs)], sort_keys=True, default=str)


def _modules(parts: Parts) -> tuple[Any, Any, Any]:
    return parts.unet, parts.text_encoder, parts.vae


def _trained(parts: Parts, names: Iterable[str]) -> list[torch.Tensor]:
    return [weight for name in names for _, weight in stages.trainable(parts, name)]
