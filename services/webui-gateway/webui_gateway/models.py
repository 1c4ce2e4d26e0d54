"""The model registry: predefined base models, local folders, published checkpoints and what back ends list, as one table.

Domain. `refresh` is given what the adapters found; lookups take any alias and refuse what no model has.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from artifacts.checkpoints import Manifest

from webui_gateway.architectures import PREDEFINED, BaseModel, Width, trained_from
from webui_gateway.errors import ModelUnavailable, PrecisionUnsupported, ResolutionUnsupported, UnknownModel

UNKNOWN_NATIVE_PX: Final = 512
SHORT_HASH_DIGITS: Final = 10
# Kinds of checkpoints that no picture can be drawn with alone.
_PARTS: Final = ("lora", "controlnet", "vae", "embedding")


@dataclass(frozen=True)
class Listing:
    """One line of a back end's sd-models."""

    title: str
    model_name: str
    sha256: str = ""
    hash: str = ""
    filename: str = ""


@dataclass(frozen=True)
class Model:
    """A model and where it can be drawn with. titles: what each back end that has it calls it, by URL; empty means its
    weights are nowhere. verified: its abilities are known, so that what it cannot do is refused."""

    name: str
    spec: BaseModel
    title: str
    sha256: str = ""
    checkpoint: str = ""
    base_model: str = ""
    titles: Mapping[str, str] = field(default_factory=dict)
    verified: bool = True
    other_names: frozenset[str] = frozenset()

    @property
    def available(self) -> bool:
        """Whether some back end has its weights."""
        return bool(self.titles)

    @property
    def aliases(self) -> frozenset[str]:
        """Every string that means this model, in lower case."""
        short = self.sha256[:SHORT_HASH_DIGITS]
        names = {self.name, self.title, self.sha256, short, f"{self.name} [{short}]", self.checkpoint}
        names |= set(self.titles.values()) | self.other_names
        names |= {title.split(" [")[0] for title in names if " [" in title}
        return frozenset(name.lower() for name in names if name)


class ModelRegistry:
    """All models that are known at the moment."""

    def __init__(self, local: Iterable[BaseModel], default_model: str = "") -> None:
        self._specs = {model.name: model for model in (*PREDEFINED, *local)}
        self._models: dict[str, Model] = {}
        self.selected = default_model
        self.refresh({}, ())

    def refresh(self, listings: Mapping[str, Sequence[Listing]], manifests: Iterable[Manifest]) -> None:
        """Rebuild the table. listings: by URL of the back end."""
        published = {manifest.id: manifest for manifest in manifests if manifest.kind not in _PARTS}
        where = _by_name(listings)
        self._models = {
            name: self._entry(name, published, where.get(name, {}))
            for name in sorted({*self._specs, *published, *where})
        }

    def all(self) -> list[Model]:
        """Every model in order of name."""
        return list(self._models.values())

    def find(self, name: str) -> Model:
        """The model of a name, title or hash. Raises UnknownModel with the nearest titles."""
        wanted = name.strip().removeprefix("models/").lower()
        for model in self._models.values():
            if wanted in (model.name.lower(), model.title.lower()):
                return model
        for model in self._models.values():
            if wanted in model.aliases:
                return model
        raise UnknownModel(
            name.removeprefix("models/"), (model.title for model in self._models.values() if model.available)
        )

    def usable(self, name: str) -> Model:
        """The model of a name, or the selected one for "". Raises UnknownModel, ModelUnavailable."""
        model = self.find(name or self.selected) if name or self.selected else self._first()
        if not model.available:
            raise ModelUnavailable(model.name)
        return model

    def width(self, name: str) -> Width | None:
        """The width of a model by its own name, None if it is not known."""
        model = self._models.get(name)
        return model.spec.width if model else None

    def select(self, name: str) -> Model:
        """Make a model that of requests that name none. Raises UnknownModel, ModelUnavailable."""
        model = self.usable(name)
        self.selected = model.name
        return model

    def _first(self) -> Model:
        """No checkpoint before a base model, because publishing one must not change what others draw; then one whose abilities
        are known, then one that most back ends have, then by name."""
        at_hand = [model for model in self._models.values() if model.available]
        if not at_hand:
            raise UnknownModel("", ())
        return min(at_hand, key=lambda m: (bool(m.checkpoint), not m.verified, -len(m.titles), m.name))

    def _entry(self, name: str, published: Mapping[str, Manifest], lines: Mapping[str, Listing]) -> Model:
        manifest = published.get(name)
        line = next(iter(lines.values()), None)
        spec = self._trained(manifest, published) if manifest else self._specs.get(name)
        return Model(
            name=name,
            spec=spec or BaseModel(name, "unknown", "", UNKNOWN_NATIVE_PX),
            title=line.title if line else name,
            sha256=next((line.sha256 for line in lines.values() if line.sha256), ""),
            checkpoint=f"checkpoints/{name}" if manifest else "",
            base_model=manifest.base_model if manifest else "",
            titles={url: line.title for url, line in lines.items()},
            # A file that only a foreign back end knows: nothing can be said about it, so nothing is refused.
            verified=spec is not None,
            other_names=frozenset(text for line in lines.values() for text in (line.hash, _stem(line.filename)) if text)
            | frozenset((manifest.title,) if manifest and manifest.title else ()),
        )

    def _trained(self, manifest: Manifest, published: Mapping[str, Manifest]) -> BaseModel:
        """What a checkpoint can do; its base model may be a checkpoint in turn."""
        base, seen = manifest.base_model, {manifest.id}
        while base in published and base not in self._specs and base not in seen:
            seen.add(base)
            base = published[base].base_model
        return trained_from(
            manifest.id, manifest.architecture, manifest.prediction_type, manifest.resolution, self._specs.get(base)
        )


def _by_name(listings: Mapping[str, Sequence[Listing]]) -> dict[str, dict[str, Listing]]:
    """The lines of all back ends by name and URL. Different weights under one name are two models, the second with its
    hash in the name; a back end that has not computed the hash yet is believed."""
    where: dict[str, dict[str, Listing]] = {}
    for url, lines in listings.items():
        for line in lines:
            others = where.setdefault(line.model_name, {})
            known = {other.sha256 for other in others.values() if other.sha256}
            if line.sha256 and known and line.sha256 not in known:
                where.setdefault(f"{line.model_name}-{line.sha256[:SHORT_HASH_DIGITS]}", {})[url] = line
            else:
                others.setdefault(url, line)
    return where


def _stem(filename: str) -> str:
    """The file's name without folders and suffix; A1111 on Windows writes backslashes."""
    return PurePosixPath(filename.replace("\\", "/")).stem


def check_size(model: Model, width_px: int, height_px: int) -> None:
    """Raises ResolutionUnsupported naming model and size."""
    spec = model.spec
    if not model.verified:
        return
    edges = (width_px, height_px)
    if any(edge % spec.step_px for edge in edges):
        raise ResolutionUnsupported(model.name, width_px, height_px, f"edges must be multiples of {spec.step_px}")
    if min(edges) < spec.min_px or max(edges) > spec.max_px:
        rule = f"edges must be from {spec.min_px} to {spec.max_px}; it was made for {spec.native_px}"
        raise ResolutionUnsupported(model.name, width_px, height_px, rule)


def check_precision(model: Model, precision: str, offered: Iterable[str]) -> None:
    """precision: "" for any. offered: what the back ends that have the model run in. Raises PrecisionUnsupported."""
    possible = set(model.spec.precisions) & set(offered)
    if precision and precision not in possible:
        raise PrecisionUnsupported(model.name, precision, possible)
