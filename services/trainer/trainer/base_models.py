"""The base models that runs can start from: folders in the diffusers layout, on this machine or in the bucket.

`training` looks them up before a run is accepted; what the program would refuse is refused here, with the same rules. The
gateway keeps a richer registry of its own; services share only the bucket.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.errors import NotFound
from artifacts.store import ObjectStore

from trainer.base_model_files import BucketFiles, Files, LocalFiles, Tensor, tensors
from trainer.errors import BaseModelUnknown, BaseModelUnsupported, ResolutionUnsupported

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PIPELINE = "StableDiffusionPipeline"
_UNET = "unet/diffusion_pytorch_model.safetensors"
_WEIGHTS = (_UNET, "text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors")
_CONFIGS = ("unet/config.json", "text_encoder/config.json", "vae/config.json", "scheduler/scheduler_config.json")
_REQUIRED = (*_CONFIGS, *_WEIGHTS, "tokenizer/vocab.json", "tokenizer/merges.txt")
_MAX_CONFIG_BYTES = 1024 * 1024
# Width of the text encoder's output, by which the versions of Stable Diffusion differ; by what they predict, the two of SD2.1.
_ARCHITECTURES = {
    (768, "epsilon"): "sd15",
    (768, "v_prediction"): "sd15",
    (1024, "epsilon"): "sd21-512",
    (1024, "v_prediction"): "sd21-768",
}
_WIDTHS = (768, 1024)
_DTYPES = ("F32", "F16", "BF16")
_PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class BaseModel:
    """One entry of the registry.

    source: absolute folder, or a prefix of the bucket such as "models/sd15-tiny". architecture: "sd15", "sd21-512" or
    "sd21-768". native_px: edge it was trained at.
    multiple_px: edges must be multiples of this, so that every level of the UNet halves evenly.
    """

    name: str
    source: str
    architecture: str
    native_px: int
    multiple_px: int

    @property
    def minimum_px(self) -> int:
        """Half the native edge; below it the model draws no coherent picture."""
        return max(self.multiple_px, self.native_px // 2)

    @property
    def maximum_px(self) -> int:
        """Twice the native edge; above it the model repeats the subject."""
        return self.native_px * 2

    def check_resolution(self, resolution_px: int) -> None:
        """Raise ResolutionUnsupported unless the model can train at this edge."""
        limits = (self.multiple_px, self.minimum_px, self.maximum_px)
        if resolution_px % self.multiple_px or not self.minimum_px <= resolution_px <= self.maximum_px:
            raise ResolutionUnsupported(self.name, resolution_px, self.native_px, *limits)


class BaseModels:
    """The folders below `folder` (None: none) first, then those below models/ of the bucket."""

    def __init__(self, store: ObjectStore, folder: Path | None) -> None:
        self._store = store
        self._folder = folder.resolve() if folder else None

    def get(self, name: str) -> BaseModel:
        """One base model. Raises BaseModelUnknown, and BaseModelUnsupported for one that cannot be trained here."""
        if _NAME.fullmatch(name):
            if self._folder and (self._folder / name / "model_index.json").is_file():
                return describe(name, LocalFiles(self._folder / name))
            if self._store.exists(f"models/{name}/model_index.json"):
                return describe(name, BucketFiles(self._store, f"models/{name}"))
        raise BaseModelUnknown(name, self.names())

    def names(self) -> list[str]:
        """Names of all pipelines that are there, sorted; whether they can be trained is not looked at."""
        local = [path.parent.name for path in self._folder.glob("*/model_index.json")] if self._folder else []
        remote = [
            name
            for name in self._store.list_folders("models/")
            if _NAME.fullmatch(name) and self._store.exists(f"models/{name}/model_index.json")
        ]
        return sorted({*local, *remote})


def describe(name: str, files: Files) -> BaseModel:
    """Resolution and architecture from the model's own configuration. Raises BaseModelUnsupported.

    Every file that training needs has to be there, weights as long as their headers say and of the configured width.
    """
    kind = _config(name, files, "model_index.json").get("_class_name")
    if kind != _PIPELINE:
        raise BaseModelUnsupported(name, f"it is a {kind}, and only {_PIPELINE} is known")
    sizes = files.sizes()
    if missing := [path for path in _REQUIRED if path not in sizes]:
        raise BaseModelUnsupported(name, f"its folder lacks {', '.join(missing)}")
    unet, text, vae, scheduler = (_config(name, files, path) for path in _CONFIGS)
    try:
        vae_factor = 2 ** (len(vae["block_out_channels"]) - 1)
        unet_factor = 2 ** (len(unet["block_out_channels"]) - 1)
        native_px, width = int(unet.get("sample_size") or 64) * vae_factor, unet["cross_attention_dim"]
    except (KeyError, TypeError, ValueError) as error:
        raise BaseModelUnsupported(name, f"unet/config.json or vae/config.json lacks {error}") from error
    if width not in _WIDTHS:
        raise BaseModelUnsupported(name, f"its text encoder is {width} wide; known are {list(_WIDTHS)}")
    _expect(name, "hidden_size of text_encoder/config.json", text.get("hidden_size"), width)
    _expect(name, "in_channels of unet/config.json", unet.get("in_channels"), vae.get("latent_channels"))
    prediction_type = scheduler.get("prediction_type", "epsilon")
    _expect(name, "prediction_type of scheduler/scheduler_config.json", prediction_type, *_PREDICTION_TYPES)
    _check_weights(name, files, sizes, width)
    return BaseModel(name, files.source, _ARCHITECTURES[width, prediction_type], native_px, vae_factor * unet_factor)


def _check_weights(name: str, files: Files, sizes: Mapping[str, int], width: int) -> None:
    try:
        found = {path: tensors(files, path, sizes[path]) for path in _WEIGHTS}
    except ValueError as error:
        raise BaseModelUnsupported(name, str(error)) from error
    _expect(name, f"most of {_UNET}", _main_dtype(found[_UNET]), *_DTYPES)
    for tensor_name, tensor in found[_UNET].items():
        if tensor_name.endswith(".attn2.to_k.weight"):
            _expect(name, f"the width of {tensor_name} in {_UNET}", tensor.shape[-1], width)


def _main_dtype(found: Mapping[str, Tensor]) -> str:
    counts: dict[str, int] = {}
    for tensor in found.values():
        counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.num_values
    return max(counts, key=lambda dtype: counts[dtype], default="nothing")


def _expect(name: str, where: str, found: Any, *allowed: Any) -> None:
    if found not in allowed:
        raise BaseModelUnsupported(name, f"{where} is {found}, expected {' or '.join(map(str, allowed))}")


def _config(name: str, files: Files, path: str) -> dict[str, Any]:
    try:
        fields = json.loads(files.read(path, _MAX_CONFIG_BYTES))
    except (FileNotFoundError, NotFound) as error:
        raise BaseModelUnsupported(name, f"its folder lacks {path}") from error
    except ValueError as error:
        raise BaseModelUnsupported(name, f"{path} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BaseModelUnsupported(name, f"{path} holds no JSON object")
    return fields
