"""A session archive as a tar: a pure function of its index, so that any byte of it can be computed without the others.

Plain pax (POSIX.1-2001): headers as `tarfile` makes them, contents filled up to 512 bytes, two blocks of zeros at the end.
`session_export` streams what `pieces` yields.
"""

import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from trainer.archive_index import Entry

_BLOCK = 512
_END = bytes(2 * _BLOCK)

Read = Callable[[Entry, int], Iterator[bytes]]
"""The content of an entry from an offset on."""


@dataclass(frozen=True)
class Layout:
    """The tar of these entries. mtime: seconds since 1970, the same for all."""

    entries: Sequence[Entry]
    mtime: int

    @property
    def size_bytes(self) -> int:
        """Size of the whole tar."""
        return sum(self._extent(entry) for entry in self.entries) + len(_END)

    def pieces(self, offset: int, read: Read) -> Iterator[bytes]:
        """The bytes of the tar from the offset on, in pieces of any size."""
        for entry in self.entries:
            extent = self._extent(entry)
            if offset >= extent:
                offset -= extent
                continue
            header = self._header(entry)
            yield header[offset:]
            start = max(offset - len(header), 0)
            if start < entry.size_bytes:
                yield from read(entry, start)
            yield bytes(extent - max(offset, len(header) + entry.size_bytes))
            offset = 0
        yield _END[offset:]

    def _extent(self, entry: Entry) -> int:
        padded = -(-entry.size_bytes // _BLOCK) * _BLOCK
        return len(self._header(entry)) + padded

    def _header(self, entry: Entry) -> bytes:
        info = tarfile.TarInfo(entry.path)
        info.size, info.mtime, info.mode = entry.size_bytes, self.mtime, 0o644
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def blocks(pieces: Iterator[bytes], size_bytes: int) -> Iterator[bytes]:
    """The same bytes in blocks of exactly this size; the last one may be smaller."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        while len(buffer) >= size_bytes:
            yield bytes(buffer[:size_bytes])
            del buffer[:size_bytes]
    if buffer:
        yield bytes(buffer)
