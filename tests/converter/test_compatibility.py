"""The results as diffusers sees them: its own loader of single files is the judge of names, shapes and values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from artifacts.checkpoints import Checkpoints, Manifest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

COMPONENTS = ("unet", "vae", "text_encoder")


def weights(pipeline: Any) -> dict[str, Any]:
    return {
        f"{part}.{key}": value for part in COMPONENTS for key, value in getattr(pipeline, part).state_dict().items()
    }


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert set(found) == set(expected)
    different = [name for name, value in expected.items() if not torch.equal(found[name], value)]
    assert not different


@pytest.fixture(scope="module")
def original(tiny_models: Path) -> dict[str, Any]:
    return weights(diffusers.StableDiffusionPipeline.from_pretrained(tiny_models / "sd15-tiny"))


@pytest.mark.parametrize("target", ["safetensors", "ckpt"])
def test_diffusers_loads_a_single_file_with_equal_weights(
    target: str,
    original: dict[str, Any],
    tiny_models: Path,
    publish: Callable[..., Manifest],
    convert: Callable[..., Manifest],
    checkpoints: Checkpoints,
    tmp_path: Path,
) -> None:
    folder = tiny_models / "sd15-tiny"
    publish("tiny", folder)
    checkpoints.download(convert("tiny", target), tmp_path / "single")
    loaded = diffusers.StableDiffusionPipeline.from_single_file(
        str(tmp_path / "single" / f"model.{target}"), config=str(folder), local_files_only=True
    )
    assert_equal(weights(loaded), original)
    checkpoints.download(convert(f"tiny.{target}", "diffusers"), tmp_path / "back")
    assert_equal(weights(diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "back")), original)
    tokenizer = (tmp_path / "back" / "tokenizer" / "vocab.json").read_bytes()
    assert tokenizer == (folder / "tokenizer" / "vocab.json").read_bytes()
