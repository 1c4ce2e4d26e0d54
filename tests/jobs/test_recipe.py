"""Recipes: defaults, contradictions, and the JSON that the program of a Job reads."""

import json
from dataclasses import replace

import pytest
from jobs.errors import FieldsInvalid
from jobs.recipe import Lora, PriorPreservation, Recipe, StageSettings, from_json, to_json
from trainer.base_models import BaseModel
from trainer.errors import ResolutionUnsupported

SD15 = BaseModel("sd15", "/models/sd15", "sd15", native_px=512, multiple_px=64)


def test_resolving_fills_in_what_was_left_open() -> None:
    recipe = Recipe().resolved(SD15)
    assert (recipe.base_model, recipe.resolution_px) == ("sd15", 512)
    assert (recipe.text_encoder, recipe.unet) == (StageSettings(350, 1e-6), StageSettings(1500, 2e-6))


@pytest.mark.parametrize("resolution_px", [256, 512, 768, 1024])
def test_resolutions_the_base_model_can_do(resolution_px: int) -> None:
    assert Recipe(resolution_px=resolution_px).resolved(SD15).resolution_px == resolution_px


@pytest.mark.parametrize("resolution_px", [64, 192, 520, 1088])
def test_other_resolutions_are_refused_with_both_names(resolution_px: int) -> None:
    with pytest.raises(ResolutionUnsupported, match=rf"'sd15'.*512 px.*{resolution_px} px"):
        Recipe(resolution_px=resolution_px).resolved(SD15)


def test_required_captions_must_be_used() -> None:
    with pytest.raises(FieldsInvalid) as caught:
        Recipe(require_captions=True).check()
    assert caught.value.problems[0][0] == "recipe.require_captions"
    Recipe(require_captions=True, use_captions=True).check()


@pytest.mark.parametrize(
    ("recipe", "field", "named"),
    [
        (Recipe(prior_preservation=PriorPreservation("a toy"), crop="buckets"), "recipe.crop", "prior_preservation"),
        (Recipe(optimizer="prodigy", stages="joint_then_freeze"), "recipe.stages", "choose another mode"),
    ],
    ids=["buckets", "prodigy"],
)
def test_settings_that_exclude_each_other_are_refused(recipe: Recipe, field: str, named: str) -> None:
    with pytest.raises(FieldsInvalid) as caught:
        recipe.check()
    ((found, problem),) = caught.value.problems
    assert found == field
    assert named in problem


@pytest.mark.parametrize("skipped", ["text_encoder", "unet"])
def test_prodigy_may_train_one_stage_in_any_mode(skipped: str) -> None:
    replace(Recipe(optimizer="prodigy", stages="joint_then_freeze"), **{skipped: StageSettings(0, 1e-6)}).check()


def test_json_is_what_the_program_expects() -> None:
    recipe = Recipe(
        "sd15-tiny",
        StageSettings(3, 1e-5),
        StageSettings(4, 1e-4, "cosine", 1),
        resolution_px=64,
        sample_prompts=("a robot",),
        lora=Lora(4, 8.0),
    )
    found = to_json(recipe, "/models/sd15-tiny", "robot-1")
    assert (found["base_model_source"], found["checkpoint"]) == ("/models/sd15-tiny", "robot-1")
    assert found["unet"] == {
        "steps": 4,
        "learning_rate": 1e-4,
        "schedule": "cosine",
        "warmup_steps": 1,
        "resolution_px": 0,
    }
    assert found["lora"] == {"rank": 4, "alpha": 8.0}
    assert found["prior_preservation"] is None
    assert found["sample_prompts"] == ["a robot"]
    assert set(found) == {*Recipe.__dataclass_fields__, "base_model_source", "checkpoint"}


def test_json_comes_back_the_same() -> None:
    recipe = replace(Recipe(seed=2**63 - 1, sample_prompts=("a", "b"), flip=True), base_model="x", resolution_px=64)
    recipe = replace(recipe, lora=Lora(4, 8.0), prior_preservation=PriorPreservation("a toy", 7, 0.5))
    assert from_json(json.loads(json.dumps(to_json(recipe, "models/x", "c")))) == recipe


def test_settings_of_newer_versions_are_left_out() -> None:
    recipe = replace(Recipe(), base_model="x", lora=Lora(4, 8.0))
    fields = to_json(recipe, "models/x", "c") | {"of_a_newer_version": 1}
    for nested in ("text_encoder", "unet", "lora"):
        fields[nested] = {**fields[nested], "of_a_newer_version": 1}
    assert from_json(fields) == recipe


def test_what_the_program_would_refuse_is_refused() -> None:
    with pytest.raises(FieldsInvalid) as caught:
        Recipe(
            unet=StageSettings(5, 1e-6, warmup_steps=5),
            ema_decay=0.9999999,
            prior_preservation=PriorPreservation(""),
        ).check()
    assert [field for field, _ in caught.value.problems] == [
        "recipe.prior_preservation.class_prompt",
        "recipe.ema_decay",
        "recipe.unet.warmup_steps",
    ]
