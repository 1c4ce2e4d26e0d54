"""Writes a .ckpt front to back: the pickle of a state dict, then each tensor as a zip member.

`transfer` calls this. The zip holds data.pkl, data/<n> and version alone, because A1111 refuses files with the members
that newer versions of torch add. Values are stored plainly at multiples of 64 bytes, as torch stores them, so that
readers can map the file. Sizes are known from the start; checksums follow each member in a data descriptor.
"""

import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from converter.ckpt_format import DTYPE_OF_STORAGE
from converter.tensors import DTYPE_BYTES

_ROOT: Final = "archive"
_ALIGNMENT: Final = 64
_MAX_32: Final = 0xFFFFFFFF
_HAS_DESCRIPTOR: Final = 0x8
_DOS_TIME: Final = (0, 33)  # 1980-01-01, so that equal models give equal files
_STORAGE_OF_DTYPE: Final = {dtype: symbol.split()[1] for symbol, dtype in DTYPE_OF_STORAGE.items()}


class Output(Protocol):
    """What is written to."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Append."""


class Described(Protocol):
    """A tensor to write."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class _Entry:
    name: bytes
    offset: int
    num_bytes: int
    crc: int
    flags: int


class _Zip:
    """A zip file being written to a stream."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._position = 0
        self._entries: list[_Entry] = []

    def add(self, name: str, num_bytes: int, chunks: Iterable[bytes | memoryview]) -> None:
        """One member of known size; its checksum is written behind it."""
        path, offset, crc, written = f"{_ROOT}/{name}".encode(), self._position, 0, 0
        is_wide = num_bytes >= _MAX_32
        self._write(_local_header(path, offset, is_wide))
        for chunk in chunks:
            crc = zlib.crc32(chunk, crc)
            written += len(chunk)
            self._write(chunk)
        if written != num_bytes:
            raise ValueError(f"member {name!r} was announced with {num_bytes} bytes and has {written}")
        self._write(struct.pack("<4sLQQ" if is_wide else "<4sLLL", b"PK\x07\x08", crc, num_bytes, num_bytes))
        self._entries.append(_Entry(path, offset, num_bytes, crc, _HAS_DESCRIPTOR))

    def close(self) -> None:
        """Write the central directory."""
        start = self._position
        for entry in self._entries:
            self._write(_directory_entry(entry))
        num_bytes, count = self._position - start, len(self._entries)
        if start >= _MAX_32 or count >= 0xFFFF:
            end64 = self._position
            self._write(struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, num_bytes, start))
            self._write(struct.pack("<4sLQL", b"PK\x06\x07", 0, end64, 1))
        short = min(count, 0xFFFF)
        self._write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, short, short, num_bytes, min(start, _MAX_32), 0))

    def _write(self, data: bytes | memoryview) -> None:
        self._output.write(data)
        self._position += len(data)


def write(
    output: Output,
    tensors: Sequence[Described],
    values: Callable[[int], Iterable[bytes | memoryview]],
) -> None:
    """Write a whole .ckpt; `values(n)` gives the bytes of tensor n, and is called once for each, in order."""
    archive = _Zip(output)
    pickle = state_dict_pickle(tensors)
    archive.add("data.pkl", len(pickle), (pickle,))
    for index, tensor in enumerate(tensors):
        archive.add(f"data/{index}", math.prod(tensor.shape) * DTYPE_BYTES[tensor.dtype], values(index))
    archive.add("version", 2, (b"3\n",))
    archive.close()


def state_dict_pickle(tensors: Sequence[Described]) -> bytes:
    """Protocol 2 of {"global_step": 0, "state_dict": {name: tensor, ...}} as torch.save describes tensors.

    Storage n belongs to tensor n.
    """
    parts = [b"\x80\x02}(", _text("global_step"), _integer(0), _text("state_dict"), b"}("]
    for index, tensor in enumerate(tensors):
        parts += (_text(tensor.name), *_tensor(index, tensor))
    return b"".join((*parts, b"uu."))


def _tensor(index: int, tensor: Described) -> Iterator[bytes]:
    """torch._utils._rebuild_tensor_v2(storage, 0, shape, stride, False, OrderedDict())"""
    yield b"ctorch._utils\n_rebuild_tensor_v2\n("
    yield b"(" + _text("storage") + f"ctorch\n{_STORAGE_OF_DTYPE[tensor.dtype]}\n".encode()
    yield _text(str(index)) + _text("cpu") + _integer(math.prod(tensor.shape)) + b"tQ"
    yield _integer(0) + _integers(tensor.shape) + _integers(_strides(tensor.shape))
    yield b"\x89ccollections\nOrderedDict\n)RtR"


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def _integer(value: int) -> bytes:
    if value < 2**31:
        return b"J" + value.to_bytes(4, "little")
    data = value.to_bytes(9, "little")
    return b"\x8a" + bytes([len(data)]) + data


def _integers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _local_header(path: bytes, offset: int, is_wide: bool) -> bytes:
    """With an extra field that pads the data to the alignment, under the same id "FB" that torch uses."""
    # The sizes belong to the data descriptor; the zip64 field says that its sizes have 8 bytes.
    wide = struct.pack("<2H2Q", 1, 16, 0, 0) if is_wide else b""
    start = offset + 30 + len(path) + len(wide) + 4
    padding = b"Z" * (-start % _ALIGNMENT)
    extra = wide + struct.pack("<2sH", b"FB", len(padding)) + padding
    sizes = _MAX_32 if is_wide else 0
    version = 45 if is_wide else 20
    fields = (b"PK\x03\x04", version, _HAS_DESCRIPTOR, 0, *_DOS_TIME, 0, sizes, sizes, len(path), len(extra))
    return struct.pack("<4s5H3L2H", *fields) + path + extra


def _directory_entry(entry: _Entry) -> bytes:
    wide = b""
    size, offset = entry.num_bytes, entry.offset
    if size >= _MAX_32:
        wide += struct.pack("<2Q", size, size)
        size = _MAX_32
    if offset >= _MAX_32:
        wide += struct.pack("<Q", offset)
        offset = _MAX_32
    extra = struct.pack("<2H", 1, len(wide)) + wide if wide else b""
    version = 45 if wide else 20
    head = (b"PK\x01\x02", version, version, entry.flags, 0, *_DOS_TIME, entry.crc, size, size)
    fields = (*head, len(entry.name), len(extra), 0, 0, 0, 0, offset)
    return struct.pack("<4s6H3L5H2L", *fields) + entry.name + extra
