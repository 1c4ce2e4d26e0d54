"""Recipes on the wire: darkroom.trainer.v1.Recipe to the domain's recipe and back."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from darkroom.trainer.v1 import training_pb2 as pb
from jobs import recipe_defaults
from jobs.recipe import Recipe, StageSettings
from jobs.recipe_defaults import STAGES

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
    "require_captions",
    "sample_every_steps",
    "ema_decay",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "resume_point_every_steps",
    "resume_point_every_minutes",
    "keep_resume_points",
    "reference_order",
)
# Those that can be set to zero beside a preset or a default.
_OPTIONAL: Final = (
    "use_captions",
    "flip",
    "caption_dropout",
    "offset_noise",
    "min_snr_gamma",
    "max_gradient_norm",
    "weight_decay",
)


def to_recipe(message: pb.Recipe) -> Recipe:
    """Domain recipe; what is not set has the value of the preset, and without one its default."""
    given: dict[str, Any] = {name: value for name in _PLAIN if (value := getattr(message, name))}
    given |= {name: getattr(message, name) for name in _OPTIONAL if message.HasField(name)}
    given |= {name: _word(words, value) for name, words in _ENUMS.items() if (value := getattr(message, name))}
    if prompt := message.instance_prompt.strip():
        given["instance_prompt"] = prompt
    if message.sample_prompts:
        given["sample_prompts"] = tuple(message.sample_prompts)
    given |= {name: _to_stage(getattr(message, name)) for name in STAGES if message.HasField(name)}
    if message.HasField("lora"):
        given["lora"] = {name: getattr(message.lora, name) for name in ("rank", "alpha") if message.lora.HasField(name)}
    if message.HasField("prior_preservation"):
        given["prior_preservation"] = _to_prior(message.prior_preservation)
    return recipe_defaults.completed(given, _PRESET_NAMES.get(message.preset, ""))


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


def _to_stage(stage: pb.StageSettings) -> dict[str, Any]:
    given = {name: getattr(stage, name) for name in ("steps", "learning_rate") if stage.HasField(name)}
    given |= {name: value for name in ("warmup_steps", "resolution_px") if (value := getattr(stage, name))}
    return given | ({"schedule": _word(_SCHEDULES, stage.schedule)} if stage.schedule else {})


def _from_stage(stage: StageSettings) -> pb.StageSettings:
    return pb.StageSettings(
        steps=stage.steps,
        learning_rate=stage.learning_rate,
        schedule=_SCHEDULES[stage.schedule],
        warmup_steps=stage.warmup_steps,
        resolution_px=stage.resolution_px,
    )


def _to_prior(message: pb.PriorPreservation) -> dict[str, Any]:
    given: dict[str, Any] = {"class_prompt": message.class_prompt.strip()}
    if message.num_class_images:
        given["num_class_images"] = message.num_class_images
    if message.HasField("weight"):
        given["weight"] = message.weight
    return given


def _word(words: Words, value: int) -> str:
    return next(word for word, number in words.items() if number == value)
