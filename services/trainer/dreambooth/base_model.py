"""The base model as files: fetched from the bucket if need be, checked and described. No torch here.

`inputs` calls this before the slow imports, so that a wrong base is refused at once; `parts` loads the weights and
`publish` copies the files.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from artifacts.store import ObjectStore

from dreambooth.errors import BaseModelInvalid

UNET_WEIGHTS: Final = "unet/diffusion_pytorch_model.safetensors"
TEXT_ENCODER_WEIGHTS: Final = "text_encoder/model.safetensors"
VAE_WEIGHTS: Final = "vae/diffusion_pytorch_model.safetensors"
_REQUIRED: Final = (
    "model_index.json",
    "unet/config.json",
    UNET_WEIGHTS,
    "text_encoder/config.json",
    TEXT_ENCODER_WEIGHTS,
    "vae/config.json",
    VAE_WEIGHTS,
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
)
# The width of the text states tells the Stable Diffusion generations apart, and what they predict the two of SD2.1: one for
# 512 px, one for 768. The other services use the same names.
_ARCHITECTURES: Final[Mapping[tuple[Any, Any], str]] = {
    (768, "epsilon"): "sd15",
    (768, "v_prediction"): "sd15",
    (1024, "epsilon"): "sd21-512",
    (1024, "v_prediction"): "sd21-768",
}
_WIDTHS: Final = (768, 1024)
_PRECISIONS: Final = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}
_PREDICTION_TYPES: Final = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class BaseModel:
    """A checked Diffusers folder.

    architecture: "sd15", "sd21-512" or "sd21-768". precision: number format of the UNet's file. resolution_px: what the base was made for. vae_factor: pixels per
    latent along one axis.
    """

    name: str
    folder: Path
    architecture: str
    precision: str
    prediction_type: str
    resolution_px: int
    vae_factor: int

    @property
    def weights(self) -> tuple[str, ...]:
        """Paths of the files whose content training depends on."""
        return _REQUIRED


def fetch(store: ObjectStore, name: str, source: str, scratch: Path) -> Path:
    """The local folder of the base: `source` itself if it is an absolute path, else a copy of that prefix."""
    if source.startswith("/"):
        return Path(source)
    prefix = source.rstrip("/") + "/"
    target = scratch / "base"
    for found in store.list(prefix):
        path = target / found.key[len(prefix) :]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.writelines(store.reader(found.key))
    if not target.is_dir():
        raise BaseModelInvalid(f"base model {name!r}: nothing lies at {prefix!r} in {store.config.place}")
    return target


def describe(name: str, folder: Path) -> BaseModel:
    """Check the folder and say what it is. Raises BaseModelInvalid with found and expected."""
    if not folder.is_dir():
        raise BaseModelInvalid(f"base model {name!r}: the folder {str(folder)!r} does not exist")
    missing = [path for path in _REQUIRED if not (folder / path).is_file()]
    if missing:
        raise BaseModelInvalid(f"base model {name!r} is incomplete: it lacks {', '.join(missing)}")
    unet, text = _json(name, folder, "unet/config.json"), _json(name, folder, "text_encoder/config.json")
    vae = _json(name, folder, "vae/config.json")
    prediction_type = _json(name, folder, "scheduler/scheduler_config.json").get("prediction_type", "epsilon")
    pipeline = _json(name, folder, "model_index.json").get("_class_name")
    width = unet.get("cross_attention_dim")
    _expect(name, "model_index.json: _class_name", pipeline, ("StableDiffusionPipeline",))
    _expect(name, "unet/config.json: cross_attention_dim", width, _WIDTHS)
    _expect(name, "text_encoder/config.json: hidden_size", text.get("hidden_size"), (width,))
    _expect(name, "unet/config.json: in_channels", unet.get("in_channels"), (vae.get("latent_channels"),))
    _expect(name, "scheduler/scheduler_config.json: prediction_type", prediction_type, _PREDICTION_TYPES)
    vae_factor = 2 ** (len(vae.get("block_out_channels", ())) - 1)
    return BaseModel(
        name=name,
        folder=folder,
        architecture=_ARCHITECTURES[width, prediction_type],
        precision=_PRECISIONS[_expect(name, UNET_WEIGHTS, dtype_of(name, folder / UNET_WEIGHTS), tuple(_PRECISIONS))],
        prediction_type=str(prediction_type),
        resolution_px=int(unet.get("sample_size") or 64) * vae_factor,
        vae_factor=vae_factor,
    )


def header_of(name: str, path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file without `__metadata__`: {tensor: {"dtype": ..., "shape": ...}}."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, 100_000_000)))
        return {key: value for key, value in header.items() if key != "__metadata__"}
    except (struct.error, ValueError, AttributeError) as error:
        raise BaseModelInvalid(f"base model {name!r}: {path.name} is not a safetensors file ({error})") from error


def dtype_of(name: str, path: Path) -> str:
    """The dtype of most numbers of a safetensors file, as its header writes it ("F16")."""
    counts: dict[str, int] = {}
    for entry in header_of(name, path).values():
        size = 1
        for length in entry["shape"]:
            size *= length
        counts[entry["dtype"]] = counts.get(entry["dtype"], 0) + size
    return max(counts, key=lambda dtype: counts[dtype], default="none")


def _expect(name: str, where: str, found: Any, allowed: tuple[Any, ...]) -> Any:
    if found not in allowed:
        expected = " or ".join(repr(value) for value in allowed)
        raise BaseModelInvalid(f"base model {name!r} cannot be trained here: {where} is {found!r}, expected {expected}")
    return found


def _json(name: str, folder: Path, path: str) -> Mapping[str, Any]:
    try:
        record = json.loads((folder / path).read_bytes())
    except ValueError as error:
        raise BaseModelInvalid(f"base model {name!r}: {path} is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise BaseModelInvalid(f"base model {name!r}: {path} is not a JSON object")
    return record
