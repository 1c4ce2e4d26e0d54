"""How long a step will take, found by making a few on zeros before the first one.

Nothing of it stays: gradients are dropped, the update is made on copies, and no generator is asked for a number. The
time for encoding images, sampling and saving is not in it.
"""

import time
from dataclasses import replace
from typing import Final

import torch
from torch import nn

from dreambooth import micro_step, stages
from dreambooth.micro_step import Inputs, MicroStep
from dreambooth.optimizer import Optimizer
from dreambooth.parts import Parts
from dreambooth.recipe import Recipe
from dreambooth.stages import Stage

_SLOW_SECONDS: Final = 2.0  # a step of this length needs no second try: what is done once is little of it
_EVERY: Final = 8  # of the weights are updated, for the memory and the time


def step_seconds(recipe: Recipe, parts: Parts, stage: Stage, cut: tuple[int, int]) -> float:
    """Seconds for one update of a stage. cut: height and width of a picture in pixels."""
    stages.open_for_training(parts, stage)
    try:
        update = _update_seconds(recipe, parts, stage)
        return _micro_step_seconds(recipe, parts, stage, cut) * recipe.gradient_accumulation_steps + update
    finally:
        stages.close(parts)
        parts.unet.disable_gradient_checkpointing()


def _micro_step_seconds(recipe: Recipe, parts: Parts, stage: Stage, cut: tuple[int, int]) -> float:
    inputs = micro_step.zeros(recipe, parts, stage, cut, parts.device)
    step = MicroStep(parts, recipe, lambda: micro_step.autocast(recipe.precision, parts.device))
    if recipe.gradient_checkpointing:
        parts.unet.enable_gradient_checkpointing()
    first = _timed(step, inputs, parts.device)
    return first if first > _SLOW_SECONDS else _timed(step, inputs, parts.device)


def _timed(step: MicroStep, inputs: Inputs, device: torch.device) -> float:
    began = _now(device)
    step(inputs)
    return _now(device) - began


def _update_seconds(recipe: Recipe, parts: Parts, stage: Stage) -> float:
    """The time of an update of every eighth weight, times the share of these in all."""
    trained = {name: [weight for _, weight in stages.trainable(parts, name)] for name in stage.rates}
    groups = {name: [nn.Parameter(weight.detach().clone()) for weight in trained[name][::_EVERY]] for name in trained}
    # The scaler of fp16 knows the gradients of a backward pass only.
    optimizer = Optimizer(replace(recipe, precision="fp32"), groups, parts.device)
    rates = dict.fromkeys(groups, 1e-6)
    for _ in range(2):  # the first one makes the state
        for weight in (each for group in groups.values() for each in group):
            weight.grad = torch.ones_like(weight)
        began = _now(parts.device)
        optimizer.update(rates)
        seconds = _now(parts.device) - began
    return seconds * _numel(trained) / _numel(groups)


def _numel(groups: dict[str, list[nn.Parameter]]) -> int:
    return sum(weight.numel() for group in groups.values() for weight in group)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
