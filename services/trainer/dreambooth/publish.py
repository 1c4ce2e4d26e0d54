"""The trained model as a checkpoint: a Diffusers folder, file for file that of the base model.

Number format: each trained part is written in the format of the base's own file (fp16 for fp16 bases, else fp32 or bf16
as found), because a checkpoint stands in for its base wherever that is read; training itself is always in fp32 weights.
Tensor names: exactly those of the base's file, so the CLIP text encoder keeps the classic nested "text_model." names that
every converter and A1111 expect, although transformers 5 holds it without that level. Everything else is copied.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from artifacts.checkpoints import Checkpoints, CheckpointWriter
from artifacts.errors import AlreadyExists
from safetensors.torch import load_file, save_file
from torch import nn

from dreambooth import lora, ownership
from dreambooth.base_model import TEXT_ENCODER_WEIGHTS, UNET_WEIGHTS
from dreambooth.errors import BaseModelInvalid, Diverged
from dreambooth.exits import StopSignal
from dreambooth.order import Order
from dreambooth.parts import Parts
from dreambooth.progress import Progress
from dreambooth.recipe import TEXT_ENCODER, UNET
from dreambooth.state import StageState

_NESTED = "text_model."
_WEIGHTS_ENDINGS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".onnx", ".onnx_data", ".pb")


_FILES = {UNET: UNET_WEIGHTS, TEXT_ENCODER: TEXT_ENCODER_WEIGHTS}


def publish(
    checkpoints: Checkpoints,
    order: Order,
    parts: Parts,
    state: StageState,
    metrics: Mapping[str, Any],
    stop: StopSignal,
) -> None:
    """Publish the checkpoint of this run: the running averages if it has some, else the weights.

    Raises NotOurs if another run has the id, LeaseLost if another process has the run, Diverged for non-finite weights.
    If another process of the same run has published, its checkpoint stands and this returns: the run is finished.
    """
    assert order.lease is not None  # only the process that writes publishes
    try:
        with checkpoints.begin(order.recipe.checkpoint, **_fields(order)) as writer:
            with state.averages.applied():
                if order.recipe.lora:
                    lora.write(writer, parts, order.recipe.lora, state.modules, order.scratch)
                else:
                    _write_files(writer, order, {_FILES[name]: parts.module(name) for name in state.modules}, stop)
            stop.check()
            ownership.publish(checkpoints, writer, order.recipe.checkpoint, order.run, order.lease, metrics)
    except AlreadyExists:
        ownership.require_ours(checkpoints.get(order.recipe.checkpoint), order.run)


def files_of(folder: Path) -> Iterator[str]:
    """Paths of the pipeline below the base's folder, in order: no hidden files, no second copies of the weights."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts):
            continue
        if relative.suffix not in _WEIGHTS_ENDINGS or _is_canonical(relative):
            yield relative.as_posix()


def _is_canonical(relative: Path) -> bool:
    """Weights that a pipeline loads by default: not a variant, not a format of older days, not a single-file copy."""
    return len(relative.parts) == 2 and relative.name in ("model.safetensors", "diffusion_pytorch_model.safetensors")


def _fields(order: Order) -> dict[str, Any]:
    _, session, _, run_id = order.run.split("/")
    base, is_lora = order.inputs.base, order.recipe.lora is not None
    return {
        "format": "safetensors" if is_lora else "diffusers",
        "architecture": base.architecture,
        "kind": "lora" if is_lora else "dreambooth",
        "precision": base.precision,
        "prediction_type": base.prediction_type,
        "resolution": order.inputs.edge_px,
        "base_model": base.name,
        "session": session,
        "run": run_id,
        "recipe": order.recipe.record(),
        "title": order.recipe.checkpoint,
    }


def _write_files(writer: CheckpointWriter, order: Order, trained: Mapping[str, nn.Module], stop: StopSignal) -> None:
    base = order.inputs.base
    for path in files_of(base.folder):
        stop.check()
        source = base.folder / path
        module = trained.get(path)
        if module is not None:
            tensors = as_in_file(module, load_file(source), path)
            source = order.scratch / path.replace("/", "-")
            save_file(tensors, source, metadata={"format": "pt"})
        writer.add_file(path, source)


def as_in_file(module: nn.Module, original: Mapping[str, torch.Tensor], path: str) -> dict[str, torch.Tensor]:
    """The module's weights under the names and in the dtypes of the base's file.

    A tensor that is no weight, such as position ids, is kept. Raises Diverged, and BaseModelInvalid for a file that the
    module did not come from.
    """
    trained = {name.removeprefix(_NESTED): weight for name, weight in module.state_dict().items()}
    tensors = {}
    for name, before in original.items():
        weight = trained.pop(name.removeprefix(_NESTED), None)
        if weight is None:
            if before.is_floating_point():
                raise BaseModelInvalid(f"{path}: the loaded model has no weight named {name!r}")
            tensors[name] = before
            continue
        tensors[_classic(name, path)] = _finite(weight.detach().to("cpu", before.dtype), name, path).contiguous()
    if trained:
        raise BaseModelInvalid(f"{path} lacks weights of the loaded model: {', '.join(sorted(trained)[:3])}")
    return tensors


def _classic(name: str, path: str) -> str:
    is_flat_clip = path == TEXT_ENCODER_WEIGHTS and not name.startswith(_NESTED)
    return f"{_NESTED}{name}" if is_flat_clip else name


def _finite(weight: torch.Tensor, name: str, path: str) -> torch.Tensor:
    if not bool(torch.isfinite(weight).all()):
        raise Diverged(f"{path}: {name} is not finite in {weight.dtype}; lower the learning rate")
    return weight


def stage_metrics(progress: Progress) -> dict[str, Any]:
    """Losses of each stage as the manifest keeps them."""
    first, last, smoothed = progress.first_loss, progress.last_loss, progress.smoothed_loss
    return {
        stage: {"loss_first": first[stage], "loss_last": last[stage], "loss_smoothed": smoothed[stage]}
        for stage in (TEXT_ENCODER, UNET)
        if stage in first
    }
