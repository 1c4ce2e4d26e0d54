"""What a run is going to do, said before its first step: steps, images, settings, memory, time.

`training` calls it; `Plan.sentences` are for people and go into the records. A run that cannot fit ends here.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import torch

from dreambooth import available, case, cheaper, device_peaks, memory, rehearsal, stages, text, threads
from dreambooth.case import Case
from dreambooth.errors import MemoryTooSmall
from dreambooth.memory import Prediction
from dreambooth.order import Order
from dreambooth.parts import Parts
from dreambooth.recipe import Recipe
from dreambooth.stages import Stage
from dreambooth.wording import first_few

# A card that is full says so, and predictions for cards are a tenth too high: a run is refused there only if this share of what
# was predicted would not fit. On a CPU too little memory is a SIGKILL without a word.
_SHARE_ON_CUDA: Final = 0.9
_MIN_STEPS: Final = 20  # of a run whose time is worth a rehearsal
_STAGED_COPIES: Final = 3  # of the state, which `Saver` may have on the disk at one time


@dataclass(frozen=True)
class Plan:
    """sentences: for a person. memory_bytes: predicted peak. available_bytes: what this process may hold in all.
    flops_share: arithmetic of a step over what the device does in a second, by stage; empty where that is unknown.
    seconds: of all steps, without encoding images, sampling and saving; None if nothing was timed."""

    sentences: tuple[str, ...]
    memory_bytes: int
    available_bytes: int
    flops_share: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None

    @property
    def is_tight(self) -> bool:
        """Whether the prediction exceeds what is there."""
        return self.memory_bytes > self.available_bytes


def make(order: Order, parts: Parts, available_bytes: int | None = None) -> Plan:
    """The plan of this run on this device, for all processes at the same time. The modules are left as they were; torch's
    threads are settled.

    available_bytes: in place of what `available` finds. Raises MemoryTooSmall, in all processes if in one.
    """
    order.world.any(False)  # the others have loaded their weights too
    if available_bytes is None:
        available_bytes = available.of(parts.device, memory.loaded_bytes(parts))
    training = case.of(order, parts)
    predicted = memory.predict(training)
    _refuse(order, training, predicted, available_bytes)
    threads.settle(parts.device, predicted.micro_flops)
    seconds = _seconds(order.recipe, parts, training)
    sentences = (
        _what(order, parts),
        _update(order),
        "; ".join(_stage(order, stage) for stage in stages.of(order.recipe)),
        _resume_points(order.recipe, seconds),
        f"memory: about {_mib(predicted.num_bytes)} needed ({predicted.moment}), {_mib(available_bytes)} there",
        f"the steps alone take about {spoken(seconds)}" if seconds else "",
    )
    told = tuple(sentence for sentence in sentences if sentence)
    return Plan(told, predicted.num_bytes, available_bytes, _flops_share(training, predicted), seconds)


def announce(intended: Plan, order: Order, parts: Parts) -> None:
    """Say what is going to be done."""
    for sentence in intended.sentences:
        order.message(sentence)
    if intended.is_tight:
        advice = _cheaper(case.of(order, parts), intended.available_bytes)
        order.message(f"the memory may not be enough: {advice}; a lower resolution needs less too", "warning")
    if order.world.writes:
        _warn_about_disk(order, parts)
    shown = [image.prompt for image in next(iter(order.inputs.images.values()))]
    text.warn_about_length(parts, [*shown, *order.recipe.sample_prompts], lambda said: order.message(said, "warning"))
    for sentence in first_few([f"prompt: {prompt}" for prompt in dict.fromkeys(shown)], "prompts"):
        order.message(sentence)


def spoken(seconds: float) -> str:
    """A length of time in its two largest units: "45 s", "3 min 20 s", "2 h 5 min"."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    minutes = round(whole / 60)
    return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")


def fits(kind: str, num_bytes: int, available_bytes: int) -> bool:
    """Whether a run of this predicted peak is begun on a device of this kind ("cpu", "cuda")."""
    return num_bytes * (_SHARE_ON_CUDA if kind == "cuda" else 1) <= available_bytes


def _refuse(order: Order, training: Case, predicted: Prediction, available_bytes: int) -> None:
    is_too_small = not fits(training.parts.device.type, predicted.num_bytes, available_bytes)
    if not order.world.any(is_too_small):
        return
    if not is_too_small:
        raise MemoryTooSmall("another process of this run has too little memory; its log says what would fit")
    raise MemoryTooSmall(
        f"this training needs about {_mib(predicted.num_bytes)} ({predicted.moment}), and {_mib(available_bytes)} are "
        f"there on {training.parts.device.type}: {_cheaper(training, available_bytes)}; a lower resolution needs less too"
    )


def _cheaper(training: Case, available_bytes: int) -> str:
    """The setting to choose instead."""
    found = cheaper.find(training, available_bytes)
    return f"{found.changes} needs about {_mib(found.num_bytes)}" if found else "no setting of the recipe would fit"


def _what(order: Order, parts: Parts) -> str:
    recipe, inputs, base = order.recipe, order.inputs, order.inputs.base
    edges = " and ".join(str(edge_px) for edge_px in dict.fromkeys(inputs.edges_px.values()))
    of_class = f" and {recipe.prior_preservation.num_class_images} class images" if recipe.prior_preservation else ""
    return (
        f"{inputs.num_images} images{of_class} at {edges} px, batch {recipe.batch_size}, {recipe.precision} on "
        f"{parts.device.type}; base {base.name} ({base.architecture}, {base.prediction_type})"
    )


def _update(order: Order) -> str:
    recipe, size = order.recipe, order.world.size
    said = [f"optimizer {recipe.optimizer}", f"stages {recipe.stages}"]
    said.append(f"LoRA of rank {recipe.lora.rank}" if recipe.lora else "all weights")
    if recipe.gradient_checkpointing:
        said.append("gradient checkpointing")
    micro = recipe.gradient_accumulation_steps
    return (
        f"{_images_per_step(order)} images an update ({recipe.batch_size} x {micro} micro-steps x {size} "
        f"{'process' if size == 1 else 'processes'}); {', '.join(said)}"
    )


def _stage(order: Order, stage: Stage) -> str:
    passes = stage.num_steps * _images_per_step(order) / order.inputs.num_images
    rate = max(rates.settings.learning_rate for rates in stage.rates.values())
    return (
        f"{stage.name.replace('_', ' ')}: {stage.num_steps} steps from {rate:g}, {passes:.1f} passes over the images "
        f"at {order.inputs.edges_px[stage.name]} px"
    )


def _images_per_step(order: Order) -> int:
    return order.recipe.batch_size * order.recipe.gradient_accumulation_steps * order.world.size


def _resume_points(recipe: Recipe, seconds: float | None) -> str:
    every, minutes = recipe.resume_point_every_steps, recipe.resume_point_every_minutes
    lengths = [stage.num_steps for stage in stages.of(recipe)]
    at_least = sum(-(-length // every) if every else 1 for length in lengths)
    by_time = int((seconds or 0) // (60 * minutes)) + len(lengths)
    by_steps = f"every {every} steps, " if every else ""
    return f"resume points: about {max(at_least, by_time)} ({by_steps}every {minutes} minutes, at the end of a stage)"


def _seconds(recipe: Recipe, parts: Parts, training: Case) -> float | None:
    if recipe.num_steps < _MIN_STEPS:
        return None
    return sum(
        stage.num_steps * rehearsal.step_seconds(recipe, parts, stage, training.cuts[stage.name])
        for stage in stages.of(recipe)
    )


def _flops_share(training: Case, predicted: Prediction) -> dict[str, float]:
    """Empty on a device whose peak is not known. What gradient checkpointing computes again is not counted."""
    recipe, device = training.recipe, training.parts.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = device_peaks.flops_per_second(name, recipe.precision)
    if not peak:
        return {}
    if recipe.gradient_checkpointing:
        predicted = memory.predict(replace(training, recipe=replace(recipe, gradient_checkpointing=False)))
    return {stage: flops * recipe.gradient_accumulation_steps / peak for stage, flops in predicted.micro_flops.items()}


def _warn_about_disk(order: Order, parts: Parts) -> None:
    needed = _STAGED_COPIES * memory.state_bytes(order.recipe, parts)
    free = shutil.disk_usage(order.scratch).free
    if free < needed:
        order.message(
            f"resume points are staged in {order.scratch}: up to {_mib(needed)}, and {_mib(free)} are free there; "
            "points for which there is no room are left out",
            "warning",
        )


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
