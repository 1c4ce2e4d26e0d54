"""The safetensors container: its header read from untrusted bytes, and written.

Format: u64 little-endian length N, N bytes of JSON, then the values without holes. The limits are narrower than the
format's own (100 MB of header): the header of the largest known model has less than 1 MB, and JSON made for it can take
twenty times its size in memory.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from converter.errors import CheckpointMalformed
from converter.stored import StoredFile
from converter.tensors import DTYPE_BYTES, StoredTensor

MAX_HEADER_BYTES: Final = 2 * 1024**2
_MAX_DIMENSIONS: Final = 8
_MAX_TENSOR_BYTES: Final = 2**48


@dataclass(frozen=True)
class Header:
    """What a safetensors header says."""

    tensors: tuple[StoredTensor, ...]
    metadata: Mapping[str, str]


def read_header(file: StoredFile) -> Header:
    """Read and check the header, in two range reads. Raises CheckpointMalformed."""
    if file.size_bytes < 10:
        raise CheckpointMalformed(file.name, f"{file.size_bytes} bytes are too few for a safetensors file")
    length = int.from_bytes(file.read(0, 8), "little")
    if length > min(MAX_HEADER_BYTES, file.size_bytes - 8):
        limit = f"the file has {file.size_bytes} bytes and the limit is {MAX_HEADER_BYTES}"
        raise CheckpointMalformed(
            file.name, f"its header claims {length} bytes, but {limit}; is it a safetensors file?"
        )
    record = _parse(file.name, file.read(8, length))
    metadata = record.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointMalformed(file.name, "__metadata__ must map text to text")
    tensors = tuple(_tensor(file, name, entry, 8 + length) for name, entry in record.items())
    _check_cover(file, tensors, 8 + length)
    return Header(tensors, metadata)


def build_header(tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """The header of a file that holds (name, dtype, shape) in this order, with its length and padding to 8 bytes.

    Begins with '{"', which A1111 demands beyond the format.
    """
    record: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, dtype, shape in tensors:
        end = offset + math.prod(shape) * DTYPE_BYTES[dtype]
        record[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _parse(name: str, data: bytes) -> dict[str, Any]:
    if not data.startswith(b"{"):
        raise CheckpointMalformed(name, "its header is no JSON object; is it a safetensors file?")
    try:
        return _as_dict(json.loads(data, object_pairs_hook=_unique))
    except (ValueError, RecursionError) as error:
        raise CheckpointMalformed(name, f"its header cannot be read: {str(error)[:200]}") from error


def _as_dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("a JSON object was expected")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a name appears twice")
    return record


def _tensor(file: StoredFile, name: str, entry: Any, base: int) -> StoredTensor:
    label = name[:200]
    dtype, shape, offsets = _fields(entry)
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise CheckpointMalformed(file.name, f"tensor {label!r} has the unknown dtype {str(dtype)[:40]!r}")
    if not _is_sizes(shape) or len(shape) > _MAX_DIMENSIONS or not _is_sizes(offsets) or len(offsets) != 2:
        raise CheckpointMalformed(file.name, f"tensor {label!r} has an invalid shape or invalid offsets")
    begin, end = offsets
    tensor = StoredTensor(name, dtype, tuple(shape), file, base + begin)
    if end < begin or base + end > file.size_bytes:
        where = f"bytes {begin} to {end}, but the file has {file.size_bytes - base} bytes of values"
        raise CheckpointMalformed(file.name, f"tensor {label!r} is said to be at {where}; is the file truncated?")
    if tensor.num_bytes != end - begin:
        needed = f"{dtype} {shape} needs {tensor.num_bytes}"
        raise CheckpointMalformed(file.name, f"tensor {label!r} has {end - begin} bytes, but {needed}")
    return tensor


def _fields(entry: Any) -> tuple[Any, Any, Any]:
    if not isinstance(entry, dict):
        return None, None, None
    return entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= _MAX_TENSOR_BYTES for size in value
    )


def _check_cover(file: StoredFile, tensors: tuple[StoredTensor, ...], base: int) -> None:
    """The values must follow each other without holes or overlap, to the end of the file."""
    position = base
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.num_bytes)):
        if tensor.offset != position:
            kind = "overlaps the one before" if tensor.offset < position else "leaves a hole before it"
            raise CheckpointMalformed(file.name, f"tensor {tensor.name[:200]!r} {kind}")
        position += tensor.num_bytes
    if position != file.size_bytes:
        raise CheckpointMalformed(file.name, f"its tensors end at byte {position}, the file at {file.size_bytes}")
