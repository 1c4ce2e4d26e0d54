import json
from collections.abc import Callable
from typing import Any

import pytest
from dreambooth.errors import RecipeInvalid
from dreambooth.recipe import StageSettings, parse

Order = Callable[..., dict[str, Any]]


def test_defaults_are_those_of_the_two_stage_flow() -> None:
    recipe = parse('{"base_model": "sd15", "base_model_source": "models/sd15", "checkpoint": "c"}')
    assert recipe.text_encoder == StageSettings(350, 1e-6)
    assert recipe.unet == StageSettings(1500, 2e-6)
    assert (recipe.batch_size, recipe.precision, recipe.resolution_px, recipe.flip) == (1, "fp32", 0, False)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"text_encoder": {"steps": -1, "learning_rate": 1e-6}}, "text_encoder.steps is -1"),
        ({"unet": {"steps": 10**9, "learning_rate": 1e-6}}, "unet.steps is 1000000000"),
        ({"unet": {"steps": 5, "learning_rate": 0}}, "unet.learning_rate is 0"),
        ({"unet": {"steps": 5, "learning_rate": float("nan")}}, "unet.learning_rate is nan"),
        ({"unet": {"steps": 5, "learning_rate": 1}}, "unet.learning_rate is 1"),
        ({"unet": {"steps": 5, "learning_rate": 10**400}}, "unet.learning_rate is 1000"),
        ({"unet": {"steps": True, "learning_rate": 1e-6}}, "unet.steps is True"),
        ({"unet": {"stepz": 5}}, "unet.stepz: unknown field"),
        ({"unet": {"steps": 0}, "text_encoder": {"steps": 0}}, "both 0"),
        ({"resolution_px": 4096}, "resolution_px is 4096"),
        ({"resolution_px": 32}, "resolution_px is 32"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"precision": "fp8"}, "precision is 'fp8': expected one of fp32, bf16, fp16"),
        ({"seed": -1}, "seed is -1"),
        ({"flip": "yes"}, "flip is 'yes'"),
        ({"require_captions": True}, "use_captions is not"),
        ({"sample_prompts": ["a"] * 9}, "sample_prompts"),
        ({"sample_prompts": [""]}, "sample_prompts"),
        ({"checkpoint": "Not An Id"}, "checkpoint"),
        ({"checkpoint": ""}, "checkpoint is missing"),
        ({"learning_rate": 1e-6}, "learning_rate: unknown field"),
        (
            {"prior_preservation": {"class_prompt": "a toy"}, "crop": "buckets"},
            "prior_preservation with crop buckets: class images are squares",
        ),
        ({"optimizer": "prodigy", "stages": "joint_then_freeze"}, "choose another stages mode"),
    ],
)
def test_a_mistake_is_refused_by_name(order: Order, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(RecipeInvalid, match=named.replace("(", r"\(")):
        parse(json.dumps(order(**changes)))


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), 0, -1, "fast"])
def test_the_rate_of_a_skipped_stage_is_ignored(order: Order, rate: object) -> None:
    recipe = parse(json.dumps(order(text_encoder={"steps": 0, "learning_rate": rate})))
    assert recipe.text_encoder == StageSettings(0, 1e-6)


def test_all_mistakes_are_reported_together(order: Order) -> None:
    with pytest.raises(RecipeInvalid) as refused:
        parse(json.dumps(order(seed=-1, precision="fp8", batch_size=100)))
    assert len(refused.value.problems) == 3


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_not_a_json_object(text: str) -> None:
    with pytest.raises(RecipeInvalid, match="DARKROOM_RECIPE"):
        parse(text)


def test_a_skipped_stage_may_have_any_rate(order: Order) -> None:
    assert parse(json.dumps(order(unet={"steps": 0, "learning_rate": 0}))).unet.steps == 0


@pytest.mark.parametrize("skipped", ["text_encoder", "unet"])
def test_prodigy_may_train_one_stage_in_any_mode(order: Order, skipped: str) -> None:
    recipe = parse(json.dumps(order(optimizer="prodigy", stages="joint_then_freeze", **{skipped: {"steps": 0}})))
    assert recipe.optimizer == "prodigy"


def test_record_names_the_mode_and_no_path(order: Order, micro: object) -> None:
    record = parse(json.dumps(order())).record()
    assert record["stages"] == "text_encoder_only_first"
    assert str(micro) not in json.dumps(record)
