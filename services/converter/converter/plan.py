"""Decides what a conversion writes, from headers alone: every file, every tensor in order, its dtype and its source.

`jobs` makes a plan before it accepts a conversion, so that what cannot work is refused at once, and `transfer` carries
it out. Tensors of a file are in the order of the source, so that both are streamed from front to back.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from artifacts.checkpoints import Checkpoints, Manifest

from converter import ancestry, inspection, sd15_keys
from converter.canonical import CanonicalTensor
from converter.errors import NotConvertible
from converter.sources import open_checkpoint
from converter.tensors import DTYPE_BYTES, DTYPE_OF_PRECISION, FLOATS, StoredTensor, main_precision

FORMAT_NAMES: Final = {
    "diffusers": "a Diffusers folder",
    "safetensors": "a .safetensors file",
    "ckpt": "a .ckpt file",
}
_FOLDER_PATHS: Final = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}


@dataclass(frozen=True)
class OutputTensor:
    """One tensor to write, as it is named in the output. Without `stored` its values are `constant`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    canonical_name: str = ""
    canonical_shape: tuple[int, ...] = ()
    stored: StoredTensor | None = None
    constant: bytes = b""

    @property
    def num_bytes(self) -> int:
        """Size of the values as written."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class OutputFile:
    """One weight file to write. format: "safetensors" or "ckpt"."""

    path: str
    format: str
    metadata: Mapping[str, str]
    tensors: tuple[OutputTensor, ...]


@dataclass(frozen=True)
class Plan:
    """Everything a conversion writes.

    copies: paths of small files taken over from the checkpoint `lender`. texts: small files written as they are here.
    dropped: names of the source's tensors that have no place in the result. fields: of the new manifest.
    """

    files: tuple[OutputFile, ...]
    lender: Manifest | None
    copies: tuple[str, ...]
    texts: Mapping[str, bytes]
    dropped: tuple[str, ...]
    fields: Mapping[str, Any]

    @property
    def tensors(self) -> tuple[OutputTensor, ...]:
        """The tensors that come from the source."""
        return tuple(tensor for file in self.files for tensor in file.tensors if tensor.stored is not None)

    @property
    def num_bytes(self) -> int:
        """Of those tensors, as written."""
        return sum(tensor.num_bytes for tensor in self.tensors)


def make(checkpoints: Checkpoints, manifest: Manifest, target: str, precision: str) -> Plan:
    """Plan the conversion of a checkpoint to format `target`; precision "" keeps each tensor's.

    Raises NotConvertible (AncestorMissing), CheckpointMalformed, UnsafePickle, DigestMismatch, NotFound.
    """
    source = open_checkpoint(checkpoints, manifest)
    found = inspection.inspect(source, manifest)
    model = _complete_model(manifest, found, target)
    files = {file.key: index for index, file in enumerate(source.files)}
    tensors = sorted(model, key=lambda tensor: _place(tensor, files))
    outputs = [_cast(tensor, precision) for tensor in tensors]
    if source.format == target and all(new == old.stored.dtype for old, new in zip(tensors, outputs, strict=True)):
        have = f"it is {FORMAT_NAMES[target]} in {found.precision or 'this precision'} already"
        raise NotConvertible(
            _describe(manifest), _target_text(target, precision), f"{have}; ask for another format or precision"
        )
    pairs = list(zip(tensors, outputs, strict=True))
    new_precision = main_precision((dtype, _num_values(tensor) * DTYPE_BYTES[dtype]) for tensor, dtype in pairs)
    fields = _fields(manifest, found, target, new_precision)
    dropped = found.model.dropped if found.model else ()
    if target == "diffusers":
        lender = ancestry.nearest_folder(checkpoints, manifest)
        shapes = {tensor.name: tensor.shape for tensor in tensors}
        ancestry.check_fits(checkpoints, lender, shapes, found.prediction_type, manifest.id)
        texts = {"model_index.json": ancestry.model_index(checkpoints, lender)}
        return Plan(_folder_files(pairs), lender, ancestry.lent_paths(lender), texts, dropped, fields)
    return Plan((_single_file(pairs, target, fields),), None, (), {}, dropped, fields)


def _complete_model(manifest: Manifest, found: inspection.Inspection, target: str) -> tuple[CanonicalTensor, ...]:
    """The named tensors, if it is a whole SD1.5 model. Raises NotConvertible."""

    def refuse(problem: str) -> NotConvertible:
        return NotConvertible(_describe(manifest), FORMAT_NAMES[target], problem)

    if found.model is None:
        raise refuse(f"its architecture is {found.architecture!r}, and sd15 is the one that can be converted")
    if found.missing:
        raise refuse(f"it lacks {len(found.missing)} tensors of sd15, the first is {found.missing[0]!r}")
    if found.unexpected:
        raise refuse(f"sd15 does not know {len(found.unexpected)} of its tensors, the first is {found.unexpected[0]!r}")
    return found.model.tensors


def _place(tensor: CanonicalTensor, files: Mapping[str, int]) -> tuple[int, int, tuple[int, int]]:
    """Wide dtypes first, which keeps all values aligned; then as the source stores them."""
    stored = tensor.stored
    return (-DTYPE_BYTES[stored.dtype], files[stored.file.key], stored.order)


def _cast(tensor: CanonicalTensor, precision: str) -> str:
    """The dtype to write; integers are never cast."""
    dtype = tensor.stored.dtype
    return DTYPE_OF_PRECISION[precision] if precision and dtype in FLOATS else dtype


def _num_values(tensor: CanonicalTensor) -> int:
    return math.prod(tensor.shape)


def _folder_files(pairs: list[tuple[CanonicalTensor, str]]) -> tuple[OutputFile, ...]:
    """Components in the order in which the source has them, so that it is still read in one pass."""
    by_component: dict[str, list[OutputTensor]] = {}
    for tensor, dtype in pairs:
        component, _, name = tensor.name.partition(".")
        output = OutputTensor(name, dtype, tensor.shape, tensor.name, tensor.shape, tensor.stored)
        by_component.setdefault(component, []).append(output)
    return tuple(
        # transformers refuses a file that does not say "pt".
        OutputFile(_FOLDER_PATHS[component], "safetensors", {"format": "pt"}, tuple(tensors))
        for component, tensors in by_component.items()
    )


def _single_file(pairs: list[tuple[CanonicalTensor, str]], target: str, fields: Mapping[str, Any]) -> OutputFile:
    outputs = [
        OutputTensor(tensor.rule.ldm_name, dtype, tensor.ldm_shape, tensor.name, tensor.shape, tensor.stored)
        for tensor, dtype in pairs
    ]
    constants = [_position_ids(pairs)]
    if fields["prediction_type"] == "v_prediction":
        constants.append(OutputTensor("v_pred", "F32", (0,)))  # the marker by which A1111 and ComfyUI know it
    return OutputFile(f"model.{target}", target, _metadata(fields), (*constants, *outputs))


def _position_ids(pairs: list[tuple[CanonicalTensor, str]]) -> OutputTensor:
    """0, 1, 2 ... as int64: a buffer that Diffusers leaves out and some readers of single files demand."""
    name = "text_encoder.text_model.embeddings.position_embedding.weight"
    (count,) = (tensor.shape[0] for tensor, _ in pairs if tensor.name == name)
    values = b"".join(position.to_bytes(8, "little") for position in range(count))
    return OutputTensor(sd15_keys.POSITION_IDS, "I64", (1, count), constant=values)


def _metadata(fields: Mapping[str, Any]) -> dict[str, str]:
    """ModelSpec 1.0.1 of a single .safetensors file."""
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1",
        "modelspec.implementation": "https://github.com/CompVis/stable-diffusion",
        "modelspec.title": fields["title"] or fields["parents"][0],
    }
    if fields["resolution"]:
        metadata["modelspec.resolution"] = f"{fields['resolution']}x{fields['resolution']}"
    if fields["prediction_type"]:
        metadata["modelspec.prediction_type"] = {"v_prediction": "v"}.get(
            fields["prediction_type"], fields["prediction_type"]
        )
    return metadata


def _fields(manifest: Manifest, found: inspection.Inspection, target: str, precision: str) -> dict[str, Any]:
    return {
        "format": target,
        "architecture": found.architecture,
        "kind": manifest.kind,
        "precision": precision,
        "prediction_type": found.prediction_type,
        "resolution": manifest.resolution,
        "base_model": manifest.base_model,
        "parents": (manifest.id,),
        "session": manifest.session,
        "run": manifest.run,
        "title": manifest.title,
    }


def _describe(manifest: Manifest) -> str:
    return f"checkpoint {manifest.id!r} ({manifest.format})"


def _target_text(target: str, precision: str) -> str:
    return FORMAT_NAMES[target] + (f" in {precision}" if precision else "")
