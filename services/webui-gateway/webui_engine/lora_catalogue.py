"""Which LoRAs there are, under which names: files of local folders, and LoRA checkpoints published in the bucket.

`catalogue.py` holds one of these; the routes list it, `planning.py` looks up the names of a prompt's tags. It reads headers and
digests, no weights.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from artifacts.checkpoints import Manifest

from webui_engine import lora_files
from webui_engine.digests import DigestCache
from webui_engine.errors import UnknownName
from webui_engine.lora_tags import Tag
from webui_engine.published import Published

KIND: Final = "lora"
"""The kind of such a checkpoint in its manifest."""
KOHYA_FILE: Final = "lora.safetensors"
"""The file of a checkpoint in the layout that A1111 and this engine read."""
_SHA_DIGITS: Final = 10
_NOT_IN_A_TAG: Final = re.compile(r"[:<>=]")
# What kohya's scripts call the families in `ss_base_model_version`.
_KOHYA_FAMILIES: Final = {"sd15": "sd_v1", "sd21": "sd_v2", "sdxl": "sdxl_base_v1-0"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lora:
    """One LoRA. path: where it lies, or will after download. family: "sd15", "sd21", ..., "" if its file does not tell.

    base_model: what it was trained on, "" if unknown. metadata: of the file, or the same said by the manifest.
    """

    name: str
    alias: str
    path: Path
    family: str
    base_model: str
    sha256: str
    metadata: dict[str, str] = field(default_factory=dict)
    manifest: Manifest | None = None

    @property
    def aliases(self) -> frozenset[str]:
        """Every name that means this LoRA, in lower case."""
        names = {self.name, self.alias, self.path.name}
        if self.manifest is not None:
            names = (names - {self.path.name}) | {f"checkpoints/{self.name}", self.manifest.title or self.name}
        return frozenset(name.lower() for name in names)


@dataclass(frozen=True)
class LoraUse:
    """A LoRA as a request uses it; `tag` has its weights."""

    lora: Lora
    tag: Tag


class Loras:
    """The LoRAs of this engine. Local folders are read by `refresh`, the bucket whenever its list is asked for."""

    def __init__(self, folders: Sequence[Path], cache_folder: Path, published: Published | None = None) -> None:
        self._folders = folders
        self._cache_folder = cache_folder
        self._published = published
        self._digests = DigestCache(cache_folder / "lora-digests.json")
        self._local: tuple[Lora, ...] = ()

    def refresh(self) -> None:
        """Read the folders again and forget the list of the bucket. New files are read once for their digest."""
        self._local = tuple(sorted(self._scan(), key=lambda lora: lora.name))
        if self._published:
            self._published.refresh()

    def all(self) -> list[Lora]:
        """Local ones by name, then published ones by id; those listed last time if the bucket is silent."""
        manifests = self._published.list() if self._published else []
        return [*self._local, *(lora for manifest in manifests if (lora := self._as_lora(manifest)))]

    def find(self, name: str, field: str = "prompt") -> Lora:
        """The LoRA of a name or alias.

        Raises UnknownName with those that there are; StoreDown if it may be a checkpoint and the bucket does not answer.
        """
        wanted = name.strip().lower()
        if found := _first(self.all(), wanted):
            return found
        if self._published:
            self._published.refresh()
            self._published.list(required=True)
            if found := _first(self.all(), wanted):
                return found
        raise UnknownName(field, "LoRA", name, (lora.name for lora in self.all()))

    def resolve(self, tags: Iterable[Tag], field: str = "prompt") -> tuple[LoraUse, ...]:
        """What the tags of a prompt mean, in their order. Raises what `find` raises."""
        return tuple(LoraUse(self.find(tag.name, field), tag) for tag in tags)

    def _scan(self) -> Iterable[Lora]:
        for folder in self._folders:
            if not folder.is_dir():
                _log.warning("LoRA folder %s does not exist", folder)
                continue
            for path in sorted(folder.rglob("*.safetensors")):  # A1111's folder has sub-folders
                if path.name.startswith(".") or not path.is_file():
                    continue
                try:
                    metadata, shapes = lora_files.read_header(path)
                except (OSError, ValueError) as error:
                    _log.warning("%s is left out: %s", path, error)
                    continue
                alias = _usable(metadata.get("ss_output_name", ""), path.stem)
                base = metadata.get("ss_sd_model_name", "")
                family = lora_files.family_of(shapes)
                yield Lora(path.stem, alias, path, family, base, self._digests.sha256(path), metadata)

    def _as_lora(self, manifest: Manifest) -> Lora | None:
        if manifest.kind != KIND:
            return None
        entry = manifest.file(KOHYA_FILE)
        if entry is None:
            _log.warning("LoRA checkpoint %r is left out: it has no file %r", manifest.id, KOHYA_FILE)
            return None
        # The digest in the folder's name: an id that is deleted and published again is another LoRA.
        folder = self._cache_folder / "checkpoints" / f"{manifest.id}-{entry.sha256[:_SHA_DIGITS]}"
        return Lora(
            name=manifest.id,
            alias=_usable(manifest.title, manifest.id),
            path=folder / KOHYA_FILE,
            family=manifest.architecture.split("-")[0],
            base_model=manifest.base_model,
            sha256=entry.sha256,
            metadata=_as_metadata(manifest),
            manifest=manifest,
        )


def _first(loras: Sequence[Lora], wanted: str) -> Lora | None:
    """The LoRA whose own name it is, before those of which it is another alias."""
    named = next((lora for lora in loras if wanted == lora.name.lower()), None)
    return named or next((lora for lora in loras if wanted in lora.aliases), None)


def _usable(alias: str, name: str) -> str:
    """The alias if a tag can say it, else the name."""
    return alias if alias and not _NOT_IN_A_TAG.search(alias) else name


def _as_metadata(manifest: Manifest) -> dict[str, str]:
    """What clients of A1111 look for in a LoRA, in the words of kohya's scripts."""
    recipe = manifest.recipe.get("lora")
    lora = recipe if isinstance(recipe, dict) else {}
    family = manifest.architecture.split("-")[0]
    version = _KOHYA_FAMILIES.get(family, family)
    if family == "sd21" and manifest.prediction_type == "v_prediction":
        version += "_v"
    said = {
        "ss_output_name": manifest.id,
        "ss_sd_model_name": manifest.base_model,
        "ss_base_model_version": version,
        "ss_v2": str(family == "sd21"),
        "ss_network_dim": lora.get("rank"),
        "ss_network_alpha": lora.get("alpha"),
        "ss_resolution": f"({manifest.resolution}, {manifest.resolution})" if manifest.resolution else None,
    }
    return {key: str(value) for key, value in said.items() if value is not None}
