"""Old, flattened and surplus names: repaired, dropped with a word, or reported."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from artifacts.checkpoints import Checkpoints, Manifest
from converter import canonical, inspection, plan
from converter.errors import CheckpointMalformed, NotConvertible
from converter.sources import open_checkpoint
from safetensors.numpy import load, save

Files = dict[str, bytes]
Publish = Callable[..., Manifest]
Convert = Callable[..., Manifest]


@pytest.fixture
def single(publish: Publish, convert: Convert, micro_files: Files, checkpoints: Checkpoints) -> dict[str, Any]:
    """The arrays of a single file made from the micro model."""
    publish("toy", micro_files)
    made = convert("toy", "safetensors")
    return load(checkpoints.read_file(made, "model.safetensors"))


def test_flattened_clip_names_are_written_classic(
    publish: Publish, convert: Convert, micro_arrays: Any, folder_files: Callable[..., Files]
) -> None:
    """transformers from 5.6 on saves them so; no reader of single files knows them."""
    publish("classic", folder_files(micro_arrays))
    text = {name.removeprefix("text_model."): value for name, value in micro_arrays["text_encoder"].items()}
    publish("flat", folder_files(micro_arrays | {"text_encoder": text}))
    assert convert("flat", "ckpt").metrics == convert("classic", "ckpt").metrics
    back = convert("flat.ckpt", "diffusers")
    assert back.metrics["tensors_sha256"] == convert("classic.ckpt", "diffusers").metrics["tensors_sha256"]


def test_attention_of_old_vaes_is_understood(
    publish: Publish, convert: Convert, micro_arrays: Any, folder_files: Callable[..., Files]
) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    vae = {}
    for name, value in micro_arrays["vae"].items():
        for new, before in old.items():
            name = name.replace(f".attentions.0.{new}.", f".attentions.0.{before}.")
        vae[name] = value
    assert "decoder.mid_block.attentions.0.proj_attn.bias" in vae
    publish("new", folder_files(micro_arrays))
    publish("old", folder_files(micro_arrays | {"vae": vae}))
    assert convert("old", "ckpt").metrics == convert("new", "ckpt").metrics


def test_what_a_full_training_file_carries_beside_the_model_is_dropped_and_said(
    single: dict[str, Any], publish: Publish, checkpoints: Checkpoints
) -> None:
    extra = {
        "betas": np.ones(1000, np.float32),
        "model_ema.decay": np.ones((), np.float32),
        "model_ema.diffusion_modelinput_blocks00weight": np.ones(3, np.float16),
        "first_stage_model.loss.logvar": np.ones((), np.float32),
    }
    arrays = {name.replace("transformer.text_model.", "transformer."): value for name, value in single.items()}  # NAI
    manifest = publish("full", {"model.safetensors": save(arrays | extra)}, format="safetensors", parents=("toy",))
    model = canonical.as_sd15(open_checkpoint(checkpoints, manifest))
    assert set(model.dropped) - {"cond_stage_model.transformer.embeddings.position_ids"} == set(extra)
    assert not model.missing
    assert not model.unexpected
    assert plan.make(checkpoints, manifest, "diffusers", "").dropped == model.dropped


def test_a_stranger_among_the_tensors_stops_the_conversion(
    single: dict[str, Any], publish: Publish, checkpoints: Checkpoints
) -> None:
    arrays = single | {"lora_unet_baked.alpha": np.ones(1, np.float16)}
    manifest = publish("odd", {"model.safetensors": save(arrays)}, format="safetensors", parents=("toy",))
    with pytest.raises(NotConvertible, match=r"lora_unet_baked\.alpha"):
        plan.make(checkpoints, manifest, "ckpt", "")


def test_a_missing_shortcut_is_missing_only_where_widths_change(
    single: dict[str, Any], publish: Publish, checkpoints: Checkpoints
) -> None:
    name = "model.diffusion_model.input_blocks.4.0.skip_connection.weight"
    arrays = {key: value for key, value in single.items() if key != name}
    manifest = publish("odd", {"model.safetensors": save(arrays)}, format="safetensors", parents=("toy",))
    found = inspection.inspect(open_checkpoint(checkpoints, manifest), manifest)
    assert found.missing == (name,)


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_vae_attention_of_any_rank_is_accepted(
    rank: int, single: dict[str, Any], publish: Publish, checkpoints: Checkpoints, convert: Convert
) -> None:
    arrays = dict(single)
    for name, value in single.items():
        if ".attn_1." in name and value.ndim == 4:
            arrays[name] = value.reshape(value.shape[:2] + (1,) * (rank - 2))
    publish("odd", {"model.safetensors": save(arrays)}, format="safetensors", parents=("toy",))
    assert convert("odd", "diffusers").metrics == checkpoints.get("toy.safetensors").metrics


def test_a_shape_that_is_no_1x1_convolution_is_refused(
    single: dict[str, Any], publish: Publish, checkpoints: Checkpoints
) -> None:
    name = "first_stage_model.decoder.mid.attn_1.q.weight"
    arrays = single | {name: np.ones((12, 12, 3, 3), np.float16)}
    manifest = publish("odd", {"model.safetensors": save(arrays)}, format="safetensors", parents=("toy",))
    with pytest.raises(CheckpointMalformed, match=r"attn_1\.q\.weight"):
        plan.make(checkpoints, manifest, "diffusers", "")


def test_sharded_folders_are_read_through_their_index(
    publish: Publish, convert: Convert, micro_arrays: Any, micro_files: Files
) -> None:
    import json

    names = sorted(micro_arrays["unet"])
    stem = "unet/diffusion_pytorch_model"
    files = {path: data for path, data in micro_files.items() if path != f"{stem}.safetensors"}
    weight_map = {}
    for index, part in enumerate((names[:300], names[300:]), 1):
        shard = f"diffusion_pytorch_model-0000{index}-of-00002.safetensors"
        files[f"unet/{shard}"] = save({name: micro_arrays["unet"][name] for name in part})
        weight_map |= dict.fromkeys(part, shard)
    files[f"{stem}.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    publish("whole", micro_files)
    publish("shards", files)
    assert convert("shards", "ckpt").metrics == convert("whole", "ckpt").metrics
    back = convert("shards.ckpt", "diffusers")
    assert not [entry.path for entry in back.files if entry.path.endswith(".index.json")]


def test_v_prediction_is_marked_in_the_file_and_found_again(
    publish: Publish, convert: Convert, micro_arrays: Any, folder_files: Callable[..., Files], checkpoints: Checkpoints
) -> None:
    publish("v", folder_files(micro_arrays, "v_prediction"), prediction_type="v_prediction")
    made = convert("v", "safetensors")
    assert made.prediction_type == "v_prediction"
    source = open_checkpoint(checkpoints, made)
    assert source.metadata["modelspec.prediction_type"] == "v"
    assert "v_pred" in {tensor.name for tensor in source.tensors}
    assert inspection.inspect(open_checkpoint(checkpoints, convert("v", "ckpt"))).prediction_type == "v_prediction"
    assert convert("v.safetensors", "diffusers").prediction_type == "v_prediction"


def test_a_trained_lora_is_inspected_by_the_one_of_its_two_layouts_that_others_read(
    publish: Callable[..., Manifest], checkpoints: Checkpoints
) -> None:
    layer = "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    arrays = {f"lora_unet_{layer}.lora_down.weight": np.ones((4, 768), np.float32)}
    files = {"lora.safetensors": save(arrays), "pytorch_lora_weights.safetensors": save({"x": np.ones(1)})}
    manifest = publish("adapters", files, kind="lora", format="safetensors")
    found = inspection.inspect(open_checkpoint(checkpoints, manifest), manifest)
    assert found.architecture == "lora-sd15"
