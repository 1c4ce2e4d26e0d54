"""Stored files, read by ranges, with a count of what was read; everything else reads through these.

`sources` opens them. Whether the bytes are the right ones is checked by `reading`, which sees all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from artifacts.checkpoints import Checkpoints, Manifest
from artifacts.errors import DigestMismatch, NotFound
from artifacts.store import ObjectStore


@dataclass
class Meter:
    """Counts bytes that were read from the store."""

    num_bytes: int = 0


@dataclass(frozen=True, eq=False)
class StoredFile:
    """One immutable object. name: as a person knows it. sha256: what its content must have; "" if nobody promised."""

    store: ObjectStore
    key: str
    name: str
    size_bytes: int
    sha256: str = ""
    meter: Meter = field(default_factory=Meter)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes. Raises ValueError for a range outside the file; callers check sizes first."""
        if offset < 0 or length < 0 or offset + length > self.size_bytes:
            raise ValueError(f"{self.name} has {self.size_bytes} bytes; {offset} to {offset + length} is outside")
        data = self.store.read_range(self.key, offset, length) if length else b""
        self.meter.num_bytes += len(data)
        return data

    def stream(self, offset: int, length: int | None = None) -> Iterator[bytes]:
        """Bytes from `offset`, in chunks of at most 1 MiB."""
        for chunk in self.store.reader(self.key, offset, length):
            self.meter.num_bytes += len(chunk)
            yield chunk


def open_object(store: ObjectStore, key: str, meter: Meter) -> StoredFile:
    """An object that belongs to no checkpoint. Raises NotFound."""
    return StoredFile(store, key, key, store.stat(key).size_bytes, meter=meter)


def open_file(checkpoints: Checkpoints, manifest: Manifest, path: str, meter: Meter) -> StoredFile:
    """A file of a checkpoint. Raises NotFound, and DigestMismatch if its size is not the manifest's."""
    entry = manifest.file(path)
    if entry is None:
        raise NotFound("file", path, f"checkpoint {manifest.id!r}")
    key = checkpoints.key(manifest, path)
    name = f"{manifest.id}/{path}"
    found_bytes = checkpoints.store.stat(key).size_bytes
    if found_bytes != entry.size_bytes:
        raise DigestMismatch(name, f"{entry.size_bytes} bytes, sha256 {entry.sha256}", f"{found_bytes} bytes")
    return StoredFile(checkpoints.store, key, name, entry.size_bytes, entry.sha256, meter)
