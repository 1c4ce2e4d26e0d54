"""What the configurations of local folders say."""

import json
from pathlib import Path

import pytest
from webui_gateway.architectures import PREDEFINED, trained_from
from webui_gateway.folders import base_models, control_nets


def pipeline(folder: Path, dim: int, sample_size: int, prediction: str) -> None:
    configs = {
        "model_index.json": {},
        "unet/config.json": {
            "cross_attention_dim": dim,
            "sample_size": sample_size,
            "block_out_channels": [320, 640, 1280, 1280],
        },
        "vae/config.json": {"block_out_channels": [1, 2, 3, 4]},
        "scheduler/scheduler_config.json": {"prediction_type": prediction},
    }
    for name, config in configs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(config))


def test_the_tiny_model_is_an_ordinary_entry(tiny_models: Path) -> None:
    tiny = next(model for model in base_models([tiny_models]) if model.name == "sd15-tiny")
    assert (tiny.architecture, tiny.prediction_type, tiny.native_px) == ("sd15", "epsilon", 64)
    assert tiny.width is not None
    assert tiny.width.cross_attention_dim == 768


@pytest.mark.parametrize(
    ("dim", "sample_size", "prediction", "architecture", "native_px"),
    [
        (768, 64, "epsilon", "sd15", 512),
        (1024, 64, "epsilon", "sd21-512", 512),
        (1024, 96, "v_prediction", "sd21-768", 768),
        (2048, 128, "epsilon", "sdxl", 1024),
    ],
)
def test_families(
    tmp_path: Path, dim: int, sample_size: int, prediction: str, architecture: str, native_px: int
) -> None:
    pipeline(tmp_path / "m", dim, sample_size, prediction)
    (tmp_path / "not-a-model").mkdir()
    [found] = base_models([tmp_path, tmp_path / "missing"])
    assert (found.architecture, found.native_px, found.prediction_type) == (architecture, native_px, prediction)


def test_control_nets_by_class(tmp_path: Path) -> None:
    for name, kind in (("my-canny", "ControlNetModel"), ("unet", "UNet2DConditionModel")):
        (tmp_path / name).mkdir()
        config = {"_class_name": kind, "cross_attention_dim": 768, "block_out_channels": [1, 2]}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    assert [name for name, _, _ in control_nets([tmp_path])] == ["my-canny"]


def test_the_six_base_models_have_their_resolutions() -> None:
    assert {(m.name, m.native_px, m.prediction_type) for m in PREDEFINED} == {
        ("sd15", 512, "epsilon"),
        ("sd21-512", 512, "epsilon"),
        ("sd21-768", 768, "v_prediction"),
        ("sdxl", 1024, "epsilon"),
        ("flux-dev", 1024, "flow"),
        ("flux-schnell", 1024, "flow"),
    }


def test_a_checkpoint_of_an_unknown_base_has_the_width_of_its_architecture() -> None:
    assert trained_from("x", "sd15", "", 0, None).native_px == 512
    assert trained_from("x", "new-one", "epsilon", 256, None).width is None
