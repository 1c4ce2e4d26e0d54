"""The registry of base models: folders here and in the bucket."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
from artifacts.store import ObjectStore
from trainer.base_model_files import LocalFiles
from trainer.base_models import BaseModels, describe
from trainer.errors import BaseModelUnknown, BaseModelUnsupported

UNET = {"sample_size": 96, "block_out_channels": [1, 2, 3, 4], "cross_attention_dim": 1024, "in_channels": 4}
KEY = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def weights(dtype: str = "F16", width: int = 1024, cut: int = 0) -> bytes:
    """A safetensors file of one tensor, (2, width)."""
    size_bytes = 2 * width * (4 if dtype == "F32" else 2)
    header = json.dumps({KEY: {"dtype": dtype, "shape": [2, width], "data_offsets": [0, size_bytes]}}).encode()
    return (struct.pack("<Q", len(header)) + header + bytes(size_bytes))[: -cut or None]


FILES: Mapping[str, object] = {
    "model_index.json": {"_class_name": "StableDiffusionPipeline"},
    "unet/config.json": UNET,
    "unet/diffusion_pytorch_model.safetensors": weights(),
    "text_encoder/config.json": {"hidden_size": 1024},
    "text_encoder/model.safetensors": weights(),
    "vae/config.json": {"block_out_channels": [1, 2, 3, 4], "latent_channels": 4},
    "vae/diffusion_pytorch_model.safetensors": weights(),
    "scheduler/scheduler_config.json": {"prediction_type": "v_prediction"},
    "tokenizer/vocab.json": {},
    "tokenizer/merges.txt": b"",
}


def laid_out(folder: Path, changes: Mapping[str, object] | None = None) -> LocalFiles:
    """A model folder with these changes; None leaves a file out."""
    for path, content in {**FILES, **(changes or {})}.items():
        if content is not None:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return LocalFiles(folder)


def test_resolution_and_architecture_come_from_the_model_itself(tmp_path: Path) -> None:
    model = describe("sd21-768", laid_out(tmp_path))
    assert (model.architecture, model.native_px, model.multiple_px) == ("sd21-768", 768, 64)
    assert (model.minimum_px, model.maximum_px, model.source) == (384, 1536, str(tmp_path))


def test_what_it_predicts_tells_the_two_of_sd21_apart(tmp_path: Path) -> None:
    changes = {"scheduler/scheduler_config.json": {}, "unet/config.json": {**UNET, "sample_size": 64}}
    model = describe("anything", laid_out(tmp_path, changes))
    assert (model.architecture, model.native_px) == ("sd21-512", 512)


def test_the_tiny_model_is_an_ordinary_entry(store: ObjectStore, tiny_models: Path) -> None:
    model = BaseModels(store, tiny_models).get("sd15-tiny")
    assert (model.architecture, model.native_px) == ("sd15", 64)
    assert Path(model.source).is_absolute()


def test_models_in_the_bucket(store: ObjectStore, tmp_path: Path) -> None:
    laid_out(tmp_path)
    for path in FILES:
        store.put(f"models/sd21-768/{path}", (tmp_path / path).read_bytes())
    models = BaseModels(store, None)
    assert models.get("sd21-768").source == "models/sd21-768"
    assert models.names() == ["sd21-768"]
    store.put("models/sd21-768/vae/diffusion_pytorch_model.safetensors", b"cut")
    store.delete("models/sd21-768/unet/config.json")
    with pytest.raises(BaseModelUnsupported, match=r"lacks unet/config\.json$"):
        models.get("sd21-768")


@pytest.mark.parametrize("name", ["nothing", "../tiny", "sd15-tiny/unet", ""])
def test_unknown_names_are_told_the_known_ones(store: ObjectStore, tiny_models: Path, name: str) -> None:
    with pytest.raises(BaseModelUnknown, match="sd15-tiny"):
        BaseModels(store, tiny_models).get(name)


UNET_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"model_index.json": {"_class_name": "StableDiffusionXLPipeline"}}, "StableDiffusionXLPipeline"),
        ({"unet/config.json": {}}, "block_out_channels"),
        ({"unet/config.json": {**UNET, "cross_attention_dim": 2048}}, "2048"),
        ({"unet/config.json": {**UNET, "cross_attention_dim": 768}}, r"hidden_size .* is 1024, expected 768"),
        ({"unet/config.json": {**UNET, "in_channels": 9}}, "in_channels .* is 9, expected 4"),
        ({"vae/config.json": []}, "no JSON object"),
        ({"scheduler/scheduler_config.json": {"prediction_type": "sample"}}, "is sample, expected epsilon"),
        ({UNET_WEIGHTS: None, "tokenizer/merges.txt": None}, f"lacks {UNET_WEIGHTS}, tokenizer/merges.txt"),
        ({UNET_WEIGHTS: b""}, "it has 0 bytes"),
        ({UNET_WEIGHTS: b"version https://git-lfs.github.com/spec/v1"}, "no safetensors file, or cut off"),
        ({UNET_WEIGHTS: struct.pack("<Q", 2) + b"[]"}, "no safetensors file"),
        ({UNET_WEIGHTS: weights(cut=1)}, "has 4233 bytes, but its header speaks of 4234"),
        ({"vae/diffusion_pytorch_model.safetensors": weights(cut=7)}, "its header speaks of"),
        ({UNET_WEIGHTS: weights("F8_E4M3")}, "is F8_E4M3, expected F32 or F16 or BF16"),
        ({UNET_WEIGHTS: weights(width=768)}, "attn2.to_k.weight .* is 768, expected 1024"),
    ],
)
def test_pipelines_that_cannot_be_trained(changes: dict[str, object], found: str, tmp_path: Path) -> None:
    with pytest.raises(BaseModelUnsupported, match=found):
        describe("other", laid_out(tmp_path, changes))
