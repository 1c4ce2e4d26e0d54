"""The recorded figures of diffusers' script: that they are current, and that our reading of it reproduces them.

`reference/record.py` says how they were made.
"""

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bench import plain_loop

HERE = Path(__file__).with_name("reference")
WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
}


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cases = _module("cases")
figures = _module("figures")
RECORDED = figures.load()


@pytest.fixture
def same_environment() -> None:
    """Skip where another library or processor may round another way."""
    different = figures.differences(RECORDED["made_with"])
    if different:
        pytest.skip(f"bits were recorded elsewhere: {'; '.join(different)}")


@pytest.fixture
def base_of(tmp_path: Path, build_micro: Callable[..., Path]) -> Callable[[str], Path]:
    """The base model of a case, built again."""
    return lambda prediction_type: build_micro(tmp_path / prediction_type, prediction_type)


@pytest.mark.usefixtures("same_environment")
@pytest.mark.parametrize("name", ["plain", "center_crop", "batch2", "v_prediction", "train_text_encoder"])
def test_the_plain_loop_reproduces_the_recorded_figures(
    name: str, base_of: Callable[[str], Path], tmp_path: Path
) -> None:
    case, recorded = cases.CASES[name], RECORDED["cases"][name]
    images = cases.draw_instances(tmp_path / "images")
    settings = plain_loop.Settings(
        cases.PROMPT,
        cases.STEPS,
        cases.RESOLUTION_PX,
        case.batch_size,
        cases.LEARNING_RATE,
        center_crop="--center_crop" in case.extra,
        train_text_encoder="--train_text_encoder" in case.extra,
    )
    loop = plain_loop.PlainLoop(base_of(case.prediction_type), images, settings)
    assert [loop.step() for _ in range(cases.STEPS)] == recorded["losses"]
    assert figures.digest(loop.unet.state_dict()) == recorded["unet"]
    if settings.train_text_encoder:
        assert figures.digest(loop.text_encoder.state_dict()) == recorded["text_encoder"]


def test_the_losses_are_near_the_recorded_ones_on_any_processor(base_of: Callable[[str], Path], tmp_path: Path) -> None:
    images = cases.draw_instances(tmp_path / "images")
    settings = plain_loop.Settings(cases.PROMPT, cases.STEPS, cases.RESOLUTION_PX, 1, cases.LEARNING_RATE)
    losses, _ = plain_loop.run(base_of("epsilon"), images, settings)
    assert losses == pytest.approx(RECORDED["cases"]["plain"]["losses"], rel=1e-5)  # 5e-7 between AVX2 and AVX512


@pytest.mark.usefixtures("same_environment")
def test_the_figures_notice_another_seed(base_of: Callable[[str], Path], tmp_path: Path) -> None:
    images = cases.draw_instances(tmp_path / "images")
    settings = plain_loop.Settings(cases.PROMPT, 1, cases.RESOLUTION_PX, 1, cases.LEARNING_RATE)
    base = base_of("epsilon")
    first, _ = plain_loop.run(base, images, settings)
    other, _ = plain_loop.run(base, images, replace(settings, seed=1))
    assert first == RECORDED["cases"]["plain"]["losses"][:1]
    assert other != first


@pytest.mark.usefixtures("same_environment")
def test_the_base_model_is_the_recorded_one(base_of: Callable[[str], Path]) -> None:
    base = base_of("epsilon")
    assert {name: figures.digest(load_file(base / file)) for name, file in WEIGHTS.items()} == RECORDED["base"]


def test_the_images_are_the_recorded_ones(tmp_path: Path) -> None:
    drawn = {"instance_images": cases.draw_instances(tmp_path / "i"), "class_images": cases.draw_class(tmp_path / "c")}
    for name, files in drawn.items():
        assert [hashlib.sha256(Image.open(file).tobytes()).hexdigest() for file in files] == RECORDED[name]


def test_the_figures_are_of_the_cases_as_they_are_now() -> None:
    now = {name: (cases.arguments(case), case.prediction_type) for name, case in cases.CASES.items()}
    recorded = {name: (case["arguments"], case["prediction_type"]) for name, case in RECORDED["cases"].items()}
    assert recorded == now


def test_every_case_has_a_figure_for_each_batch_and_each_update() -> None:
    batches = {"batch2_accumulation2": 2 * cases.STEPS, "cut_accumulation": 2 * cases.STEPS}
    for name, case in RECORDED["cases"].items():
        assert len(case["losses"]) == len(case["learning_rates"]) == batches.get(name, cases.STEPS), name


def test_the_script_repeats_itself_and_caching_and_checkpointing_change_nothing() -> None:
    plain = RECORDED["cases"]["plain"]
    assert RECORDED["plain_again_is_equal"] is True
    for name in ("pre_compute_text_embeddings", "gradient_checkpointing"):
        assert (RECORDED["cases"][name]["losses"], RECORDED["cases"][name]["unet"]) == (plain["losses"], plain["unet"])


def test_a_digest_sees_one_changed_bit_and_one_changed_name() -> None:
    weights = {"a": torch.zeros(3), "b": torch.ones(2)}
    digests = {
        figures.digest(weights),
        figures.digest({**weights, "a": torch.tensor([0.0, 0.0, 1e-45])}),
        figures.digest({"a": weights["a"], "c": weights["b"]}),
    }
    assert len(digests) == 3
    assert figures.digest({"text_model.a": weights["a"], "b": weights["b"]}) == figures.digest(weights)


def test_another_environment_is_named() -> None:
    assert figures.differences({**RECORDED["made_with"], "cpu_capability": "none"}) != []
