"""Which folder lends a single file its scheduler: two bases of equal shapes, of which one predicts noise and the other v."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from artifacts.checkpoints import Manifest
from safetensors.torch import save_file
from webui_engine.bases import find_base
from webui_engine.catalogue import Model
from webui_engine.errors import ModelBroken

Single = Callable[..., Model]


@pytest.fixture
def bases(tiny_models: Path, tmp_path: Path) -> list[Model]:
    """The configuration of sd15-tiny twice: noise-base predicts epsilon and v-base v_prediction."""
    found = []
    for name, prediction_type in (("noise-base", "epsilon"), ("v-base", "v_prediction")):
        folder = tmp_path / name
        shutil.copytree(tiny_models / "sd15-tiny", folder, ignore=shutil.ignore_patterns("*.safetensors"))
        scheduler = folder / "scheduler" / "scheduler_config.json"
        scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"prediction_type": prediction_type}))
        found.append(Model(name, name, folder, "folder", "0" * 64))
    return found


@pytest.fixture
def single(tmp_path: Path, tiny_models: Path) -> Single:
    """Make a single file with the shapes of the bases; `manifest` fields make it a published one."""
    unet = json.loads((tiny_models / "sd15-tiny" / "unet" / "config.json").read_text())
    text = json.loads((tiny_models / "sd15-tiny" / "text_encoder" / "config.json").read_text())
    width, block = unet["block_out_channels"][0], "model.diffusion_model.input_blocks"
    shapes = {
        f"{block}.0.0.weight": (width, unet["in_channels"], 3, 3),
        f"{block}.1.1.transformer_blocks.0.attn2.to_k.weight": (width, unet["cross_attention_dim"]),
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (
            text["vocab_size"],
            text["hidden_size"],
        ),
    }

    def make(
        name: str = "mine.safetensors",
        metadata: dict[str, str] | None = None,
        marker: bool = False,
        manifest: dict[str, Any] | None = None,
    ) -> Model:
        tensors = {key: torch.zeros(shape) for key, shape in shapes.items()}
        if marker:
            tensors["v_pred"] = torch.zeros(0)
        path = tmp_path / name
        if path.suffix == ".ckpt":
            torch.save({"state_dict": tensors}, path)
        else:
            save_file(tensors, path, metadata)
        if manifest is None:
            return Model(path.stem, name, path, "file", "1" * 64)
        fields: dict[str, Any] = {
            "id": "mine",
            "format": "safetensors",
            "architecture": "sd21-768",
            "kind": "dreambooth",
            "precision": "fp32",
            "prediction_type": "",
            "resolution": 64,
            "base_model": "",
            "files": (),
        }
        return Model("mine", "mine", path, "checkpoint", "1" * 64, Manifest(**fields | manifest))

    return make


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ({"prediction_type": "epsilon", "base_model": "elsewhere"}, "noise-base"),
        ({"prediction_type": "v_prediction", "base_model": "elsewhere"}, "v-base"),
        ({"prediction_type": "v_prediction", "base_model": "v-base"}, "v-base"),
        ({"base_model": "V-Base"}, "v-base"),
    ],
)
def test_the_manifest_says_which(bases: list[Model], single: Single, manifest: dict[str, str], expected: str) -> None:
    model = single(manifest=manifest)
    assert find_base(model, bases).name == find_base(model, bases[::-1]).name == expected


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ({"metadata": {"modelspec.prediction_type": "v"}}, "v-base"),
        ({"metadata": {"modelspec.prediction_type": "epsilon"}}, "noise-base"),
        ({"marker": True}, "v-base"),
        ({"name": "mine.ckpt", "marker": True}, "v-base"),
    ],
)
def test_the_file_itself_may_say_which(bases: list[Model], single: Single, file: dict[str, Any], expected: str) -> None:
    model = single(**file)
    assert find_base(model, bases).name == find_base(model, bases[::-1]).name == expected


def test_the_first_of_equal_ones_is_taken(bases: list[Model], single: Single) -> None:
    noise, _ = bases
    twin = Model("twin", "twin", noise.path, "folder", "2" * 64)
    assert find_base(single(), [noise, twin]) is noise
    assert find_base(single(manifest={"base_model": "twin"}), [noise, twin]) is twin


@pytest.mark.parametrize("manifest", [None, {"base_model": "elsewhere"}])
def test_a_file_that_does_not_say_is_refused_where_the_bases_differ(
    bases: list[Model], single: Single, manifest: dict[str, str] | None
) -> None:
    model = single(manifest=manifest)
    with pytest.raises(ModelBroken, match=r"mine.*noise-base \(epsilon\), v-base \(v_prediction\).*DARKROOM_MODELS"):
        find_base(model, bases)
    assert find_base(model, bases[1:]).name == "v-base"


def test_the_scheduler_of_another_prediction_type_is_not_used(bases: list[Model], single: Single) -> None:
    noise, v = bases
    absent = single(manifest={"prediction_type": "v_prediction", "base_model": "sd21"})
    with pytest.raises(ModelBroken, match=r"v_prediction.*another one: noise-base \(epsilon\).*sd21.*DARKROOM_MODELS"):
        find_base(absent, [noise])
    contrary = single(manifest={"prediction_type": "v_prediction", "base_model": "noise-base"})
    with pytest.raises(ModelBroken, match=r"v_prediction.*noise-base \(epsilon\)"):
        find_base(contrary, [noise, v])
