"""The files of one base model: a folder in the diffusers layout, on this machine or in the bucket, and their safetensors headers.

`base_models` checks a model with it. Of weights only the header is read, a few kilobytes of gigabytes.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from artifacts.store import ObjectStore

# The header of a large model has some hundred kilobytes; its length is the first number of the file, whatever that is.
_MAX_HEADER_BYTES = 100_000_000


class Files(Protocol):
    """A folder. source: absolute path, or prefix of the bucket without a slash at its end."""

    @property
    def source(self) -> str: ...

    def sizes(self) -> Mapping[str, int]:
        """Bytes of every file, by path."""

    def read(self, path: str, num_bytes: int) -> bytes:
        """The first bytes of a file; all of it if it is shorter."""


@dataclass(frozen=True)
class LocalFiles:
    """A folder of this machine."""

    folder: Path

    @property
    def source(self) -> str:
        """Its absolute path."""
        return str(self.folder)

    def sizes(self) -> Mapping[str, int]:
        """See `Files`."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in files}

    def read(self, path: str, num_bytes: int) -> bytes:
        """See `Files`."""
        with (self.folder / path).open("rb") as file:
            return file.read(num_bytes)


@dataclass(frozen=True)
class BucketFiles:
    """A folder of the bucket."""

    store: ObjectStore
    source: str

    def sizes(self) -> Mapping[str, int]:
        """See `Files`."""
        prefix = f"{self.source}/"
        return {stat.key[len(prefix) :]: stat.size_bytes for stat in self.store.list(prefix)}

    def read(self, path: str, num_bytes: int) -> bytes:
        """See `Files`."""
        key = f"{self.source}/{path}"
        return b"".join(self.store.reader(key, 0, min(num_bytes, self.store.stat(key).size_bytes)))


@dataclass(frozen=True)
class Tensor:
    """One tensor of a safetensors file, as its header says. dtype: "F32", "F16", … end: where its bytes end in the data."""

    dtype: str
    shape: tuple[int, ...]
    end: int

    @property
    def num_values(self) -> int:
        """Numbers in it."""
        count = 1
        for length in self.shape:
            count *= length
        return count


def tensors(files: Files, path: str, size_bytes: int) -> dict[str, Tensor]:
    """The tensors of a safetensors file of this size, by name. Raises ValueError with what is wrong with the file."""
    try:
        (length,) = struct.unpack("<Q", files.read(path, 8))
    except struct.error:
        raise ValueError(f"{path} is no safetensors file: it has {size_bytes} bytes") from None
    if length > min(size_bytes - 8, _MAX_HEADER_BYTES):
        raise ValueError(f"{path} is no safetensors file, or cut off: {size_bytes} bytes do not hold its header")
    try:
        header = json.loads(files.read(path, 8 + length)[8:])
        found = {name: _tensor(entry) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error
    expected = 8 + length + max((tensor.end for tensor in found.values()), default=0)
    if size_bytes != expected:
        raise ValueError(f"{path} has {size_bytes} bytes, but its header speaks of {expected}: copy it again")
    return found


def _tensor(entry: Any) -> Tensor:
    return Tensor(str(entry["dtype"]), tuple(int(length) for length in entry["shape"]), int(entry["data_offsets"][1]))
