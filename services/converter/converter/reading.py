"""Reads the tensors of one file, in one forward stream where their order allows, and checks the file on the way.

`transfer` reads sources and results through this. Every byte of the file passes the digest exactly once; a tensor that
lies behind the stream (shared storage, another order) is fetched again by its range.
"""

import hashlib
from collections.abc import Iterator

from artifacts.errors import DigestMismatch

from converter import zip_directory
from converter.errors import CheckpointMalformed
from converter.stored import StoredFile
from converter.tensors import StoredTensor


class FileReader:
    """One pass over one file. Ask for tensors, best in order of place, then call `finish`."""

    def __init__(self, file: StoredFile) -> None:
        self.file = file
        self._digest = hashlib.sha256()
        self._stream = file.stream(0)
        self._chunk = memoryview(b"")
        self._position = 0
        self._data_offsets: dict[int, int] = {}

    def chunks(self, tensor: StoredTensor) -> Iterator[bytes | memoryview]:
        """The values of one tensor. Raises DigestMismatch if the file ends early."""
        start = tensor.offset
        if tensor.member_offset is not None:
            start += self._data_offset(tensor.member_offset)
        if start + tensor.num_bytes > self.file.size_bytes:
            raise CheckpointMalformed(
                self.file.name, f"tensor {tensor.name[:200]!r} reaches beyond the end of the file"
            )
        if start >= self._position:
            self._skip(start - self._position)
            yield from self._take(tensor.num_bytes)
        elif tensor.num_bytes:
            yield from self.file.stream(start, tensor.num_bytes)

    def finish(self) -> None:
        """Read what is left. Raises DigestMismatch unless the whole file is what its manifest promises."""
        self._skip(self.file.size_bytes - self._position)
        found = self._digest.hexdigest()
        if self.file.sha256 and found != self.file.sha256:
            size = f"{self.file.size_bytes} bytes, sha256"
            raise DigestMismatch(self.file.name, f"{size} {self.file.sha256}", f"{size} {found}")

    def _data_offset(self, member_offset: int) -> int:
        known = self._data_offsets.get(member_offset)
        if known is None:
            if member_offset >= self._position:
                self._skip(member_offset - self._position)
                header = b"".join(self._take(zip_directory.LOCAL_HEADER_BYTES))
            else:
                header = self.file.read(member_offset, zip_directory.LOCAL_HEADER_BYTES)
            known = zip_directory.data_offset(header, member_offset, self.file.name)
            self._data_offsets[member_offset] = known
        return known

    def _skip(self, length: int) -> None:
        for _ in self._take(length):
            pass

    def _take(self, length: int) -> Iterator[memoryview]:
        while length > 0:
            if not self._chunk:
                self._chunk = memoryview(next(self._stream, b""))
                if not self._chunk:
                    expected = f"{self.file.size_bytes} bytes, sha256 {self.file.sha256}"
                    raise DigestMismatch(self.file.name, expected, f"{self._position} bytes")
                self._digest.update(self._chunk)
            piece, self._chunk = self._chunk[:length], self._chunk[length:]
            self._position += len(piece)
            length -= len(piece)
            yield piece
