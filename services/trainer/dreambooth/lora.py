"""LoRA adapters (Hu et al. 2021, arXiv 2106.09685) on the attention layers: attached, given their first values, exported.

A layer W becomes W + alpha / rank * (B @ A): A of shape (rank, inputs), B of (outputs, rank), both fp32. peft carries them
out, and its names, "<layer>.lora_A.default.weight", are how `stages.trainable` finds them. What the files look like is
in `lora_layouts`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from artifacts.checkpoints import CheckpointWriter
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer

from dreambooth import draws, lora_layouts
from dreambooth.draws import Draws
from dreambooth.errors import Diverged
from dreambooth.lora_layouts import Adapter
from dreambooth.parts import Parts
from dreambooth.recipe import TEXT_ENCODER, UNET, Lora

_ADAPTER: Final = "default"
# transformers 5 has the parts of CLIPTextModel.text_model in CLIPTextModel itself; files have the classic names.
_CLASSIC: Final = {UNET: "", TEXT_ENCODER: "text_model."}


def attach(parts: Parts, settings: Lora, seed: int) -> None:
    """Give the UNet and the text encoder adapters, once. They are frozen, and with their first values change nothing."""
    for module in (UNET, TEXT_ENCODER):
        config = LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, target_modules=list(lora_layouts.TARGETS[module])
        )
        # Making the layers draws from torch's global generator: it is put back, and every value is overwritten below.
        with torch.random.fork_rng(devices=[]):
            inject_adapter_in_model(config, parts.module(module), _ADAPTER)
        parts.module(module).requires_grad_(False).eval()
        reset(parts, module, seed)


def reset(parts: Parts, module: str, seed: int) -> None:
    """The first values: A normal with deviation 1 / rank, which peft calls "gaussian", and B zero.

    A draw is named by the seed, the module and the layer's classic path.
    """
    numbers = Draws(seed, module)
    with torch.no_grad():
        for path, layer in _layers(parts, module):
            down, up = _weights(layer)
            down.copy_(numbers.normal(0, f"{draws.ADAPTER} {path}", down.shape) / down.shape[0])
            up.zero_()


def write(writer: CheckpointWriter, parts: Parts, settings: Lora, modules: Sequence[str], scratch: Path) -> None:
    """Add the adapters of the named modules, those that were trained, as a file of diffusers and one of kohya.

    The numbers are fp16 if the manifest says that the base is, else fp32, the format of training; alpha is always fp32.
    Raises Diverged if one is not finite in that format.
    """
    dtype = torch.float16 if writer.draft.precision == "fp16" else torch.float32
    adapters = [
        Adapter(module, path, *(_exported(weight, dtype, f"{module}.{path}") for weight in _weights(layer)))
        for module in modules
        for path, layer in _layers(parts, module)
    ]
    for name, save in lora_layouts.LAYOUTS.items():
        save(scratch / name, adapters, settings, writer.draft)
        writer.add_file(name, scratch / name)


def _layers(parts: Parts, module: str) -> Iterator[tuple[str, Any]]:
    """Layers with an adapter under the paths that files give them."""
    prefix = _CLASSIC[module]
    for path, layer in parts.module(module).named_modules():
        if isinstance(layer, LoraLayer):
            yield prefix + path.removeprefix(prefix), layer


def _weights(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A, shape (rank, inputs), and B, (outputs, rank)."""
    return layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight


def _exported(weight: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
    made = weight.detach().to("cpu", dtype, copy=True).contiguous()
    if not bool(torch.isfinite(made).all()):
        raise Diverged(f"the adapter of {name} is not finite in {dtype}; lower the learning rate")
    return made
