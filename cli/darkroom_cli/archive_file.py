"""A session archive as a file on this machine: its index, its entries, and whether they are what the index says.

Nothing is ever unpacked, so no name inside an archive can reach the file system. `commands.session_archive` uses it.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from darkroom_cli.output import UsageProblem

INDEX = "darkroom-session.json"
CHUNK_BYTES = 1024 * 1024
# As the service accepts; a file that claims more is no archive.
_MAX_INDEX_BYTES = 32 * 1024 * 1024
_HEADER_BYTES = 512


@dataclass(frozen=True)
class _Entry:
    sha256: str
    size_bytes: int
    offset: int


class ArchiveFile:
    """An open archive. index: the bytes of its first entry; sizes: of the other entries, in bytes, by path."""

    def __init__(self, path: Path, file: IO[bytes], index: bytes, entries: dict[str, _Entry]) -> None:
        self._path = path
        self._file = file
        self._entries = entries
        self.index = index
        self.sizes = {name: entry.size_bytes for name, entry in entries.items()}

    @property
    def etag(self) -> str:
        """sha256 of the index, which stands for the content of the whole archive."""
        return hashlib.sha256(self.index).hexdigest()

    def read(self, name: str) -> Iterator[bytes]:
        """The bytes of an entry in chunks of at most 1 MiB. Raises UsageProblem if the file ends before."""
        entry = self._entries[name]
        for start in range(0, entry.size_bytes, CHUNK_BYTES):
            self._file.seek(entry.offset + start)
            length = min(CHUNK_BYTES, entry.size_bytes - start)
            chunk = self._file.read(length)
            if len(chunk) != length:
                raise UsageProblem(f"{self._path} ends within {name}; export or copy it again")
            yield chunk

    def verify(self) -> None:
        """Hold every entry to its sha256. Raises UsageProblem."""
        for name, entry in self._entries.items():
            digest = hashlib.sha256()
            for chunk in self.read(name):
                digest.update(chunk)
            if digest.hexdigest() != entry.sha256:
                raise UsageProblem(
                    f"{name} in {self._path} is damaged: expected sha256 {entry.sha256}, found {digest.hexdigest()}"
                )


@contextmanager
def opened(path: Path) -> Iterator[ArchiveFile]:
    """An archive that has everything its index lists, in the sizes it lists. Raises UsageProblem, OSError."""
    with path.open("rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                members = {member.name: member for member in tar if member.isreg()}
        except (tarfile.TarError, ValueError) as error:
            raise UsageProblem(f"{path} is no session archive: {error}") from error
        first = next(iter(members), None)
        if first != INDEX or members[first].size > _MAX_INDEX_BYTES:
            raise UsageProblem(f"{path} is no session archive: its first entry is {first!r}, expected {INDEX!r}")
        file.seek(members[first].offset_data)
        index = file.read(members[first].size)
        yield ArchiveFile(path, file, index, _entries(path, index, members))


def unfinished_etag(part: Path) -> str:
    """The etag of an export that broke; empty if not even its index is there."""
    try:
        with part.open("rb") as file:
            info = tarfile.TarInfo.frombuf(file.read(_HEADER_BYTES), "utf-8", "strict")
            index = file.read(min(info.size, _MAX_INDEX_BYTES))
    except (FileNotFoundError, tarfile.TarError, ValueError):
        return ""
    return hashlib.sha256(index).hexdigest() if info.name == INDEX and len(index) == info.size else ""


def _entries(path: Path, index: bytes, members: dict[str, tarfile.TarInfo]) -> dict[str, _Entry]:
    """What the index lists, with the place of each in the tar. Raises UsageProblem."""
    try:
        listed = {
            str(item["path"]): (str(item["sha256"]), int(item["size_bytes"])) for item in json.loads(index)["entries"]
        }
    except (ValueError, KeyError, TypeError) as error:
        raise UsageProblem(f"{path} is no session archive: {INDEX} cannot be read ({error})") from error
    found = {}
    for name, (sha256, size_bytes) in listed.items():
        member = members.get(name)
        if member is None or member.size != size_bytes:
            has = "nothing of that name" if member is None else f"{member.size} bytes"
            raise UsageProblem(f"{path} is damaged: {INDEX} lists {name} with {size_bytes} bytes, the tar has {has}")
        found[name] = _Entry(sha256, size_bytes, member.offset_data)
    return found
