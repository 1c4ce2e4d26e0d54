"""The two layouts of a LoRA file that people's programs read. `lora` makes the adapters, this names them.

    pytorch_lora_weights.safetensors   diffusers: "unet.<layer>.lora_A.weight", "text_encoder.<layer>.lora_B.weight";
                                       rank and alpha in the metadata
    lora.safetensors                   kohya's scripts, A1111: "lora_unet_<layer, _ for .>.lora_down.weight", lora_te_...,
                                       beside each pair its alpha

Both have the same numbers. Layers have the paths of classic diffusers models, the text encoder's with "text_model.".
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from artifacts.checkpoints import Manifest
from safetensors.torch import save_file

from dreambooth.recipe import TEXT_ENCODER, UNET, Lora

DIFFUSERS_FILE: Final = "pytorch_lora_weights.safetensors"
KOHYA_FILE: Final = "lora.safetensors"
TARGETS: Final[Mapping[str, tuple[str, ...]]] = {
    UNET: ("to_q", "to_k", "to_v", "to_out.0"),
    TEXT_ENCODER: ("q_proj", "k_proj", "v_proj", "out_proj"),
}
"""Ends of the paths of the layers with adapters: all attention layers, and nothing else in these two models."""
_KOHYA_PREFIXES: Final = {UNET: "lora_unet_", TEXT_ENCODER: "lora_te_"}
# kohya's names of the families, and those of ModelSpec 1.0.1.
_KOHYA_VERSIONS: Final = {"sd15": "sd_v1", "sd21": "sd_v2"}
_MODELSPEC_FAMILIES: Final = {"sd15": "stable-diffusion-v1", "sd21": "stable-diffusion-v2-512"}
_MODELSPEC_V_FAMILIES: Final = {"sd15": "stable-diffusion-v1", "sd21": "stable-diffusion-v2-768-v"}


@dataclass(frozen=True)
class Adapter:
    """One layer. path: inside its module. down: A, shape (rank, inputs). up: B, shape (outputs, rank)."""

    module: str
    path: str
    down: torch.Tensor
    up: torch.Tensor


def save_diffusers(path: Path, adapters: Sequence[Adapter], settings: Lora, about: Manifest) -> None:
    """Write the file of diffusers. Without the metadata it would take alpha for the rank."""
    tensors = {}
    for each in adapters:
        tensors[f"{each.module}.{each.path}.lora_A.weight"] = each.down
        tensors[f"{each.module}.{each.path}.lora_B.weight"] = each.up
    # The fields that every version of peft's LoraConfig knows: it refuses unknown ones.
    config = {"r": settings.rank, "lora_alpha": settings.alpha, "rank_pattern": {}, "alpha_pattern": {}}
    packed: dict[str, Any] = {}
    for module in dict.fromkeys(each.module for each in adapters):
        fields = config | {"target_modules": list(TARGETS[module])}
        packed |= {f"{module}.{name}": value for name, value in fields.items()}
    described = {"lora_adapter_metadata": json.dumps(packed, indent=2, sort_keys=True)}
    save_file(tensors, path, metadata={"format": "pt", **described, **_modelspec(about)})


def save_kohya(path: Path, adapters: Sequence[Adapter], settings: Lora, about: Manifest) -> None:
    """Write the file of kohya's scripts, with the metadata that A1111 shows and sorts by."""
    tensors = {}
    for each in adapters:
        name = _KOHYA_PREFIXES[each.module] + each.path.replace(".", "_")
        tensors[f"{name}.lora_down.weight"] = each.down
        tensors[f"{name}.lora_up.weight"] = each.up
        tensors[f"{name}.alpha"] = torch.tensor(settings.alpha)
    save_file(tensors, path, metadata={"format": "pt", **_kohya(settings, about), **_modelspec(about)})


LAYOUTS: Final[Mapping[str, Callable[[Path, Sequence[Adapter], Lora, Manifest], None]]] = {
    DIFFUSERS_FILE: save_diffusers,
    KOHYA_FILE: save_kohya,
}


def _kohya(settings: Lora, about: Manifest) -> dict[str, str]:
    is_v = about.prediction_type == "v_prediction"
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(settings.rank),
        "ss_network_alpha": str(settings.alpha),
        "ss_base_model_version": _KOHYA_VERSIONS[_family(about)] + ("_v" if is_v else ""),
        "ss_v2": str(_family(about) == "sd21"),
        "ss_sd_model_name": about.base_model,
        "ss_resolution": f"({about.resolution}, {about.resolution})",
        "ss_output_name": about.id,
    }


def _modelspec(about: Manifest) -> dict[str, str]:
    """What every reader of Stability-AI's ModelSpec 1.0.1 must find, and the prediction type, which no weight shows."""
    is_v = about.prediction_type == "v_prediction"
    families = _MODELSPEC_V_FAMILIES if is_v else _MODELSPEC_FAMILIES
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{families[_family(about)]}/lora",
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "modelspec.title": about.title or about.id,
        "modelspec.resolution": f"{about.resolution}x{about.resolution}",
        "modelspec.prediction_type": "v" if is_v else "epsilon",
    }


def _family(about: Manifest) -> str:
    """ "sd21" for "sd21-512" and "sd21-768"."""
    return about.architecture.split("-")[0]
