"""The recipe of a run file is the JSON form of the proto: the same names, the same limits, the same result."""

import json
from dataclasses import replace
from typing import Any

import pytest
from chassis.errors import InvalidFields
from chassis.validation import check
from darkroom.trainer.v1 import training_pb2 as pb
from google.protobuf.json_format import MessageToDict, ParseDict
from jobs import recipe_defaults, recipe_file
from jobs.errors import FieldsInvalid
from jobs.fields import to_snake
from jobs.recipe import Recipe
from trainer.server.recipes import from_recipe, to_recipe

from tests.trainer.test_recipes import EVERYTHING, TOGETHER

STAGE = {"steps": 5, "learningRate": 1e-3}


def from_file(recipe: dict[str, Any]) -> Recipe | str:
    """The recipe as a run file gives it, or what is wrong with it."""
    problems: list[tuple[str, str]] = []
    fields = recipe_file.fields_of(recipe, "", problems)
    found = recipe_defaults.completed(recipe_file.given_of(fields), recipe_file.preset_of(fields))
    if found.text_encoder.steps + found.unet.steps == 0:
        problems.append(("", "no steps"))
    if problems:
        return "; ".join(f"{path} {text}" for path, text in problems)
    try:
        found.check()
    except FieldsInvalid as error:
        return str(error)
    return found


def from_wire(recipe: dict[str, Any]) -> Recipe | str:
    """The same by the service."""
    message = ParseDict(recipe, pb.Recipe())
    try:
        check(message)
        found = to_recipe(message)
        found.check()
    except (InvalidFields, FieldsInvalid) as error:
        return str(error)
    return found


GOOD: list[dict[str, Any]] = [
    {},
    {"preset": "RECIPE_PRESET_FACE"},
    {"preset": "RECIPE_PRESET_OBJECT", "flip": False, "minSnrGamma": 0},
    {"preset": "RECIPE_PRESET_STYLE", "unet": STAGE, "offsetNoise": 0.2},
    {"preset": "RECIPE_PRESET_STYLE", "useCaptions": False, "captionDropout": 0, "offsetNoise": 0},
    {"preset": "RECIPE_PRESET_OBJECT", "unet": {"steps": 5}, "textEncoder": {"warmupSteps": 5}},
    {"textEncoder": {"steps": 0}, "unet": STAGE},
    {"unet": {**STAGE, "schedule": "LEARNING_RATE_SCHEDULE_COSINE", "warmupSteps": 2, "resolutionPx": 128}},
    {"optimizer": "OPTIMIZER_PRODIGY", "stages": "STAGES_MODE_JOINT_THEN_DISCARD"},
    {"optimizer": "OPTIMIZER_PRODIGY", "textEncoder": {"steps": 3, "learningRate": 2}},
    {"lora": {}},
    {"lora": {"rank": 4}},
    {"lora": {"rank": 4, "alpha": 8}},
    {"priorPreservation": {"classPrompt": " a toy "}},
    {"priorPreservation": {"classPrompt": "a toy", "numClassImages": 7, "weight": 0.5}, "crop": "CROP_MODE_CENTER"},
    {"weightDecay": 0, "maxGradientNorm": 0},
    {"seed": "9223372036854775807", "batchSize": 0, "keepResumePoints": 0, "resumePointEveryMinutes": 0},
    {"instancePrompt": "  a photo of sks toy ", "samplePrompts": ["one", "two"], "useCaptions": True},
    {"precision": "PRECISION_UNSPECIFIED", "crop": "CROP_MODE_UNSPECIFIED"},
    {"stages": "STAGES_MODE_JOINT_THEN_FREEZE", "unet": {"steps": 0}, "textEncoder": STAGE, "referenceOrder": True},
]


@pytest.mark.parametrize("recipe", GOOD, ids=json.dumps)
def test_a_file_gives_what_the_service_makes_of_the_same_recipe(recipe: dict[str, Any]) -> None:
    found = from_file(recipe)
    assert isinstance(found, Recipe)
    assert found == from_wire(recipe)


@pytest.mark.parametrize("recipe", [TOGETHER, Recipe()], ids=["everything", "nothing"])
@pytest.mark.parametrize("preserving", [True, False], ids=["snake", "camel"])
def test_a_recipe_that_the_service_prints_can_be_pasted(recipe: Recipe, preserving: bool) -> None:
    printed = MessageToDict(
        from_recipe(recipe), preserving_proto_field_name=preserving, always_print_fields_with_no_presence=True
    )
    found = from_file(printed)
    assert isinstance(found, Recipe)
    assert replace(found, base_model=recipe.base_model) == recipe


def test_every_field_of_the_proto_is_known() -> None:
    assert {field.json_name for field in pb.Recipe.DESCRIPTOR.fields} == set(recipe_file.FIELDS)
    stage = {field.json_name for field in pb.StageSettings.DESCRIPTOR.fields}
    assert stage == {"steps", "learningRate", "schedule", "warmupSteps", "resolutionPx"}
    assert isinstance(
        from_file({"unet": {**dict.fromkeys(stage, 0), "steps": 1, "learningRate": 1e-3, "schedule": ""}}), Recipe
    )


def test_words_stand_for_the_names_of_enums() -> None:
    short = {"precision": "bf16", "optimizer": "adamw_8bit", "stages": "joint_then_discard", "crop": "center"}
    long = {
        "precision": "PRECISION_BF16",
        "optimizer": "OPTIMIZER_ADAMW_8BIT",
        "stages": "STAGES_MODE_JOINT_THEN_DISCARD",
        "crop": "CROP_MODE_CENTER",
    }
    assert from_file({**short, "preset": "face"}) == from_wire({**long, "preset": "RECIPE_PRESET_FACE"})


def _limits() -> list[dict[str, Any]]:
    """Values at and beyond the limits of every number, and of the lengths of texts."""
    integers = {
        "batchSize": 64,
        "seed": 2**63 - 1,
        "sampleEverySteps": 10**6,
        "gradientAccumulationSteps": 256,
        "resumePointEverySteps": 10**6,
        "resumePointEveryMinutes": 1440,
        "keepResumePoints": 100,
    }
    numbers = {
        "captionDropout": 1.0,
        "offsetNoise": 1.0,
        "minSnrGamma": 100.0,
        "emaDecay": 0.999999,
        "weightDecay": 1.0,
        "maxGradientNorm": 1000.0,
    }
    found: list[dict[str, Any]] = []
    for name, most in integers.items():
        found += [{name: value} for value in (-1, 0, most)] + ([{name: most + 1}] if most < 2**31 else [])
    for name, limit in numbers.items():
        found += [{name: value} for value in (-1e-9, 0.0, limit, limit * 1.0001)]
    for name in ("textEncoder", "unet"):
        found += [{name: {**STAGE, "steps": value}} for value in (-1, 1, 10**6, 10**6 + 1)]
        found += [{name: {**STAGE, "warmupSteps": value}} for value in (-1, 4, 5)]
        found += [{name: {**STAGE, "learningRate": value}} for value in (-1, 0, 0.1, 0.11, 10, 11)]
        found += [
            {name: {**STAGE, "learningRate": value}, "optimizer": "OPTIMIZER_PRODIGY"} for value in (0, 0.11, 10, 11)
        ]
        found += [{name: {"steps": value}} for value in (-1, 0, 5)]
        found += [{name: {"learningRate": value}} for value in (-1, 0, 0.1, 0.11)]
        found += [{name: {**STAGE, "resolutionPx": value}} for value in (-8, 56, 64, 100, 2048, 2056)]
    found += [{"resolutionPx": value} for value in (-8, 56, 64, 100, 2048, 2056)]
    found += [{"lora": {"rank": value}} for value in (0, 1, 256, 257)]
    found += [{"lora": {"alpha": value}} for value in (0, 1e-9, 1024, 1025)]
    prior = {"classPrompt": "a toy"}
    found += [{"priorPreservation": {**prior, "numClassImages": value}} for value in (-1, 0, 10_000, 10_001)]
    found += [{"priorPreservation": {**prior, "weight": value}} for value in (0, 1e-9, 10, 11)]
    found += [{"priorPreservation": {"classPrompt": "x" * length}} for length in (0, 1, 512, 513)]
    found += [{"priorPreservation": {"classPrompt": "  "}}]
    found += [{"instancePrompt": "x" * length} for length in (512, 513)]
    found += [{"samplePrompts": ["x"] * number} for number in (8, 9)]
    found += [{"samplePrompts": ["x" * length]} for length in (0, 512, 513)]
    found += [{"textEncoder": {"steps": 0}, "unet": {"steps": 0}}, {"requireCaptions": True}]
    found += [{"crop": "CROP_MODE_BUCKETS", "priorPreservation": prior}, {"referenceOrder": True}]
    found += [{"optimizer": "OPTIMIZER_PRODIGY", "stages": "STAGES_MODE_JOINT_THEN_FREEZE"}]
    return found


@pytest.mark.parametrize("recipe", _limits(), ids=lambda recipe: json.dumps(recipe)[:80])
def test_a_file_has_the_limits_of_the_proto(recipe: dict[str, Any]) -> None:
    wire, file = from_wire(recipe), from_file(recipe)
    if isinstance(wire, Recipe):
        assert file == wire
    else:
        assert isinstance(file, str), f"the service refuses it: {wire}"


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        ({"unet": {"steps": 5, "learningRate": 0}}, "unet.learningRate is 0: expected a number above 0 to 0.1"),
        ({"priorPreservation": {}}, "priorPreservation.classPrompt is missing"),
        ({"sed": 1}, "sed is unknown, did you mean seed?"),
        ({"useCaption": True}, "useCaption is unknown, did you mean useCaptions?"),
        ({"use_caption": True}, "use_caption is unknown, did you mean use_captions?"),
        ({"use_captions": True, "useCaptions": True}, "useCaptions is given twice, also as use_captions"),
        ({"precision": "bf61"}, "precision is 'bf61': expected one of fp32, bf16, fp16, did you mean bf16?"),
        ({"seed": float("nan")}, "seed is .nan: expected a whole number"),
        ({"captionDropout": float("nan")}, "captionDropout is .nan: expected a number from 0 to 1"),
        ({"emaDecay": "0.9"}, "emaDecay is '0.9': expected a number"),
        ({"flip": 1}, "flip is 1: expected true or false"),
        ({"samplePrompts": "one"}, "samplePrompts is 'one': expected a list"),
        ({"unet": 5}, "unet is 5: expected fields"),
    ],
)
def test_mistakes_name_field_value_and_what_was_expected(recipe: dict[str, Any], problem: str) -> None:
    found = from_file(recipe)
    assert isinstance(found, str)
    assert problem in found


def test_everything_of_the_wire_can_be_said_in_a_file() -> None:
    printed = MessageToDict(from_recipe(EVERYTHING))
    problems: list[tuple[str, str]] = []
    given = recipe_file.given_of(recipe_file.fields_of(printed, "", problems))
    assert problems == []
    assert recipe_defaults.completed({**given, "base_model": EVERYTHING.base_model}) == EVERYTHING
    assert {to_snake(name) for name in recipe_file.FIELDS} - set(given) == {"base_model", "preset"}
