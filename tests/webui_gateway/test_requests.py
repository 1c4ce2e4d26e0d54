"""Bodies taken apart and addressed to one back end."""

from typing import Any

import pytest
from webui_gateway import requests
from webui_gateway.architectures import BaseModel, Width
from webui_gateway.control_nets import ControlNetRegistry
from webui_gateway.errors import ControlNetUnavailable, ModelUnavailable, RequestInvalid, ResolutionUnsupported
from webui_gateway.models import Listing, ModelRegistry

NARROW = Width(768, (32, 64, 96, 128))
A, B = "http://a", "http://b"


@pytest.fixture
def models() -> ModelRegistry:
    registry = ModelRegistry([BaseModel("tiny", "sd15", "epsilon", 64, width=NARROW)])
    registry.refresh(
        {A: [Listing("tiny [1]", "tiny")], B: [Listing("tiny [2]", "tiny"), Listing("extra", "extra")]}, []
    )
    return registry


@pytest.fixture
def nets() -> ControlNetRegistry:
    nets = ControlNetRegistry([("canny-tiny", "sd15", NARROW)])
    nets.refresh({A: ["canny-tiny [77]"]})
    return nets


def test_seeds_are_fixed_so_that_a_repeat_draws_the_same() -> None:
    wish = requests.understood({"seed": -1})
    assert 0 <= wish.body["seed"] < 2**32
    assert 0 <= wish.body["subseed"] < 2**32
    assert requests.understood({"seed": 7, "subseed": 8}).body["seed"] == 7


@pytest.mark.parametrize(
    "body",
    [
        {"seed": "x"},
        {"seed": 1.5},
        {"seed": True},
        {"override_settings": "x"},
        {"override_settings": {"sd_model_checkpoint": 3}},
        {"override_settings": {"sd_model_checkpoint": "a [12]", "sd_checkpoint_hash": "ff" * 32}},
        {"override_settings": {"eta_ddim": 1}, "override_settings_restore_afterwards": False},
        {"alwayson_scripts": []},
        {"precision": "int8"},
        {"force_task_id": "x" * 65},
        {"force_task_id": "a b"},
        {"force_task_id": "犬"},
    ],
)
def test_what_cannot_be_understood_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid):
        requests.understood(body)


def test_own_fields_do_not_reach_the_back_end() -> None:
    body = {"precision": "fp32", "override_settings": {"sd_model_checkpoint": "m"}, "force_task_id": "t", "x": 1}
    wish = requests.understood({**body, "override_settings_restore_afterwards": False})
    assert (wish.precision, wish.checkpoint, wish.job_id, wish.keep_checkpoint) == ("fp32", "m", "t", True)
    assert wish.body["x"] == 1
    assert {"precision", "force_task_id", "override_settings_restore_afterwards"}.isdisjoint(wish.body)


def test_a_size_left_out_is_the_model_s_own(models: ModelRegistry) -> None:
    assert requests.sized({"width": 0}, models.usable("tiny")) == {"width": 64, "height": 64}
    with pytest.raises(ResolutionUnsupported):
        requests.sized({"height": 512}, models.usable("tiny"))
    assert requests.sized({"width": 0, "height": 1000}, models.usable("extra")) == {"height": 1000}
    with pytest.raises(RequestInvalid, match="width"):
        requests.sized({"width": "64"}, models.usable("tiny"))


def test_models_and_control_nets_get_the_back_end_s_titles(models: ModelRegistry, nets: ControlNetRegistry) -> None:
    units = [{"model": "canny"}, {"model": None}, {"model": "no such thing", "enabled": False}]
    body = {"override_settings": {"x": 1}, "alwayson_scripts": {"ControlNet": {"args": units}, "other": 5}}
    found = requests.addressed(body, models.usable("tiny"), A, models, nets)
    assert found["override_settings"] == {"x": 1, "sd_model_checkpoint": "tiny [1]"}
    assert found["alwayson_scripts"]["ControlNet"]["args"] == [{"model": "canny-tiny [77]"}, *units[1:]]
    assert found["alwayson_scripts"]["other"] == 5


def test_weights_that_the_back_end_lacks_are_named(models: ModelRegistry, nets: ControlNetRegistry) -> None:
    tiny = models.usable("tiny")
    body = {"override_settings": {}, "alwayson_scripts": {"controlnet": {"args": [{"model": "canny-tiny"}]}}}
    with pytest.raises(ControlNetUnavailable, match="canny-tiny fits model tiny"):
        requests.addressed(body, tiny, B, models, nets)
    with pytest.raises(ModelUnavailable, match="extra"):
        requests.addressed({"override_settings": {}, "refiner_checkpoint": "extra"}, tiny, A, models, nets)
    found = requests.addressed({"override_settings": {}, "refiner_checkpoint": "extra"}, tiny, B, models, nets)
    assert found["refiner_checkpoint"] == "extra"


def test_units_that_are_no_list_are_refused(models: ModelRegistry, nets: ControlNetRegistry) -> None:
    body = {"override_settings": {}, "alwayson_scripts": {"controlnet": {"args": "x"}}}
    with pytest.raises(RequestInvalid, match="args"):
        requests.addressed(body, models.usable("tiny"), A, models, nets)
