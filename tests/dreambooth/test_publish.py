"""The published folder: the base's layout, the classic names, readable by diffusers."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from artifacts.checkpoints import Checkpoints, CheckpointWriter
from artifacts.sessions import Sessions
from diffusers import StableDiffusionPipeline
from dreambooth import publish
from dreambooth.errors import BaseModelInvalid, Diverged, LeaseLost
from dreambooth.writer_record import decode
from safetensors.torch import load_file, save_file

Order = Callable[..., dict[str, Any]]
Train = Callable[[Mapping[str, Any]], Any]

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


def test_checkpoint_loads_as_a_pipeline_with_classic_names(
    order: Order, train: Train, micro: Path, tmp_path: Path
) -> None:
    outcome = train(order(text_encoder={"steps": 1, "learning_rate": 1e-3}, unet={"steps": 1, "learning_rate": 1e-3}))
    folder = tmp_path / "published"
    Checkpoints(outcome.store).download(outcome.checkpoint, folder)
    for path in (UNET, TEXT):
        before, after = load_file(micro / path), load_file(folder / path)
        assert {n: (t.dtype, t.shape) for n, t in after.items()} == {n: (t.dtype, t.shape) for n, t in before.items()}
    text = load_file(folder / TEXT)
    assert all(name.startswith("text_model.") for name in text)
    assert torch.equal(text["text_model.embeddings.position_ids"], torch.arange(16).unsqueeze(0))
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    loaded = {f"text_model.{n.removeprefix('text_model.')}": t for n, t in pipeline.text_encoder.state_dict().items()}
    assert all(torch.equal(loaded[name], weight) for name, weight in text.items() if weight.is_floating_point())
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("sks toy", num_inference_steps=1, height=32, width=32, output_type="np").images
    assert picture.shape == (1, 32, 32, 3)


def test_manifest_says_what_it_is_and_where_it_comes_from(order: Order, train: Train) -> None:
    manifest = train(order(unet={"steps": 0})).manifest
    assert (manifest.format, manifest.architecture, manifest.kind) == ("diffusers", "sd15", "dreambooth")
    assert (manifest.precision, manifest.prediction_type, manifest.resolution) == ("fp32", "epsilon", 64)
    assert (manifest.base_model, manifest.session, manifest.run) == ("micro", "toy", "run-1")
    assert manifest.recipe["stages"] == "text_encoder_only_first"
    assert manifest.recipe["text_encoder"] == {
        "steps": 2,
        "learning_rate": 1e-4,
        "schedule": "linear",
        "warmup_steps": 0,
        "resolution_px": 0,
    }
    assert (manifest.metrics["images"], manifest.metrics["steps"]) == (3, 2)
    assert manifest.metrics["seconds"] > 0


def test_a_half_precision_base_gives_a_half_precision_checkpoint(
    order: Order, train: Train, build_micro: Callable[..., Path], tmp_path: Path
) -> None:
    half = build_micro(tmp_path / "half", "epsilon", torch.float16)
    outcome = train(order(base_model_source=str(half), text_encoder={"steps": 0}, unet={"steps": 1}))
    content = Checkpoints(outcome.store).read_file(outcome.checkpoint, UNET)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert outcome.manifest.precision == "fp16"
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {"F16"}


def test_copies_of_weights_and_hidden_files_stay_behind(micro: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(micro, tmp_path / "copy"))
    strays = (
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "v1-5-pruned.safetensors",
        "v1-5-pruned.ckpt",
        ".git/config",
        "text_encoder/.DS_Store",
    )
    for path in strays:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(b"x")
    assert list(publish.files_of(folder)) == list(publish.files_of(micro))


def test_a_run_that_is_replaced_right_before_the_manifest_publishes_nothing(
    order: Order, train: Train, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, store = "sessions/toy/runs/slow", sessions.store
    original = CheckpointWriter.publish

    def late(writer: CheckpointWriter, *arguments: Any) -> Any:
        """Another process takes the run over at this moment; the renewals have not met it yet."""
        monkeypatch.undo()
        key = f"{run}/writer.json"
        before = decode(key, store.get(key))
        store.put(key, replace(before, token=before.token + 1, nonce="other").encode())
        Checkpoints(store).revoke("toy-slow", run, before.token + 1)
        return original(writer, *arguments)

    monkeypatch.setattr(CheckpointWriter, "publish", late)
    with pytest.raises(LeaseLost, match="with token 2, while this process held token 1"):
        train(order(), run)
    assert list(Checkpoints(store).list()) == []
    assert [found.key for found in store.list("checkpoints/")] == ["checkpoints/toy-slow/manifest.json"]


@pytest.fixture
def linear() -> torch.nn.Module:
    return torch.nn.Linear(2, 2)


def test_flat_text_encoder_names_become_classic(linear: torch.nn.Module) -> None:
    before = {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}
    assert sorted(publish.as_in_file(linear, before, TEXT)) == ["text_model.bias", "text_model.weight"]


def test_weights_that_do_not_fit_the_file_are_refused(linear: torch.nn.Module) -> None:
    with pytest.raises(BaseModelInvalid, match="no weight named 'other'"):
        publish.as_in_file(linear, {"other": torch.zeros(1)}, UNET)
    with pytest.raises(BaseModelInvalid, match="lacks weights of the loaded model: bias"):
        publish.as_in_file(linear, {"weight": torch.zeros(2, 2)}, UNET)


def test_weights_beyond_the_number_format_are_refused(linear: torch.nn.Module) -> None:
    with torch.no_grad():
        linear.weight.fill_(1e6)
    half = {"weight": torch.zeros(2, 2, dtype=torch.float16), "bias": torch.zeros(2)}
    with pytest.raises(Diverged, match=r"weight is not finite in torch\.float16"):
        publish.as_in_file(linear, half, UNET)


def test_written_weights_are_bit_equal_to_those_in_memory(linear: torch.nn.Module, tmp_path: Path) -> None:
    tensors = publish.as_in_file(linear, {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}, UNET)
    save_file(tensors, tmp_path / "w.safetensors")
    assert torch.equal(load_file(tmp_path / "w.safetensors")["weight"], linear.weight)
