"""SD2.1: velocities, a wider text encoder with another padding, linear projections; two bases of one family."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from artifacts.checkpoints import Checkpoints
from diffusers import StableDiffusionPipeline
from dreambooth import base_model, lora_layouts, parts, text
from dreambooth.errors import Stopped
from jobs.recipe import Recipe
from safetensors import safe_open
from safetensors.torch import load_file
from trainer import base_models
from trainer.base_model_files import LocalFiles
from trainer.errors import ResolutionUnsupported

from tests.dreambooth import micro_model
from tests.dreambooth.test_resuming import StopAfter

Order = Callable[..., dict[str, Any]]
Train = Callable[..., Any]

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
RATES = {"text_encoder": {"steps": 2, "learning_rate": 1e-3}, "unet": {"steps": 2, "learning_rate": 1e-3}}


@pytest.fixture(scope="module")
def sd21(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base like SD2.1-768, native 192 px. Read only."""
    folder = tmp_path_factory.mktemp("base") / "sd21"
    return micro_model.build(folder, "v_prediction", topology=micro_model.SD21_768)


@pytest.fixture
def wanted(order: Order, sd21: Path) -> Callable[..., Mapping[str, Any]]:
    """A recipe for it, below its native resolution to be quick."""
    common = {"base_model": "sd21-micro", "base_model_source": str(sd21), "resolution_px": 128, **RATES}
    return lambda **changes: order(**{**common, **changes})


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("stages", ["text_encoder_only_first", "joint_then_discard", "joint_then_freeze"])
def test_both_stages_train_and_are_published_as_the_files_of_sd21(
    stages: str, wanted: Order, train: Train, sd21: Path, tmp_path: Path
) -> None:
    outcome = train(wanted(stages=stages))
    assert len(outcome.losses()) == 4
    manifest = outcome.manifest
    assert (manifest.architecture, manifest.prediction_type, manifest.resolution) == ("sd21-768", "v_prediction", 128)
    folder = tmp_path / "published"
    Checkpoints(outcome.store).download(outcome.checkpoint, folder)
    for path in (UNET, TEXT):
        before, after = load_file(sd21 / path), load_file(folder / path)
        assert {n: (t.dtype, t.shape) for n, t in after.items()} == {n: (t.dtype, t.shape) for n, t in before.items()}
        assert any(not torch.equal(before[name], tensor) for name, tensor in after.items())
    assert "text_model.encoder.layers.2.self_attn.q_proj.weight" in load_file(folder / TEXT)
    rest = {entry.path: entry.sha256 for entry in manifest.files if entry.path not in (UNET, TEXT)}
    assert rest == {path: digest(sd21 / path) for path in rest}
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    pipeline.set_progress_bar_config(disable=True)
    shown = pipeline("sks toy", num_inference_steps=1, height=64, width=64, output_type="np").images
    assert shown.shape == (1, 64, 64, 3)


def test_adapters_say_which_family_they_are_made_for(wanted: Order, train: Train, sd21: Path, tmp_path: Path) -> None:
    outcome = train(wanted(lora={"rank": 2, "alpha": 2}))
    assert outcome.manifest.architecture == "sd21-768"
    Checkpoints(outcome.store).download(outcome.checkpoint, tmp_path / "published")
    with safe_open(tmp_path / "published" / lora_layouts.KOHYA_FILE, "pt") as file:
        said = file.metadata()
        width = file.get_tensor("lora_te_text_model_encoder_layers_2_self_attn_q_proj.lora_down.weight").shape[1]
    assert (said["ss_base_model_version"], said["ss_v2"], width) == ("sd_v2_v", "True", 1024)
    assert (said["modelspec.architecture"], said["modelspec.prediction_type"]) == (
        "stable-diffusion-v2-768-v/lora",
        "v",
    )
    pipeline = StableDiffusionPipeline.from_pretrained(sd21, local_files_only=True)
    pipeline.load_lora_weights(tmp_path / "published", weight_name=lora_layouts.DIFFUSERS_FILE)
    assert pipeline.get_list_adapters().keys() == {"unet", "text_encoder"}


@pytest.mark.long
def test_stopped_it_goes_on_bit_for_bit(wanted: Order, train: Train) -> None:
    whole = train(wanted(ema_decay=0.9, min_snr_gamma=5.0))
    run = "sessions/toy/runs/stopped"
    with pytest.raises(Stopped):
        train(wanted(ema_decay=0.9, min_snr_gamma=5.0), run=run, stop=StopAfter(4))
    resumed = train(wanted(ema_decay=0.9, min_snr_gamma=5.0), run=run)
    assert resumed.losses() == whole.losses()
    assert resumed.digests() == whole.digests()


def test_prompts_are_padded_as_the_base_was_trained(sd21: Path) -> None:
    model = parts.load(base_model.describe("sd21", sd21), torch.device("cpu"))
    ids = text.token_ids(model, ["a"])[0].tolist()
    assert ids[3:] == [0] * (len(ids) - 3)  # "!", not the end of text
    assert text.states(model, text.token_ids(model, ["a"])).shape == (1, 16, 1024)


def test_the_two_bases_are_told_apart_by_program_and_control_plane(sd21: Path, tmp_path: Path) -> None:
    smaller = micro_model.build(tmp_path / "sd21-512", "epsilon", topology=micro_model.SD21_512)
    for folder, architecture, native_px in ((sd21, "sd21-768", 192), (smaller, "sd21-512", 128)):
        program, control_plane = base_model.describe("x", folder), base_models.describe("x", LocalFiles(folder))
        assert program.architecture == control_plane.architecture == architecture
        assert program.resolution_px == control_plane.native_px == native_px
        config = json.loads((folder / "scheduler/scheduler_config.json").read_bytes())
        assert program.prediction_type == config["prediction_type"]


@pytest.mark.parametrize("edge_px", [64, 448, 136])
def test_a_resolution_that_the_base_cannot_is_refused_with_both_names(sd21: Path, edge_px: int) -> None:
    model = base_models.describe("sd21-micro", LocalFiles(sd21))
    with pytest.raises(ResolutionUnsupported, match=rf"'sd21-micro' \(native 192 px\) cannot train at {edge_px} px"):
        Recipe(resolution_px=edge_px).resolved(model)
