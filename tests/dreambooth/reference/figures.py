"""The recorded figures: where they are, what they were made with, and how tensors become one digest."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

FILE: Final = Path(__file__).with_name("figures.json")
_DECIDING_PACKAGES: Final = ("torch", "diffusers", "transformers", "pillow")
MADE_WITH: Final = (*_DECIDING_PACKAGES, "accelerate", "torchvision", "bitsandbytes", "numpy")
_INSTRUCTIONS: Final = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16")


def load() -> dict[str, Any]:
    """The recorded figures."""
    figures: dict[str, Any] = json.loads(FILE.read_text())
    return figures


def environment(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of `packages` and the kind of processor: what decides the last bits of a sum.

    `cpu_capability` chooses torch's own kernels, `processor` those of the matrix libraries below it.
    """
    able = torch.cpu.get_capabilities()
    return {
        **{name: version(name) for name in packages},
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "processor": " ".join([str(able["cpu_name"]), *(name for name in _INSTRUCTIONS if able.get(name))]),
    }


def differences(recorded: Mapping[str, str]) -> list[str]:
    """What here is unlike the place of recording in a way that may change bits; empty where bits have to be equal."""
    here = environment(_DECIDING_PACKAGES)
    return [f"{name}: recorded {recorded[name]}, here {here[name]}" for name in here if recorded[name] != here[name]]


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 over the sorted names and the fp32 bytes of a module's weights.

    The text encoder's names are taken without their leading "text_model.", which transformers writes or not depending
    on its version, and `position_ids`, which is no weight, is left out.
    """
    names = [name for name in tensors if "position_ids" not in name]
    weights = {name.removeprefix("text_model."): tensors[name] for name in names}
    summary = hashlib.sha256()
    for name in sorted(weights):
        summary.update(name.encode() + b"\0")
        summary.update(weights[name].detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return summary.hexdigest()
