"""From the fields of a recipe that somebody has set to the whole recipe: presets and defaults. One rule for the wire and for files.

Fields have the names and words of `recipe.Recipe`; those that are not set are not there. Nested ones are mappings likewise.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from jobs.presets import PRESETS, PRODIGY_LEARNING_RATE
from jobs.recipe import Lora, PriorPreservation, Recipe, StageSettings

Given = Mapping[str, Any]
STAGES: Final = ("text_encoder", "unet")


def completed(given: Given, preset: str = "") -> Recipe:
    """The recipe; what is not given has the value of the preset ("" for none), and without one its default.

    A stage that is not given has a rate that Prodigy can work with, if that is the optimizer.
    """
    nested = (*STAGES, "lora", "prior_preservation")
    plain = {name: value for name, value in given.items() if name not in nested}
    recipe = Recipe(**{**PRESETS.get(preset, {}), **plain})
    if recipe.optimizer == "prodigy":
        stages = {name: replace(getattr(recipe, name), learning_rate=PRODIGY_LEARNING_RATE) for name in STAGES}
        recipe = replace(recipe, **stages)
    return replace(
        recipe,
        text_encoder=_stage(given.get("text_encoder"), recipe.text_encoder),
        unet=_stage(given.get("unet"), recipe.unet),
        lora=_lora(given["lora"]) if "lora" in given else None,
        prior_preservation=PriorPreservation(**given["prior_preservation"]) if "prior_preservation" in given else None,
    )


def _stage(given: Given | None, default: StageSettings) -> StageSettings:
    """A skipped stage has the default rate, for which nobody asks."""
    stage = replace(default, **(given or {}))
    return stage if stage.steps else replace(stage, learning_rate=default.learning_rate)


def _lora(given: Given) -> Lora:
    rank = given.get("rank", Lora.rank)
    return Lora(rank, given.get("alpha", float(rank)))
