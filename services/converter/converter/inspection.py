"""What the headers of a checkpoint say, all in one record. The server answers Inspect with it, `plan` builds on it."""

from collections.abc import Mapping
from dataclasses import dataclass

from artifacts.checkpoints import Manifest

from converter import architecture, canonical
from converter.canonical import Model
from converter.sources import Source
from converter.tensors import main_precision

_PREDICTION_TYPES = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon", "eps": "epsilon"}


@dataclass(frozen=True)
class Inspection:
    """See the proto's Inspection. model: the named tensors, for architectures whose table is known (sd15)."""

    format: str
    architecture: str
    precision: str
    prediction_type: str
    num_tensors: int
    num_bytes: int
    components: tuple[str, ...]
    metadata: Mapping[str, str]
    num_bytes_read: int
    model: Model | None

    @property
    def missing(self) -> tuple[str, ...]:
        """Names that the architecture needs and the checkpoint lacks."""
        return self.model.missing if self.model else ()

    @property
    def unexpected(self) -> tuple[str, ...]:
        """Names that the architecture does not know."""
        return self.model.unexpected if self.model else ()


def inspect(source: Source, manifest: Manifest | None = None) -> Inspection:
    """Judge an opened source; `manifest` fills in the prediction type that weights alone do not tell."""
    shapes = {tensor.name: tensor.shape for tensor in source.tensors}
    prediction_type = _prediction_type(source, manifest)
    kind = architecture.detect(shapes, prediction_type)
    return Inspection(
        format=source.format,
        architecture=kind,
        precision=main_precision((tensor.dtype, tensor.num_bytes) for tensor in source.tensors),
        prediction_type=prediction_type,
        num_tensors=len(source.tensors),
        num_bytes=sum(tensor.num_bytes for tensor in source.tensors),
        components=source.components or architecture.components(shapes),
        metadata=source.metadata,
        num_bytes_read=source.meter.num_bytes,
        model=canonical.as_sd15(source) if kind == "sd15" else None,
    )


def _prediction_type(source: Source, manifest: Manifest | None) -> str:
    """The scheduler's configuration, else the file's metadata, else its marker tensor, else the manifest."""
    if source.prediction_type:
        return source.prediction_type
    said = source.metadata.get("modelspec.prediction_type", "").lower()
    if said in _PREDICTION_TYPES:
        return _PREDICTION_TYPES[said]
    if any(tensor.name == "v_pred" for tensor in source.tensors):
        return "v_prediction"
    return manifest.prediction_type if manifest else ""
