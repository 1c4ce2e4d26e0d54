"""LoRAs at work: their files read, checked against a model, merged into its weights and taken out again without a trace.

`pipelines.py` calls it in the worker thread. A layer W of the model becomes W + weight * alpha / rank * (up @ down) (Hu et al.
2021, with the scale of kohya's scripts); a file without alpha means alpha = rank. The layer's own tensor is put aside and put
back, so a model without LoRAs is the one that was loaded, bit for bit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from webui_engine.errors import LoraMismatch, ModelBroken
from webui_engine.lora_catalogue import Lora, LoraUse

_UNET: Final = "lora_unet_"
_TEXT_ENCODER: Final = "lora_te_"
# A1111 takes this name, which SDXL's first text encoder has, for SD's only one too.
_FIRST_TEXT_ENCODER: Final = "lora_te1_"
_DOWN, _UP, _ALPHA = "lora_down.weight", "lora_up.weight", "alpha"
_SHOWN_NAMES: Final = 4


@dataclass(frozen=True)
class Layer:
    """One layer of a LoRA: down (r, I, ...) and up (O, r, ...); scale is alpha / r."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float

    def product(self, device: torch.device) -> torch.Tensor:
        """scale * up @ down in fp32, (O, numbers that each output reads)."""
        up, down = (part.to(device, torch.float32).flatten(1) for part in (self.up, self.down))
        return self.scale * (up @ down)


Layers = Mapping[str, Layer]


class Merged:
    """The weights of one loaded model with what is merged into them; `uses` tells, in the order of the prompt."""

    def __init__(self, unet: Any, text_encoder: Any) -> None:
        self.uses: tuple[LoraUse, ...] = ()
        self._unet = unet
        self._text_encoder = text_encoder
        self._originals: dict[str, nn.Parameter] = {}
        self._known: dict[str, Any] = {}

    def check(self, lora: Lora, layers: Layers, model: str) -> None:
        """Raise LoraMismatch unless every layer has its place in this model, with the same shape."""
        places = self._places()
        if unknown := [name for name in layers if name not in places]:
            raise LoraMismatch(
                lora.name, lora.family, lora.base_model, model, f"the model has no layer {_some(unknown, len(layers))}"
            )
        for name, layer in layers.items():
            theirs, ours = _shape(layer), tuple(places[name].weight.shape)
            if theirs != (ours[0], places[name].weight[0].numel()) or layer.down.shape[1] != ours[1]:
                why = f"layer {name} is {_times(theirs)}, the model's is {_times(ours)}"
                raise LoraMismatch(lora.name, lora.family, lora.base_model, model, why)

    @torch.no_grad()
    def set(self, uses: Sequence[LoraUse], layers: Sequence[Layers]) -> None:
        """Merge LoRAs that were checked, and no others; layers[i] are those of uses[i]."""
        self.restore()
        try:
            for name, places in self._wanted(uses, layers).items():
                self._merge(name, places)
        except BaseException:
            self.restore()
            raise
        self.uses = tuple(uses)

    def restore(self) -> None:
        """Put the model's own tensors back."""
        for name, own in self._originals.items():
            self._places()[name].weight = own
        self._originals.clear()
        self.uses = ()

    def _merge(self, name: str, parts: Iterable[tuple[float, Layer]]) -> None:
        module = self._places()[name]
        own = module.weight
        merged = own.detach().float()
        for weight, layer in parts:
            merged = merged + (weight * layer.product(own.device)).reshape(own.shape)
        module.weight = nn.Parameter(merged.to(own.dtype), requires_grad=False)
        self._originals[name] = own

    def _wanted(self, uses: Sequence[LoraUse], layers: Sequence[Layers]) -> dict[str, list[tuple[float, Layer]]]:
        """By layer of the model what is added to it. A part of weight 0 adds nothing and touches nothing."""
        wanted: dict[str, list[tuple[float, Layer]]] = {}
        for use, own in zip(uses, layers, strict=True):
            for name, layer in own.items():
                if weight := use.tag.unet if name.startswith(_UNET) else use.tag.text_encoder:
                    wanted.setdefault(name, []).append((weight, layer))
        return wanted

    def _places(self) -> dict[str, Any]:
        """The layers of the model that can carry a LoRA, by kohya's name: the path with `_` for `.`. Found out once.

        A name cannot be taken apart again (`to_out_0`), so names are made from the model.
        """
        if not self._known:
            for path, module in self._unet.named_modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    self._known[_UNET + path.replace(".", "_")] = module
            for path, module in self._text_encoder.named_modules():
                if isinstance(module, nn.Linear):
                    # transformers 5.6 moved the parts of CLIPTextModel.text_model into CLIPTextModel itself.
                    full = path if path.startswith("text_model.") else f"text_model.{path}"
                    self._known[_TEXT_ENCODER + full.replace(".", "_")] = module
        return self._known


def read(lora: Lora) -> dict[str, Layer]:
    """The layers of a LoRA file in kohya's layout by name. Raises ModelBroken for anything else, with what was found."""
    tensors = _tensors(lora.name, lora.path)
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, part = key.partition(".")
        if name.startswith(_FIRST_TEXT_ENCODER):
            name = _TEXT_ENCODER + name.removeprefix(_FIRST_TEXT_ENCODER)
        parts.setdefault(name, {})[part] = tensor
    strange = [
        f"{name}.{part}"
        for name, own in parts.items()
        for part in own
        if part not in (_DOWN, _UP, _ALPHA) or not name.startswith((_UNET, _TEXT_ENCODER))
    ]
    if strange or not parts:
        found = f"found {_some(strange, len(tensors))}" if strange else "found no tensor"
        advice = f"expected lora_unet_… and lora_te_… with .{_DOWN}, .{_UP} and .{_ALPHA} (kohya's layout, plain LoRA)"
        raise ModelBroken(lora.name, f"{found}, {advice}", kind="LoRA")
    return {name: _layer(lora.name, name, own) for name, own in parts.items()}


def _tensors(name: str, path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelBroken(name, f"{type(error).__name__}: {error}", kind="LoRA") from error
    return tensors


def _layer(lora: str, name: str, parts: Mapping[str, torch.Tensor]) -> Layer:
    down, up, alpha = (parts.get(part) for part in (_DOWN, _UP, _ALPHA))
    if down is None or up is None:
        raise ModelBroken(lora, f"layer {name} lacks {_DOWN if down is None else _UP}", kind="LoRA")
    # Of a convolution `down` has the kernel, `up` is 1 x 1.
    if down.dim() not in (2, 4) or up.dim() not in (2, 4) or not up.numel() or up[0].numel() != down.shape[0]:
        shapes = f"{_DOWN} {_times(down.shape)} and {_UP} {_times(up.shape)}"
        raise ModelBroken(lora, f"layer {name} has {shapes}, which have no rank in common", kind="LoRA")
    if alpha is not None and alpha.numel() != 1:
        raise ModelBroken(lora, f"layer {name} has {alpha.numel()} numbers as {_ALPHA}, expected one", kind="LoRA")
    if any(part is not None and not torch.isfinite(part).all() for part in (down, up, alpha)):
        raise ModelBroken(lora, f"layer {name} has numbers that are not finite", kind="LoRA")
    rank = down.shape[0]
    return Layer(down, up, 1.0 if alpha is None else alpha.item() / rank)


def _shape(layer: Layer) -> tuple[int, int]:
    """Outputs, and numbers that each of them reads."""
    return layer.up.shape[0], layer.down[0].numel()


def _times(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def _some(names: Sequence[str], total: int) -> str:
    """The first names and how many there are."""
    more = ", ..." if len(names) > _SHOWN_NAMES else ""
    return f"{', '.join(names[:_SHOWN_NAMES])}{more} ({len(names)} of {total})"
