"""The files of a resume point on their way to the store and back: every byte is read again before it counts.

`resume_points` calls this, and its `helper` for large points. No torch here.
"""

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from artifacts import names
from artifacts.errors import DigestMismatch, NotFound
from artifacts.manifest import FileEntry
from artifacts.store import CHUNK_BYTES, ObjectStore, StoreConfig

MIN_HELPED_BYTES: Final = 16 * 2**20
"""Smaller points are uploaded by a thread of the training process: they are there before the helper has started."""
HELPER_BYTES: Final = 72 * 2**20
"""Memory of a helper that uploads, measured: an interpreter, the S3 client and two parts."""


def upload(store: ObjectStore, prefix: str, folder: Path) -> tuple[FileEntry, ...]:
    """Upload all files of a local folder below a key prefix, then read them back.

    Raises DigestMismatch if the store does not give back what it was sent, ValueError for an empty folder, InvalidName for a
    file whose name no key can have, and what the store says.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        raise ValueError(f"the folder {folder} holds no file: nothing to resume from")
    entries = tuple(_upload_file(store, prefix, path, path.relative_to(folder).as_posix()) for path in paths)
    for entry in entries:
        verify(store, prefix, entry)
    return entries


def upload_to(config: StoreConfig, prefix: str, folder: Path) -> tuple[FileEntry, ...]:
    """`upload` in a process that has no connection to the store yet."""
    return upload(_connected(config), prefix, folder)


def verify(store: ObjectStore, prefix: str, entry: FileEntry) -> None:
    """Read a file from the store. Raises DigestMismatch, also if nothing is there."""
    try:
        for _ in verified(store, prefix, entry):
            pass
    except NotFound as error:
        raise DigestMismatch(f"{prefix}{entry.path}", _content(entry), "nothing") from error


def verified(store: ObjectStore, prefix: str, entry: FileEntry) -> Iterator[bytes]:
    """A file from the store in chunks. Raises NotFound, and DigestMismatch after the last chunk."""
    digest, size_bytes = hashlib.sha256(), 0
    for chunk in store.reader(f"{prefix}{entry.path}"):
        digest.update(chunk)
        size_bytes += len(chunk)
        yield chunk
    found = FileEntry(entry.path, size_bytes, digest.hexdigest())
    if found != entry:
        raise DigestMismatch(f"{prefix}{entry.path}", _content(entry), _content(found))


def _upload_file(store: ObjectStore, prefix: str, source: Path, path: str) -> FileEntry:
    with source.open("rb") as local, store.writer(f"{prefix}{names.file_path(path)}") as writer:
        while chunk := local.read(CHUNK_BYTES):
            writer.write(chunk)
    return FileEntry(path, writer.size, writer.sha256)


def _content(entry: FileEntry) -> str:
    return f"{entry.size_bytes} bytes, sha256 {entry.sha256}"


@functools.cache
def _connected(config: StoreConfig) -> ObjectStore:
    return ObjectStore(config)
