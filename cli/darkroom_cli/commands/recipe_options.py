"""The settings of `darkroom train`: one option for each field of a recipe, and a recipe file below them.

What is not given stays unset in the message, so that presets and the defaults of the service apply.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from darkroom.trainer.v1 import training_pb2 as pb
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from darkroom_cli.output import UsageProblem

_MODEL, _STAGES, _PICTURES, _LOSS = "Model and words", "Stages", "Pictures", "Loss and optimizer"
_LORA, _PRIOR, _SAMPLES, _RESUME = "LoRA", "Prior preservation", "Sample images", "Resume points"


class Preset(StrEnum):
    """Ready recipes."""

    FACE = "face"
    OBJECT = "object"
    STYLE = "style"


class Stages(StrEnum):
    """What the two stages train."""

    TEXT_ENCODER_ONLY_FIRST = "text_encoder_only_first"
    JOINT_THEN_DISCARD = "joint_then_discard"
    JOINT_THEN_FREEZE = "joint_then_freeze"


class Schedule(StrEnum):
    """How a learning rate goes after its warm-up."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"
    POLYNOMIAL = "polynomial"


class Optimizer(StrEnum):
    """What turns gradients into updates."""

    ADAMW = "adamw"
    ADAMW_8BIT = "adamw_8bit"
    PRODIGY = "prodigy"
    ADAFACTOR = "adafactor"


class Precision(StrEnum):
    """Number format."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Crop(StrEnum):
    """How images that are not square are cut."""

    RANDOM = "random"
    CENTER = "center"
    BUCKETS = "buckets"


def _option(name: str, help_text: str, panel: str) -> Any:
    return typer.Option(name, help=help_text, rich_help_panel=panel, show_default=False)


_FILE_HELP = "JSON file with a recipe, or a run as `darkroom runs show --json` prints it; options override it."
RecipeFile = Annotated[Path | None, _option("--recipe", _FILE_HELP, _MODEL)]
PresetName = Annotated[Preset | None, _option("--preset", "Ready recipe for what is not given.", _MODEL)]
BaseModel = Annotated[str | None, _option("--base-model", "Base model; default the session's.", _MODEL)]
Prompt = Annotated[str | None, _option("--prompt", "Words before each caption: 'a photo of sks toy'.", _MODEL)]
Captions = Annotated[
    bool | None, _option("--captions/--no-captions", "Append each image's caption to its prompt.", _MODEL)
]
RequireCaptions = Annotated[
    bool | None, _option("--require-captions/--no-require-captions", "Refuse images without a caption.", _MODEL)
]
CaptionDropout = Annotated[float | None, _option("--caption-dropout", "Share shown without prompt, 0 to 1.", _MODEL)]
Seed = Annotated[int | None, _option("--seed", "Seed of every random draw.", _MODEL)]
StagesName = Annotated[Stages | None, _option("--stages", "What the two stages train.", _STAGES)]
TextSteps = Annotated[int | None, _option("--text-encoder-steps", "Updates of the first stage; 0 skips it.", _STAGES)]
TextRate = Annotated[float | None, _option("--text-encoder-rate", "Peak learning rate of the first stage.", _STAGES)]
TextSchedule = Annotated[Schedule | None, _option("--text-encoder-schedule", "How that rate goes.", _STAGES)]
TextWarmup = Annotated[int | None, _option("--text-encoder-warmup", "Steps in which it rises from 0.", _STAGES)]
TextResolution = Annotated[int | None, _option("--text-encoder-resolution", "Square of the first stage, px.", _STAGES)]
UnetSteps = Annotated[int | None, _option("--unet-steps", "Updates of the second stage; 0 skips it.", _STAGES)]
UnetRate = Annotated[float | None, _option("--unet-rate", "Peak learning rate of the second stage.", _STAGES)]
UnetSchedule = Annotated[Schedule | None, _option("--unet-schedule", "How that rate goes.", _STAGES)]
UnetWarmup = Annotated[int | None, _option("--unet-warmup", "Steps in which it rises from 0.", _STAGES)]
UnetResolution = Annotated[int | None, _option("--unet-resolution", "Square of the second stage, px.", _STAGES)]
Resolution = Annotated[int | None, _option("--resolution", "Edge of the square, px; default the model's.", _PICTURES)]
BatchSize = Annotated[int | None, _option("--batch-size", "Images in one micro-step.", _PICTURES)]
CropName = Annotated[Crop | None, _option("--crop", "How images that are not square are cut.", _PICTURES)]
Flip = Annotated[bool | None, _option("--flip/--no-flip", "Mirror images at random.", _PICTURES)]
Accumulation = Annotated[int | None, _option("--accumulation", "Micro-steps whose gradients make one update.", _LOSS)]
Checkpointing = Annotated[
    bool | None,
    _option("--gradient-checkpointing/--no-gradient-checkpointing", "Much less memory, a quarter slower.", _LOSS),
]
PrecisionName = Annotated[Precision | None, _option("--precision", "Number format.", _LOSS)]
OptimizerName = Annotated[Optimizer | None, _option("--optimizer", "Optimizer; rate 1 for prodigy.", _LOSS)]
WeightDecay = Annotated[float | None, _option("--weight-decay", "Decoupled weight decay, 0 to 1.", _LOSS)]
GradientNorm = Annotated[float | None, _option("--max-gradient-norm", "Gradients are clipped to it; 0: not.", _LOSS)]
MinSnrGamma = Annotated[float | None, _option("--min-snr-gamma", "Gamma of min-SNR weights; 5 is usual.", _LOSS)]
OffsetNoise = Annotated[float | None, _option("--offset-noise", "Noise constant over a channel, 0 to 1.", _LOSS)]
EmaDecay = Annotated[float | None, _option("--ema-decay", "Publish a running average; 0.999 is usual.", _LOSS)]
ReferenceOrder = Annotated[
    bool | None,
    _option("--reference-order/--no-reference-order", "Draw as diffusers' train_dreambooth.py does.", _LOSS),
]
LoraRank = Annotated[int | None, _option("--lora-rank", "Train LoRA adapters of this rank, 1 to 256.", _LORA)]
LoraAlpha = Annotated[float | None, _option("--lora-alpha", "Their scale: they count alpha / rank.", _LORA)]
ClassPrompt = Annotated[str | None, _option("--class-prompt", "What class images show: 'a photo of a toy'.", _PRIOR)]
ClassImages = Annotated[int | None, _option("--class-images", "Class images to have.", _PRIOR)]
ClassWeight = Annotated[float | None, _option("--class-weight", "Weight of their loss, above 0 to 10.", _PRIOR)]
Sample = Annotated[list[str] | None, _option("--sample", "Prompt of a sample image; may be repeated.", _SAMPLES)]
SampleEvery = Annotated[int | None, _option("--sample-every", "UNet steps between sample images.", _SAMPLES)]
PointSteps = Annotated[int | None, _option("--resume-point-every-steps", "Steps between resume points.", _RESUME)]
PointMinutes = Annotated[int | None, _option("--resume-point-every-minutes", "Minutes between them.", _RESUME)]
KeepPoints = Annotated[int | None, _option("--keep-resume-points", "Newest ones that are kept.", _RESUME)]

# Parameters of `commands.train.train` whose field has another name.
_FIELDS: Final = {
    "prompt": "instance_prompt",
    "captions": "use_captions",
    "text_encoder_steps": "text_encoder.steps",
    "text_encoder_rate": "text_encoder.learning_rate",
    "text_encoder_schedule": "text_encoder.schedule",
    "text_encoder_warmup": "text_encoder.warmup_steps",
    "text_encoder_resolution": "text_encoder.resolution_px",
    "unet_steps": "unet.steps",
    "unet_rate": "unet.learning_rate",
    "unet_schedule": "unet.schedule",
    "unet_warmup": "unet.warmup_steps",
    "unet_resolution": "unet.resolution_px",
    "resolution": "resolution_px",
    "accumulation": "gradient_accumulation_steps",
    "lora_rank": "lora.rank",
    "lora_alpha": "lora.alpha",
    "class_prompt": "prior_preservation.class_prompt",
    "class_images": "prior_preservation.num_class_images",
    "class_weight": "prior_preservation.weight",
    "sample": "sample_prompts",
    "sample_every": "sample_every_steps",
}
# Parameters that are no field of a recipe.
_OTHERS: Final = ("session", "recipe", "detach", "as_json")


def to_recipe(parameters: Mapping[str, Any]) -> pb.Recipe:
    """The recipe out of the parameters of the command. Raises UsageProblem, and OSError for the file."""
    path = parameters["recipe"]
    recipe = _read(Path(path)) if path else {}
    given = {_FIELDS.get(name, name): value for name, value in parameters.items() if _is_given(name, value)}
    message = _parse(recipe, path)
    for field, value in given.items():
        _set(message, field, value)
    return message


def _is_given(name: str, value: Any) -> bool:
    is_unset = value is None or (isinstance(value, list | tuple) and not value)
    return name not in _OTHERS and not is_unset


def _read(path: Path) -> dict[str, Any]:
    try:
        recipe = json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageProblem(f"{path} is not JSON: {error}") from error
    if isinstance(recipe, dict) and "recipe" in recipe:  # a whole run
        recipe = recipe["recipe"]
    if not isinstance(recipe, dict):
        raise UsageProblem(f"{path} is not a recipe: an object was expected, found {type(recipe).__name__}")
    return recipe


def _parse(recipe: dict[str, Any], path: object) -> pb.Recipe:
    try:
        return ParseDict(recipe, pb.Recipe())
    except ParseError as error:
        raise UsageProblem(f"{path} is not a recipe: {error}") from error


def _set(message: Message, field: str, value: Any) -> None:
    *parents, last = field.split(".")
    for parent in parents:
        message = getattr(message, parent)
    described = message.DESCRIPTOR.fields_by_name[last]
    if described.is_repeated:
        message.ClearField(last)
        getattr(message, last).extend(value)
    elif described.enum_type:
        zero: str = described.enum_type.values_by_number[0].name
        name = f"{zero.removesuffix('UNSPECIFIED')}{value.upper()}"
        setattr(message, last, described.enum_type.values_by_name[name].number)
    else:
        setattr(message, last, value)
