"""The .ckpt container as torch writes it: a stored zip of one pickle and one member per storage.

`sources` reads files that others made; `ckpt_writer` writes ours.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from converter import pickle_data, zip_directory
from converter.errors import CheckpointMalformed
from converter.pickle_data import Call, Persistent, Symbol
from converter.stored import StoredFile
from converter.tensors import DTYPE_BYTES, StoredTensor
from converter.zip_directory import Member

DTYPE_OF_STORAGE: Final[Mapping[str, str]] = {
    "torch DoubleStorage": "F64",
    "torch FloatStorage": "F32",
    "torch HalfStorage": "F16",
    "torch BFloat16Storage": "BF16",
    "torch LongStorage": "I64",
    "torch IntStorage": "I32",
    "torch ShortStorage": "I16",
    "torch ByteStorage": "U8",
}
_MAX_WRAPPERS: Final = 4
_MAX_DIMENSIONS: Final = 8


@dataclass(frozen=True)
class Contents:
    """What a .ckpt holds: tensors, and the plain values beside them as text."""

    tensors: tuple[StoredTensor, ...]
    metadata: Mapping[str, str]


def read_contents(file: StoredFile) -> Contents:
    """Directory and pickle, in three or four range reads. Raises CheckpointMalformed, UnsafePickle."""
    members = zip_directory.read_directory(file)
    pickles = [member for name, member in members.items() if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointMalformed(file.name, f"{len(pickles)} members are named <folder>/data.pkl, expected 1")
    root = pickles[0].name.removesuffix("data.pkl")
    order = members.get(f"{root}byteorder")
    if order is not None and read_member(file, order, 16) != b"little":
        raise CheckpointMalformed(file.name, "its values are big-endian; save it again on a little-endian machine")
    value = pickle_data.load(file.name, read_member(file, pickles[0], pickle_data.MAX_PICKLE_BYTES))
    state, around = _unwrap(file, value)
    tensors = tuple(
        _tensor(file, members, root, name, item)
        for name, item in state.items()
        if isinstance(item, Call) and _is_tensor(item)
    )
    return Contents(tensors, {name: str(item) for name, item in {**around, **state}.items() if _is_plain(name, item)})


def read_member(file: StoredFile, member: Member, max_bytes: int) -> bytes:
    """The data of one small member. Raises CheckpointMalformed if it is larger than `max_bytes`."""
    if member.num_bytes > max_bytes:
        raise CheckpointMalformed(
            file.name, f"{member.name[:200]!r} has {member.num_bytes} bytes, the limit is {max_bytes}"
        )
    header = file.read(member.offset, zip_directory.LOCAL_HEADER_BYTES)
    start = zip_directory.data_offset(header, member.offset, file.name)
    if start + member.num_bytes > file.size_bytes:
        raise CheckpointMalformed(file.name, f"{member.name[:200]!r} reaches beyond the end of the file")
    return file.read(start, member.num_bytes)


def _unwrap(file: StoredFile, value: Any) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """The state dict and the values around it: some files wrap it in {"state_dict": ...}, even twice."""
    around: dict[Any, Any] = {}
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(value, dict):
            break
        if not isinstance(value.get("state_dict"), dict):
            return value, around
        around |= {key: item for key, item in value.items() if key != "state_dict"}
        value = value["state_dict"]
    raise CheckpointMalformed(file.name, "its pickle holds no state dict")


def _is_plain(name: Any, value: Any) -> bool:
    """Whether it can be shown as metadata; a number of a million digits cannot."""
    return isinstance(name, str) and (isinstance(value, str | float) or (isinstance(value, int) and abs(value) < 2**63))


def _is_tensor(value: Call) -> bool:
    return value.symbol == "torch._utils _rebuild_tensor_v2"


def _tensor(file: StoredFile, members: Mapping[str, Member], root: str, name: Any, call: Call) -> StoredTensor:
    """Turn a recorded _rebuild_tensor_v2(storage, offset, shape, stride, ...) into a place in the file."""
    label = str(name)[:200]
    if not isinstance(name, str) or len(call.arguments) < 4:
        raise CheckpointMalformed(file.name, f"tensor {label!r} is not described as torch does")
    storage, offset, shape, stride = call.arguments[:4]
    member, dtype = _storage(file, members, root, storage, label)
    if not (_is_size(offset) and _is_sizes(shape) and _is_sizes(stride) and len(shape) == len(stride)):
        raise CheckpointMalformed(file.name, f"tensor {label!r} has an invalid offset, shape or stride")
    if not _is_contiguous(shape, stride):
        raise CheckpointMalformed(
            file.name,
            f"tensor {label!r} of shape {shape} is stored with strides {stride}, not row by row; save it contiguous",
        )
    tensor = StoredTensor(name, dtype, shape, file, offset * DTYPE_BYTES[dtype], member.offset)
    if tensor.offset + tensor.num_bytes > member.num_bytes:
        raise CheckpointMalformed(file.name, f"tensor {label!r} reaches beyond its storage of {member.num_bytes} bytes")
    return tensor


def _storage(
    file: StoredFile, members: Mapping[str, Member], root: str, storage: Any, label: str
) -> tuple[Member, str]:
    value = storage.value if isinstance(storage, Persistent) else None
    if not isinstance(value, tuple) or len(value) != 5 or value[0] != "storage" or not isinstance(value[1], Symbol):
        raise CheckpointMalformed(file.name, f"tensor {label!r} has no storage as torch describes it")
    _, kind, key, _, num_values = value
    dtype = DTYPE_OF_STORAGE.get(kind.name)
    member = members.get(f"{root}data/{key}") if isinstance(key, str) else None
    if dtype is None or member is None or not _is_size(num_values):
        raise CheckpointMalformed(file.name, f"the storage of tensor {label!r} is not in the file")
    if num_values * DTYPE_BYTES[dtype] != member.num_bytes:
        said = f"{num_values} values of {dtype}"
        raise CheckpointMalformed(
            file.name, f"tensor {label!r} says {said}, but its storage has {member.num_bytes} bytes"
        )
    return member, dtype


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48


def _is_sizes(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= _MAX_DIMENSIONS and all(map(_is_size, value))


def _is_contiguous(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Row-major, as torch defines it: the strides of dimensions of size 1 do not matter."""
    if math.prod(shape) == 0:
        return True
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size != 1 and step != expected:
            return False
        expected *= size
    return True
