"""The model registry: predefined base models, local folders, published checkpoints and what back ends list, as one table.

Domain. `refresh` is given what the adapters found; lookups take any alias and refuse what no model has.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from artifacts.checkpoints import Manifest

from webui_gateway.architectures import PREDEFINED, BaseModel, trained_from
from webui_gateway.errors import ModelUnavailable, PrecisionUnsupported, ResolutionUnsupported, UnknownModel

UNKNOWN_NATIVE_PX = 512
# Kinds of checkpoints that no picture can be drawn with alone.
_PARTS = ("lora", "controlnet", "vae")


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
    """A model and where it can be drawn with. backends: URLs; empty means its weights are nowhere."""

    name: str
    spec: BaseModel
    title: str
    sha256: str = ""
    checkpoint: str = ""
    base_model: str = ""
    backends: frozenset[str] = frozenset()
    verified: bool = True

    @property
    def aliases(self) -> frozenset[str]:
        """Every string that means this model."""
        short = self.sha256[:10]
        names = {self.name, self.title, self.sha256, short, f"{self.name} [{short}]", self.checkpoint}
        return frozenset(name.lower() for name in names if name)


class ModelRegistry:
    """All models that are known at the moment."""

    def __init__(self, local: Iterable[BaseModel], default_model: str = "") -> None:
        self._local = {model.name: model for model in local}
        self._models: dict[str, Model] = {}
        self.selected = default_model
        self.refresh({}, ())

    def refresh(self, listings: Mapping[str, Sequence[Listing]], manifests: Iterable[Manifest]) -> None:
        """Rebuild the table. listings: by URL of the back end."""
        specs = {model.name: model for model in PREDEFINED} | self._local
        published = {manifest.id: manifest for manifest in manifests if manifest.kind not in _PARTS}
        where: dict[str, dict[str, Listing]] = {}
        for url, lines in listings.items():
            for line in lines:
                where.setdefault(line.model_name, {})[url] = line
        names = sorted({*specs, *published, *where})
        self._models = {name: self._entry(name, specs, published.get(name), where.get(name, {})) for name in names}

    def all(self) -> list[Model]:
        """Every model in order of name."""
        return list(self._models.values())

    def find(self, name: str) -> Model:
        """The model of a name, title or hash. Raises UnknownModel with the nearest titles."""
        wanted = name.strip().removeprefix("models/").lower()
        for model in self._models.values():
            if wanted in model.aliases:
                return model
        raise UnknownModel(
            name.removeprefix("models/"), (model.title for model in self._models.values() if model.backends)
        )

    def usable(self, name: str) -> Model:
        """The model of a name, or the selected one for "". Raises UnknownModel, ModelUnavailable."""
        model = self.find(name or self.selected) if name or self.selected else self._first()
        if not model.backends:
            raise ModelUnavailable(model.name)
        return model

    def select(self, name: str) -> Model:
        """Make a model that of requests that name none. Raises UnknownModel, ModelUnavailable."""
        model = self.usable(name)
        self.selected = model.name
        return model

    def _first(self) -> Model:
        for model in self._models.values():
            if model.backends:
                return model
        raise UnknownModel("", ())

    def _entry(
        self, name: str, specs: Mapping[str, BaseModel], manifest: Manifest | None, lines: Mapping[str, Listing]
    ) -> Model:
        line = next(iter(lines.values()), None)
        spec = specs.get(name)
        if manifest is not None:
            spec = trained_from(
                name,
                manifest.architecture,
                manifest.prediction_type,
                manifest.resolution,
                specs.get(manifest.base_model),
            )
        return Model(
            name=name,
            spec=spec or BaseModel(name, "unknown", "", UNKNOWN_NATIVE_PX),
            title=line.title if line else name,
            sha256=line.sha256 if line else "",
            checkpoint=f"checkpoints/{name}" if manifest else "",
            base_model=manifest.base_model if manifest else "",
            backends=frozenset(lines),
            # A file that only a foreign back end knows: nothing can be said about it, so nothing is refused.
            verified=spec is not None,
        )


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
