"""Recipes on the wire: presets, defaults, and every field there and back."""

import json
from dataclasses import asdict, fields, replace

import dreambooth.recipe
import pytest
from darkroom.trainer.v1 import training_pb2 as pb
from jobs.presets import PRESETS
from jobs.recipe import Lora, PriorPreservation, Recipe, StageSettings, to_json
from trainer.server.recipes import from_recipe, to_recipe

EVERYTHING = Recipe(
    base_model="sd15-tiny",
    text_encoder=StageSettings(3, 0.25, "cosine", 1, 64),
    unet=StageSettings(4, 0.5, "polynomial", 2, 128),
    stages="joint_then_freeze",
    lora=Lora(4, 8.0),
    prior_preservation=PriorPreservation("a toy", 7, 0.5),
    resolution_px=72,
    crop="buckets",
    flip=True,
    instance_prompt="a photo",
    use_captions=True,
    require_captions=True,
    caption_dropout=0.25,
    batch_size=2,
    gradient_accumulation_steps=3,
    gradient_checkpointing=True,
    precision="fp16",
    optimizer="prodigy",
    weight_decay=0.0,
    max_gradient_norm=0.0,
    offset_noise=0.5,
    min_snr_gamma=5.0,
    ema_decay=0.75,
    seed=7,
    sample_prompts=("one", "two"),
    sample_every_steps=5,
    resume_point_every_steps=6,
    resume_point_every_minutes=8,
    keep_resume_points=9,
    reference_order=True,
)


def test_every_field_there_and_back() -> None:
    unchanged = [each.name for each in fields(Recipe) if getattr(EVERYTHING, each.name) == getattr(Recipe(), each.name)]
    assert unchanged == []
    assert to_recipe(from_recipe(EVERYTHING)) == EVERYTHING


def test_every_field_of_the_contract_is_filled_in() -> None:
    names = {each.name for each in pb.Recipe.DESCRIPTOR.fields}
    assert names - {name.name for name, _ in from_recipe(EVERYTHING).ListFields()} == {"preset"}


def test_nothing_set_is_the_defaults() -> None:
    assert to_recipe(pb.Recipe()) == Recipe()
    assert to_recipe(from_recipe(Recipe())) == Recipe()


@pytest.mark.parametrize(("preset", "name"), [(1, "face"), (2, "object"), (3, "style")])
def test_a_preset_stands_in_for_what_is_not_set(preset: pb.RecipePreset, name: str) -> None:
    assert to_recipe(pb.Recipe(preset=preset)) == replace(Recipe(), **PRESETS[name])
    unet = pb.StageSettings(steps=7, learning_rate=1e-4, warmup_steps=2)
    found = to_recipe(pb.Recipe(preset=preset, unet=unet, min_snr_gamma=3, offset_noise=0.2))
    assert found.unet == StageSettings(7, 1e-4, "linear", 2)
    assert found.text_encoder == PRESETS[name]["text_encoder"]
    assert (found.min_snr_gamma, found.offset_noise) == (3, 0.2)


def test_a_part_of_a_stage_leaves_the_rest_to_the_preset() -> None:
    found = to_recipe(
        pb.Recipe(
            preset=pb.RECIPE_PRESET_FACE,
            text_encoder=pb.StageSettings(learning_rate=3e-6),
            unet=pb.StageSettings(steps=700, schedule=pb.LEARNING_RATE_SCHEDULE_COSINE),
        )
    )
    assert (found.text_encoder, found.unet) == (StageSettings(200, 3e-6), StageSettings(700, 2e-6, "cosine"))
    skipped = to_recipe(pb.Recipe(unet=pb.StageSettings(steps=0)))
    assert skipped.unet == StageSettings(0, 2e-6)


def test_what_a_preset_turns_on_can_be_turned_off() -> None:
    of_object = to_recipe(pb.Recipe(preset=pb.RECIPE_PRESET_OBJECT, flip=False, min_snr_gamma=0))
    assert (of_object.flip, of_object.min_snr_gamma) == (False, 0)
    style = pb.Recipe(preset=pb.RECIPE_PRESET_STYLE, use_captions=False, caption_dropout=0, offset_noise=0)
    found = to_recipe(style)
    assert (found.use_captions, found.caption_dropout, found.offset_noise) == (False, 0, 0)


def test_optional_fields_know_zero_from_unset() -> None:
    found = to_recipe(pb.Recipe(weight_decay=0, max_gradient_norm=0))
    assert (found.weight_decay, found.max_gradient_norm) == (0, 0)


def test_lora_counts_its_rank_once() -> None:
    assert to_recipe(pb.Recipe(lora=pb.Lora())).lora == Lora(16, 16.0)
    assert to_recipe(pb.Recipe(lora=pb.Lora(rank=4))).lora == Lora(4, 4.0)
    assert to_recipe(pb.Recipe(lora=pb.Lora(rank=4, alpha=2))).lora == Lora(4, 2.0)


def test_prior_preservation_has_defaults() -> None:
    prior = pb.PriorPreservation(class_prompt=" a toy ")
    assert to_recipe(pb.Recipe(prior_preservation=prior)).prior_preservation == PriorPreservation("a toy", 100, 1.0)


def test_prodigy_has_a_rate_it_can_work_with() -> None:
    found = to_recipe(pb.Recipe(optimizer=pb.OPTIMIZER_PRODIGY, preset=pb.RECIPE_PRESET_FACE))
    assert (found.text_encoder, found.unet) == (StageSettings(200, 1.0), StageSettings(1200, 1.0))
    unet = pb.StageSettings(steps=5, learning_rate=0.5)
    assert to_recipe(pb.Recipe(optimizer=pb.OPTIMIZER_PRODIGY, unet=unet)).unet == StageSettings(5, 0.5)


# Without what does not go together.
TOGETHER = replace(EVERYTHING, reference_order=False, crop="center", stages="joint_then_discard")
RECIPES = [Recipe(), TOGETHER, *(replace(Recipe(), **each) for each in PRESETS.values())]


@pytest.mark.parametrize("recipe", RECIPES, ids=["defaults", "everything", *PRESETS])
def test_the_program_reads_the_same(recipe: Recipe) -> None:
    recipe = replace(recipe, base_model="sd15-tiny")
    read = asdict(dreambooth.recipe.parse(json.dumps(to_json(recipe, "models/sd15-tiny", "robot-1"))))
    assert (read.pop("base_model_source"), read.pop("checkpoint")) == ("models/sd15-tiny", "robot-1")
    assert read == asdict(recipe)
