"""The registry of base models: folders here and in the bucket."""

import json
from pathlib import Path

import pytest
from artifacts.store import ObjectStore
from trainer.base_models import BaseModels, describe
from trainer.errors import BaseModelUnknown, BaseModelUnsupported

PARTS = {
    "model_index.json": {"_class_name": "StableDiffusionPipeline"},
    "unet/config.json": {"sample_size": 96, "block_out_channels": [1, 2, 3, 4], "cross_attention_dim": 1024},
    "vae/config.json": {"block_out_channels": [1, 2, 3, 4]},
}


def reader(**changes: object) -> "callable":
    parts = {**PARTS, **changes}
    return lambda path: json.dumps(parts[path]).encode()


def test_resolution_and_architecture_come_from_the_model_itself() -> None:
    model = describe("sd21-768", "models/sd21-768", reader())
    assert (model.architecture, model.native_px, model.multiple_px) == ("sd21", 768, 64)
    assert (model.minimum_px, model.maximum_px) == (384, 1536)


def test_the_tiny_model_is_an_ordinary_entry(store: ObjectStore, tiny_models: Path) -> None:
    model = BaseModels(store, tiny_models).get("sd15-tiny")
    assert (model.architecture, model.native_px) == ("sd15", 64)
    assert Path(model.source).is_absolute()


def test_models_in_the_bucket(store: ObjectStore) -> None:
    for path, content in PARTS.items():
        store.put(f"models/sd21-768/{path}", json.dumps(content).encode())
    models = BaseModels(store, None)
    assert models.get("sd21-768").source == "models/sd21-768"
    assert models.names() == ["sd21-768"]


@pytest.mark.parametrize("name", ["nothing", "../tiny", "sd15-tiny/unet", ""])
def test_unknown_names_are_told_the_known_ones(store: ObjectStore, tiny_models: Path, name: str) -> None:
    with pytest.raises(BaseModelUnknown, match="sd15-tiny"):
        BaseModels(store, tiny_models).get(name)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"model_index.json": {"_class_name": "StableDiffusionXLPipeline"}}, "StableDiffusionXLPipeline"),
        ({"unet/config.json": {}}, "block_out_channels"),
        ({"unet/config.json": {**PARTS["unet/config.json"], "cross_attention_dim": 2048}}, "2048"),
        ({"vae/config.json": []}, "no JSON object"),
    ],
)
def test_pipelines_that_cannot_be_trained(changes: dict[str, object], found: str) -> None:
    with pytest.raises(BaseModelUnsupported, match=found):
        describe("other", "models/other", reader(**changes))
