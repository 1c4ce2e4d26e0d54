"""Recipes on the wire: darkroom.trainer.v1.Recipe to the domain's recipe and back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Literal, TypeAlias

from darkroom.trainer.v1 import training_pb2 as pb

from trainer.presets import PRESETS, PRODIGY_LEARNING_RATE
from trainer.recipe import Lora, PriorPreservation, Recipe, StageSettings

Words: TypeAlias = Mapping[str, Any]

_PRECISIONS: Final[Words] = {"fp32": pb.PRECISION_FP32, "bf16": pb.PRECISION_BF16, "fp16": pb.PRECISION_FP16}
_SCHEDULES: Final[Words] = {
    "linear": pb.LEARNING_RATE_SCHEDULE_LINEAR,
    "constant": pb.LEARNING_RATE_SCHEDULE_CONSTANT,
    "cosine": pb.LEARNING_RATE_SCHEDULE_COSINE,
    "polynomial": pb.LEARNING_RATE_SCHEDULE_POLYNOMIAL,
}
_STAGES_MODES: Final[Words] = {
    "text_encoder_only_first": pb.STAGES_MODE_TEXT_ENCODER_ONLY_FIRST,
    "joint_then_discard": pb.STAGES_MODE_JOINT_THEN_DISCARD,
    "joint_then_freeze": pb.STAGES_MODE_JOINT_THEN_FREEZE,
}
_OPTIMIZERS: Final[Words] = {
    "adamw": pb.OPTIMIZER_ADAMW,
    "adamw_8bit": pb.OPTIMIZER_ADAMW_8BIT,
    "prodigy": pb.OPTIMIZER_PRODIGY,
    "adafactor": pb.OPTIMIZER_ADAFACTOR,
}
_CROPS: Final[Words] = {"random": pb.CROP_MODE_RANDOM, "center": pb.CROP_MODE_CENTER, "buckets": pb.CROP_MODE_BUCKETS}
_PRESET_NAMES: Final = {
    pb.RECIPE_PRESET_FACE: "face",
    pb.RECIPE_PRESET_OBJECT: "object",
    pb.RECIPE_PRESET_STYLE: "style",
}
_ENUMS: Final[Mapping[str, Words]] = {
    "precision": _PRECISIONS,
    "stages": _STAGES_MODES,
    "optimizer": _OPTIMIZERS,
    "crop": _CROPS,
}
# Fields of one form on both sides whose zero value means that they are not set.
_PLAIN: Final = (
    "base_model",
    "resolution_px",
    "batch_size",
    "seed",
    "use_captions",
    "require_captions",
    "sample_every_steps",
    "flip",
    "caption_dropout",
    "offset_noise",
    "min_snr_gamma",
    "ema_decay",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "resume_point_every_steps",
    "resume_point_every_minutes",
    "keep_resume_points",
    "reference_order",
)
_STAGES: Final = ("text_encoder", "unet")
_OPTIONAL: Final = ("max_gradient_norm", "weight_decay")


def to_recipe(message: pb.Recipe) -> Recipe:
    """Domain recipe; what is not set has the value of the preset, and without one its default.

    A stage that is not set has a rate that Prodigy can work with, if that is the optimizer.
    """
    found: dict[str, Any] = {name: value for name in _PLAIN if (value := getattr(message, name))}
    found |= {name: getattr(message, name) for name in _OPTIONAL if message.HasField(name)}
    found |= {name: _word(words, value) for name, words in _ENUMS.items() if (value := getattr(message, name))}
    if prompt := message.instance_prompt.strip():
        found["instance_prompt"] = prompt
    if message.sample_prompts:
        found["sample_prompts"] = tuple(message.sample_prompts)
    preset = PRESETS.get(_PRESET_NAMES.get(message.preset, ""), {})
    recipe = Recipe(**{**preset, **found})
    if recipe.optimizer == "prodigy":
        stages = {name: replace(getattr(recipe, name), learning_rate=PRODIGY_LEARNING_RATE) for name in _STAGES}
        recipe = replace(recipe, **stages)
    return replace(
        recipe,
        text_encoder=_to_stage(message, "text_encoder", recipe.text_encoder),
        unet=_to_stage(message, "unet", recipe.unet),
        lora=_to_lora(message.lora) if message.HasField("lora") else None,
        prior_preservation=_to_prior(message.prior_preservation) if message.HasField("prior_preservation") else None,
    )


def from_recipe(recipe: Recipe) -> pb.Recipe:
    """The wire form, every field filled in."""
    message = pb.Recipe(
        text_encoder=_from_stage(recipe.text_encoder),
        unet=_from_stage(recipe.unet),
        instance_prompt=recipe.instance_prompt,
        sample_prompts=recipe.sample_prompts,
        lora=pb.Lora(**vars(recipe.lora)) if recipe.lora else None,
        prior_preservation=pb.PriorPreservation(**vars(recipe.prior_preservation))
        if recipe.prior_preservation
        else None,
    )
    for name in (*_PLAIN, *_OPTIONAL):
        setattr(message, name, getattr(recipe, name))
    for name, words in _ENUMS.items():
        setattr(message, name, words[getattr(recipe, name)])
    return message


def _to_stage(message: pb.Recipe, name: Literal["text_encoder", "unet"], default: StageSettings) -> StageSettings:
    if not message.HasField(name):
        return default
    stage: pb.StageSettings = getattr(message, name)
    return StageSettings(
        steps=stage.steps,
        learning_rate=stage.learning_rate if stage.steps else default.learning_rate,
        schedule=_word(_SCHEDULES, stage.schedule) if stage.schedule else default.schedule,
        warmup_steps=stage.warmup_steps,
        resolution_px=stage.resolution_px,
    )


def _from_stage(stage: StageSettings) -> pb.StageSettings:
    return pb.StageSettings(
        steps=stage.steps,
        learning_rate=stage.learning_rate,
        schedule=_SCHEDULES[stage.schedule],
        warmup_steps=stage.warmup_steps,
        resolution_px=stage.resolution_px,
    )


def _to_lora(message: pb.Lora) -> Lora:
    rank = message.rank if message.HasField("rank") else Lora.rank
    return Lora(rank, message.alpha if message.HasField("alpha") else float(rank))


def _to_prior(message: pb.PriorPreservation) -> PriorPreservation:
    default = PriorPreservation(message.class_prompt.strip())
    return PriorPreservation(
        class_prompt=default.class_prompt,
        num_class_images=message.num_class_images or default.num_class_images,
        weight=message.weight if message.HasField("weight") else default.weight,
    )


def _word(words: Words, value: int) -> str:
    return next(word for word, number in words.items() if number == value)
