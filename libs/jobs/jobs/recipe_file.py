"""The recipe of a run file: the JSON form of darkroom.trainer.v1.Recipe, with the limits that the proto states.

Names in lowerCamelCase or in snake_case, enums by their word ("bf16") or by their whole name ("PRECISION_BF16"), so that a
recipe that `darkroom runs show --json` prints can be pasted. As in the proto, 0 and "" stand for what is not set, but where
they say something beside a preset.
"""

from collections.abc import Mapping
from typing import Any, Final

from jobs.fields import Fields, to_snake
from jobs.presets import PRESETS

_ENUMS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "precision": ("PRECISION", ("fp32", "bf16", "fp16")),
    "stages": ("STAGES_MODE", ("text_encoder_only_first", "joint_then_discard", "joint_then_freeze")),
    "optimizer": ("OPTIMIZER", ("adamw", "adamw_8bit", "prodigy", "adafactor")),
    "crop": ("CROP_MODE", ("random", "center", "buckets")),
}
_SCHEDULES: Final = ("LEARNING_RATE_SCHEDULE", ("linear", "constant", "cosine", "polynomial"))
_PRESETS: Final = ("RECIPE_PRESET", tuple(PRESETS))
_INTEGERS: Final[Mapping[str, tuple[int, int]]] = {
    "batchSize": (0, 64),
    "seed": (0, 2**63 - 1),
    "sampleEverySteps": (0, 1_000_000),
    "gradientAccumulationSteps": (0, 256),
    "resumePointEverySteps": (0, 1_000_000),
    "resumePointEveryMinutes": (0, 1440),
    "keepResumePoints": (0, 100),
}
_NUMBERS: Final[Mapping[str, tuple[float, float]]] = {"emaDecay": (0, 0.999999)}
_FLAGS: Final = ("requireCaptions", "gradientCheckpointing", "referenceOrder")
# Their 0 and false are values of their own.
_OPTIONAL_NUMBERS: Final[Mapping[str, tuple[float, float]]] = {
    "captionDropout": (0, 1),
    "offsetNoise": (0, 1),
    "minSnrGamma": (0, 100),
    "weightDecay": (0, 1),
    "maxGradientNorm": (0, 1000),
}
_OPTIONAL_FLAGS: Final = ("flip", "useCaptions")
_STAGES: Final = ("textEncoder", "unet")
_STAGE: Final = ("steps", "learningRate", "schedule", "warmupSteps", "resolutionPx")
_MAX_STEPS: Final = 1_000_000
FIELDS: Final = (
    *("baseModel", "preset", "resolutionPx", "instancePrompt", "samplePrompts", "lora", "priorPreservation"),
    *(*_STAGES, *_ENUMS, *_INTEGERS, *_NUMBERS, *_OPTIONAL_NUMBERS, *_FLAGS, *_OPTIONAL_FLAGS),
)


def fields_of(value: Any, path: str, problems: list[tuple[str, str]]) -> Fields:
    """The recipe's mapping, empty for None."""
    return Fields({} if value is None else value, path, FIELDS, problems, snake=True)


def preset_of(fields: Fields) -> str:
    """The preset that a mapping names, "" for none."""
    return _word(fields, "preset", _PRESETS)


def given_of(fields: Fields) -> dict[str, Any]:
    """Everything that is set but base model and preset, as `recipe_defaults` takes it; notes what is wrong."""
    found: dict[str, Any] = {name: fields.integer(name, 0, least, most) for name, (least, most) in _INTEGERS.items()}
    found |= {name: fields.number(name, 0.0, least, most) for name, (least, most) in _NUMBERS.items()}
    found |= {name: fields.flag(name) for name in _FLAGS}
    found |= {name: _word(fields, name, words) for name, words in _ENUMS.items()}
    found["resolutionPx"] = _edge(fields)
    found["instancePrompt"] = fields.text(
        "instancePrompt", pattern=r"[\s\S]{0,512}", expected="at most 512 characters"
    ).strip()
    found["samplePrompts"] = fields.texts("samplePrompts", most=8)
    found = {name: value for name, value in found.items() if value}
    found |= {
        name: fields.number(name, 0.0, least, most)
        for name, (least, most) in _OPTIONAL_NUMBERS.items()
        if fields.has(name)
    }
    found |= {name: fields.flag(name) for name in _OPTIONAL_FLAGS if fields.has(name)}
    most_rate = 10.0 if found.get("optimizer") == "prodigy" else 0.1
    found |= {name: _stage(fields.nested(name, _STAGE), most_rate) for name in _STAGES if fields.has(name)}
    if fields.has("lora"):
        found["lora"] = _lora(fields.nested("lora", ("rank", "alpha")))
    if fields.has("priorPreservation"):
        found["priorPreservation"] = _prior(
            fields.nested("priorPreservation", ("classPrompt", "numClassImages", "weight"))
        )
    return {to_snake(name): value for name, value in found.items()}


def _stage(fields: Fields, most_rate: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        "warmup_steps": fields.integer("warmupSteps", 0, 0, _MAX_STEPS),
        "resolution_px": _edge(fields),
        "schedule": _word(fields, "schedule", _SCHEDULES),
    }
    found = {name: value for name, value in found.items() if value}
    if fields.has("steps"):
        found["steps"] = fields.integer("steps", 0, 0, _MAX_STEPS)
    if fields.has("learningRate") and found.get("steps") != 0:
        found["learning_rate"] = fields.number("learningRate", 0.0, 0, most_rate, above=True)
    return found


def _lora(fields: Fields) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if fields.has("rank"):
        found["rank"] = fields.integer("rank", 1, 1, 256)
    if fields.has("alpha"):
        found["alpha"] = fields.number("alpha", 1.0, 0, 1024, above=True)
    return found


def _prior(fields: Fields) -> dict[str, Any]:
    if not fields.has("classPrompt"):
        fields.missing("classPrompt", "what the class images show, for example 'a photo of a toy'")
    prompt = fields.text("classPrompt", pattern=r"[\s\S]{1,512}", expected="1 to 512 characters").strip()
    found: dict[str, Any] = {"class_prompt": prompt}
    if images := fields.integer("numClassImages", 0, 0, 10_000):
        found["num_class_images"] = images
    if fields.has("weight"):
        found["weight"] = fields.number("weight", 1.0, 0, 10, above=True)
    return found


def _edge(fields: Fields) -> int:
    edge_px = fields.integer("resolutionPx", 0, 0, 2048)
    if edge_px and (edge_px < 64 or edge_px % 8):
        fields.problem("resolutionPx", f"is {edge_px}: expected a multiple of 8 from 64 to 2048")
        return 0
    return edge_px


def _word(fields: Fields, name: str, enum: tuple[str, tuple[str, ...]]) -> str:
    prefix, words = enum
    meanings = {f"{prefix}_UNSPECIFIED": ""}
    for word in words:
        meanings |= {word: word, f"{prefix}_{word.upper()}": word}
    return fields.choice(name, meanings, "")
