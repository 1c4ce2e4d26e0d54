import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from artifacts.store import ObjectStore
from dreambooth import base_model, parts
from dreambooth.errors import BaseModelInvalid
from safetensors.torch import load_file, save_file


@pytest.fixture
def copy(micro: Path, tmp_path: Path) -> Path:
    """A copy of the micro model that a test may damage."""
    return Path(shutil.copytree(micro, tmp_path / "copy"))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_folder_is_described_from_its_own_files(micro: Path) -> None:
    found = base_model.describe("micro", micro)
    assert (found.architecture, found.precision, found.prediction_type) == ("sd15", "fp32", "epsilon")
    assert (found.resolution_px, found.vae_factor) == (32, 8)


def test_half_precision_and_velocity_are_seen(build_micro: Callable[..., Path], tmp_path: Path) -> None:
    found = base_model.describe("half", build_micro(tmp_path / "half", "v_prediction", torch.float16))
    assert (found.precision, found.prediction_type) == ("fp16", "v_prediction")


def test_missing_files_are_all_named(copy: Path) -> None:
    (copy / "vae/config.json").unlink()
    (copy / "unet/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(BaseModelInvalid, match=r"'micro'.*unet/diffusion_pytorch_model\.safetensors.*vae/config\.json"):
        base_model.describe("micro", copy)


@pytest.mark.parametrize(
    ("file", "changes", "both"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "XLPipeline', expected 'StableDiffusionPip"),
        ("unet/config.json", {"cross_attention_dim": 2048}, "is 2048, expected 768 or 1024"),
        ("unet/config.json", {"in_channels": 9}, "in_channels is 9, expected 4"),
        ("text_encoder/config.json", {"hidden_size": 512}, "hidden_size is 512, expected 768"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "is 'sample', expected 'epsilon'"),
    ],
)
def test_another_architecture_is_refused_with_found_and_expected(
    copy: Path, file: str, changes: dict[str, Any], both: str
) -> None:
    change(copy / file, **changes)
    with pytest.raises(BaseModelInvalid, match=both):
        base_model.describe("micro", copy)


def test_weights_that_are_no_safetensors_are_refused(copy: Path) -> None:
    (copy / base_model.UNET_WEIGHTS).write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(BaseModelInvalid, match="not a safetensors file"):
        base_model.describe("micro", copy)


@pytest.mark.parametrize("path", [base_model.UNET_WEIGHTS, base_model.TEXT_ENCODER_WEIGHTS, base_model.VAE_WEIGHTS])
def test_a_missing_weight_is_refused_not_made_up(copy: Path, path: str) -> None:
    weights = load_file(copy / path)
    gone = sorted(name for name in weights if name.endswith("weight"))[0]
    del weights[gone]
    save_file(weights, copy / path, metadata={"format": "pt"})
    with pytest.raises(BaseModelInvalid, match=f"{path.split('/')[0]} has 1 weights missing"):
        parts.load(base_model.describe("micro", copy), torch.device("cpu"))


def test_the_bucket_is_a_source_too(store: ObjectStore, micro: Path, tmp_path: Path) -> None:
    for file in (f for f in micro.rglob("*") if f.is_file()):
        store.put(f"models/micro/{file.relative_to(micro).as_posix()}", file.read_bytes())
    folder = base_model.fetch(store, "micro", "models/micro", tmp_path)
    assert base_model.describe("micro", folder).architecture == "sd15"
    with pytest.raises(BaseModelInvalid, match="'models/nothing/'"):
        base_model.fetch(store, "nothing", "models/nothing", tmp_path / "other")


def test_a_folder_that_is_not_there_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(BaseModelInvalid, match="does not exist"):
        base_model.describe("gone", base_model.fetch(store, "gone", str(tmp_path / "gone"), tmp_path))
