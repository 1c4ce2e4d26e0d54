"""Opens a checkpoint of any layout: which tensors it has, under which names, and where their bytes lie.

`inspection` and `plan` call this. Only headers are read. Names stay as they are stored, but those of a Diffusers folder
get their component in front ("unet.conv_in.weight").
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from artifacts.checkpoints import Checkpoints, Manifest
from artifacts.store import ObjectStore

from converter import ckpt_format, pickle_data, safetensors_format
from converter.errors import CheckpointMalformed, UnsafePickle
from converter.stored import Meter, StoredFile, open_file, open_object
from converter.tensors import StoredTensor

_LORA_FILE: Final = "lora.safetensors"  # kohya's layout, as the trainer publishes it
_WEIGHT_NAMES: Final = ("diffusion_pytorch_model", "model")
_MAX_JSON_BYTES: Final = 2 * 1024**2
_PROBE_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Source:
    """An opened checkpoint.

    format: "diffusers", "safetensors" or "ckpt". metadata: of the file's header. components: folders that
    model_index.json lists, for a Diffusers folder. prediction_type: what the scheduler's configuration says, or "".
    """

    name: str
    format: str
    tensors: tuple[StoredTensor, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    components: tuple[str, ...] = ()
    prediction_type: str = ""
    meter: Meter = field(default_factory=Meter)

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """The files that hold tensors, each once."""
        return tuple({tensor.file.key: tensor.file for tensor in self.tensors}.values())


def open_checkpoint(checkpoints: Checkpoints, manifest: Manifest) -> Source:
    """Open a checkpoint by its manifest. Raises CheckpointMalformed, DigestMismatch, NotFound."""
    meter = Meter()
    if manifest.format == "diffusers":
        return _open_folder(checkpoints, manifest, meter)
    weights = [entry.path for entry in manifest.files if entry.path.endswith((".safetensors", ".ckpt"))]
    if manifest.kind == "lora" and _LORA_FILE in weights:  # the same adapters lie beside it in the other layout
        weights = [_LORA_FILE]
    if len(weights) != 1:
        raise CheckpointMalformed(
            manifest.id, f"{len(weights)} weight files, expected 1 for format {manifest.format!r}"
        )
    return _open_single(open_file(checkpoints, manifest, weights[0], meter), meter)


def open_key(store: ObjectStore, key: str) -> Source:
    """Open a single file by its key. Raises NotFound, CheckpointMalformed, UnsafePickle."""
    meter = Meter()
    return _open_single(open_object(store, key, meter), meter)


def _open_single(file: StoredFile, meter: Meter) -> Source:
    """Told apart by their first bytes, never by the file's name."""
    start = file.read(0, min(file.size_bytes, 16))
    if start.startswith(b"PK\x03\x04"):
        contents = ckpt_format.read_contents(file)
        return Source(file.name, "ckpt", contents.tensors, contents.metadata, meter=meter)
    if len(start) == 16 and start[8:9] == b"{":
        header = safetensors_format.read_header(file)
        return Source(file.name, "safetensors", header.tensors, header.metadata, meter=meter)
    raise _unknown_format(file, start)


def _unknown_format(file: StoredFile, start: bytes) -> CheckpointMalformed:
    """Say what the file is instead. A bare pickle is looked into, so that a hostile one is called by its name."""
    if start.startswith(b"\x80"):
        try:
            pickle_data.load(file.name, file.read(0, min(file.size_bytes, _PROBE_BYTES)))
        except UnsafePickle as error:
            return error
        except CheckpointMalformed:
            pass  # not even a pickle; the general answer says so
        return CheckpointMalformed(
            file.name, "it is a bare pickle (torch before 1.6), which has no index; save it again with a newer torch"
        )
    return CheckpointMalformed(file.name, "it begins neither like a safetensors file nor like a .ckpt (zip)")


def _open_folder(checkpoints: Checkpoints, manifest: Manifest, meter: Meter) -> Source:
    index = read_json(checkpoints, manifest, "model_index.json", meter)
    components = [name for name, value in index.items() if not name.startswith("_") and _is_component(value)]
    tensors: list[StoredTensor] = []
    for component in components:
        for path in _weight_paths(checkpoints, manifest, component, meter):
            header = safetensors_format.read_header(open_file(checkpoints, manifest, path, meter))
            tensors += (_within(component, tensor) for tensor in header.tensors)
    names = {tensor.name for tensor in tensors}
    if len(names) != len(tensors):
        raise CheckpointMalformed(manifest.id, "two files of one component hold a tensor of the same name")
    prediction_type = ""
    if manifest.file("scheduler/scheduler_config.json") is not None:
        scheduler = read_json(checkpoints, manifest, "scheduler/scheduler_config.json", meter)
        prediction_type = str(scheduler.get("prediction_type", "epsilon"))
    return Source(manifest.id, "diffusers", tuple(tensors), {}, tuple(components), prediction_type, meter)


def read_json(checkpoints: Checkpoints, manifest: Manifest, path: str, meter: Meter | None = None) -> dict[str, Any]:
    """A small JSON object of the checkpoint, verified. Raises CheckpointMalformed, NotFound, DigestMismatch."""
    entry = manifest.file(path)
    if entry is not None and entry.size_bytes > _MAX_JSON_BYTES:
        raise CheckpointMalformed(f"{manifest.id}/{path}", f"{entry.size_bytes} bytes, the limit is {_MAX_JSON_BYTES}")
    data = checkpoints.read_file(manifest, path)
    if meter is not None:
        meter.num_bytes += len(data)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointMalformed(f"{manifest.id}/{path}", f"not JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise CheckpointMalformed(f"{manifest.id}/{path}", "a JSON object was expected")
    return value


def _is_component(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(value)


def _weight_paths(checkpoints: Checkpoints, manifest: Manifest, component: str, meter: Meter) -> list[str]:
    """The weight files of one component: whole, in shards, or a variant (.fp16) if there is nothing else."""
    paths = [entry.path for entry in manifest.files if entry.path.startswith(f"{component}/")]
    for stem in _WEIGHT_NAMES:
        if f"{component}/{stem}.safetensors" in paths:
            return [f"{component}/{stem}.safetensors"]
    for path in paths:
        if path.endswith(".safetensors.index.json"):
            shards = read_json(checkpoints, manifest, path, meter).get("weight_map")
            if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
                raise CheckpointMalformed(f"{manifest.id}/{path}", "weight_map must map tensors to files")
            return sorted({f"{component}/{shard}" for shard in shards.values()})
    variants = [path for path in paths if path.endswith(".safetensors")]
    if len(variants) > 1:
        raise CheckpointMalformed(manifest.id, f"{component} has several variants: {', '.join(variants)}; keep one")
    if not variants and any(path.endswith((".bin", ".pt", ".ckpt")) for path in paths):
        raise CheckpointMalformed(manifest.id, f"{component} has only pickled weights; save it with safetensors")
    return variants


def _within(component: str, tensor: StoredTensor) -> StoredTensor:
    return StoredTensor(f"{component}.{tensor.name}", tensor.dtype, tensor.shape, tensor.file, tensor.offset)
