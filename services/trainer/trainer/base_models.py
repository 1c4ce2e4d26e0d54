"""The base models that runs can start from: folders in the diffusers layout, on this machine or in the bucket.

`training` looks them up before a run is accepted. The gateway keeps a richer registry of its own; services share only
the bucket.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.errors import NotFound
from artifacts.store import ObjectStore

from trainer.errors import BaseModelUnknown, BaseModelUnsupported, ResolutionUnsupported

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# Width of the text encoder's output, by which the versions of Stable Diffusion differ.
_ARCHITECTURES = {768: "sd15", 1024: "sd21"}

ReadsFile = Callable[[str], bytes]


@dataclass(frozen=True)
class BaseModel:
    """One entry of the registry.

    source: absolute folder, or a prefix of the bucket such as "models/sd15-tiny". native_px: edge it was trained at.
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
                local = self._folder / name
                return describe(name, str(local), lambda path: (local / path).read_bytes())
            prefix = f"models/{name}"
            if self._store.exists(f"{prefix}/model_index.json"):
                return describe(name, prefix, lambda path: self._store.get(f"{prefix}/{path}"))
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


def describe(name: str, source: str, read: ReadsFile) -> BaseModel:
    """Resolution and architecture from the model's own configuration. Raises BaseModelUnsupported."""
    kind = _read(name, read, "model_index.json").get("_class_name")
    if kind != "StableDiffusionPipeline":
        raise BaseModelUnsupported(name, f"it is a {kind}, and only StableDiffusionPipeline is known")
    unet, vae = (_read(name, read, f"{part}/config.json") for part in ("unet", "vae"))
    try:
        vae_factor = 2 ** (len(vae["block_out_channels"]) - 1)
        unet_factor = 2 ** (len(unet["block_out_channels"]) - 1)
        native_px, width = int(unet["sample_size"]) * vae_factor, unet["cross_attention_dim"]
    except (KeyError, TypeError, ValueError) as error:
        raise BaseModelUnsupported(name, f"unet/config.json or vae/config.json lacks {error}") from error
    if width not in _ARCHITECTURES:
        raise BaseModelUnsupported(name, f"its text encoder is {width} wide; known are {list(_ARCHITECTURES)}")
    return BaseModel(name, source, _ARCHITECTURES[width], native_px, vae_factor * unet_factor)


def _read(name: str, read: ReadsFile, path: str) -> dict[str, Any]:
    try:
        fields = json.loads(read(path))
    except (FileNotFoundError, NotFound) as error:
        raise BaseModelUnsupported(name, f"its folder has no {path}") from error
    except ValueError as error:
        raise BaseModelUnsupported(name, f"{path} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BaseModelUnsupported(name, f"{path} holds no JSON object")
    return fields
