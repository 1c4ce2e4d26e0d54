"""Which models there are, under which names: local folders and files, and checkpoints published in the bucket.

The routes list it, `planning.py` looks names up in it, `pipelines.py` loads what it finds. It reads no weights but for digests.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from artifacts.checkpoints import Manifest

from webui_engine import digests
from webui_engine.digests import DigestCache
from webui_engine.errors import UnknownName
from webui_engine.lora_catalogue import Loras
from webui_engine.published import Published

SINGLE_FILE_SUFFIXES: Final = (".safetensors", ".ckpt")
PIPELINE_CLASS: Final = "StableDiffusionPipeline"
ARCHITECTURES: Final = ("sd15", "sd21-512", "sd21-768")
"""Architectures of published checkpoints that `generate.py` can draw with."""
NOT_PIPELINES: Final = ("lora", "controlnet", "vae", "embedding")
SHORT_HASH_DIGITS: Final = 10

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """One model. name: without suffix and hash. file_name: as in the title. path: where it lies, or will after download.

    source: "folder" (diffusers), "file" (.safetensors, .ckpt) or "checkpoint" (in the bucket, `manifest` set).
    """

    name: str
    file_name: str
    path: Path
    source: Literal["folder", "file", "checkpoint"]
    sha256: str
    manifest: Manifest | None = None

    @property
    def short_hash(self) -> str:
        """The first 10 digits of the sha256."""
        return self.sha256[:SHORT_HASH_DIGITS]

    @property
    def title(self) -> str:
        """ "name [short hash]", as A1111 shows it."""
        return f"{self.file_name} [{self.short_hash}]"

    @property
    def aliases(self) -> frozenset[str]:
        """Every name that means this model, in lower case."""
        names = {self.title, self.name, self.file_name, self.sha256, self.short_hash, str(self.path)}
        names |= {f"{self.name} [{self.short_hash}]", self.path.name, self.path.stem}
        if self.manifest is not None:
            names = (names - {self.path.name, self.path.stem}) | {f"checkpoints/{self.name}"}
            names |= {self.manifest.title} if self.manifest.title else set()
        return frozenset(name.lower() for name in names)


@dataclass(frozen=True)
class ControlNet:
    """A diffusers ControlNet folder; `title` is "name [8 hex digits]" as sd-webui-controlnet shows it."""

    name: str
    path: Path
    legacy_hash: str

    @property
    def title(self) -> str:
        """What GET /controlnet/model_list shows."""
        return f"{self.name} [{self.legacy_hash}]"


class Catalogue:
    """The models of this engine; `loras` are those of prompts. `refresh` reads local folders, the bucket is read whenever its
    list is asked for."""

    def __init__(
        self,
        model_folders: Sequence[Path],
        controlnet_folders: Sequence[Path],
        cache_folder: Path,
        published: Published | None = None,
        lora_folders: Sequence[Path] = (),
    ) -> None:
        self.loras = Loras(lora_folders, cache_folder, published)
        self._model_folders = model_folders
        self._controlnet_folders = controlnet_folders
        self._published = published
        self._cache_folder = cache_folder
        self._digests = DigestCache(cache_folder / "digests.json")
        self._local: tuple[Model, ...] = ()
        self._control_nets: tuple[ControlNet, ...] = ()

    def refresh(self) -> None:
        """Read the folders again and forget the list of the bucket. New files are read once for their digest."""
        self._local = tuple(sorted(self._scan_models(), key=lambda model: model.name))
        self._control_nets = tuple(sorted(self._scan_control_nets(), key=lambda net: net.name))
        self.loras.refresh()
        if self._published:
            self._published.refresh()

    def models(self) -> list[Model]:
        """Local models by name, then published checkpoints by id; those listed last time if the bucket is silent."""
        manifests = self._published.list() if self._published else []
        return [*self._local, *(model for manifest in manifests if (model := self._as_model(manifest)))]

    def find(self, name: str, field: str = "sd_model_checkpoint") -> Model:
        """The model of any alias: title, name, file name, sha256, short hash, path.

        Raises UnknownName; StoreDown if it may be a checkpoint and the bucket does not answer.
        """
        wanted = name.strip().lower()
        if found := _first(self.models(), wanted):
            return found
        if self._published:
            self._published.refresh()
            self._published.list(required=True)
            if found := _first(self.models(), wanted):
                return found
        raise UnknownName(field, "checkpoint", name, (model.title for model in self.models()))

    def base_folders(self) -> list[Model]:
        """Local diffusers folders: where single files find their configuration and tokenizer."""
        return [model for model in self._local if model.source == "folder"]

    def control_nets(self) -> tuple[ControlNet, ...]:
        """The control nets by name."""
        return self._control_nets

    def find_control_net(self, name: str) -> ControlNet:
        """The control net of a title or name. Raises UnknownName."""
        wanted = name.strip().lower()
        for net in self._control_nets:
            if wanted in (net.title.lower(), net.name.lower(), net.legacy_hash):
                return net
        raise UnknownName("model", "control net", name, (net.title for net in self._control_nets))

    def _scan_models(self) -> Iterable[Model]:
        for path in _children(self._model_folders):
            if path.suffix in SINGLE_FILE_SUFFIXES and path.is_file():
                yield Model(path.stem, path.name, path, "file", self._digests.sha256(path))
            elif _pipeline_class(path) == PIPELINE_CLASS:
                yield Model(path.name, path.name, path, "folder", self._digests.folder_sha256(path))

    def _scan_control_nets(self) -> Iterable[ControlNet]:
        for path in _children(self._controlnet_folders):
            weights = path / "diffusion_pytorch_model.safetensors"
            if _class_name(path / "config.json") == "ControlNetModel" and weights.is_file():
                yield ControlNet(path.name, path, digests.legacy_hash(weights))

    def _as_model(self, manifest: Manifest) -> Model | None:
        if manifest.architecture not in ARCHITECTURES or manifest.kind in NOT_PIPELINES:
            return None
        weights = [entry for entry in manifest.files if Path(entry.path).suffix in SINGLE_FILE_SUFFIXES]
        if manifest.format == "diffusers":
            sha256, suffix = digests.combine((entry.path, entry.sha256) for entry in manifest.files), ""
        elif manifest.format in ("safetensors", "ckpt") and len(weights) == 1:
            sha256, suffix = weights[0].sha256, weights[0].path.rpartition("/")[2]
        else:
            _log.warning("checkpoint %r is left out: format %r", manifest.id, manifest.format)
            return None
        # The digest in the folder's name: an id that is deleted and published again is another model.
        path = self._cache_folder / "checkpoints" / f"{manifest.id}-{sha256[:SHORT_HASH_DIGITS]}" / suffix
        return Model(manifest.id, manifest.id, path, "checkpoint", sha256, manifest)


def _first(models: Sequence[Model], wanted: str) -> Model | None:
    """The model whose own name it is, before those of which it is another alias."""
    for model in models:
        if wanted in (model.title.lower(), model.name.lower()):
            return model
    return next((model for model in models if wanted in model.aliases), None)


def _children(folders: Sequence[Path]) -> Iterable[Path]:
    for folder in folders:
        if not folder.is_dir():
            _log.warning("model folder %s does not exist", folder)
            continue
        yield from (path for path in folder.iterdir() if not path.name.startswith("."))


def _pipeline_class(folder: Path) -> str:
    name = _class_name(folder / "model_index.json")
    if name not in ("", PIPELINE_CLASS):
        _log.warning("%s is left out: it is a %s, this engine draws with %s", folder, name, PIPELINE_CLASS)
    return name


def _class_name(file: Path) -> str:
    if not file.is_file():
        return ""
    try:
        return str(json.loads(file.read_text()).get("_class_name", ""))
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        _log.warning("%s is left out: %s", file.parent, error)
        return ""
