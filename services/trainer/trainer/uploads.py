"""One upload: collects the bytes of a file, holds them to what the header promised, and stores the picture whole.

`server.sessions` feeds it from the stream. Until `store` nothing of the upload is anywhere but in memory.
"""

import hashlib
import re
from pathlib import PurePath

from artifacts import names
from artifacts.sessions import InstanceImage, Sessions

from trainer import images
from trainer.errors import FileNameUnsupported, UploadMismatch, UploadTooLarge

MAX_BYTES = 64 * 1024 * 1024


class Upload:
    """A file on its way into a session."""

    def __init__(self, session: str, filename: str, size_bytes: int = 0, sha256: str = "") -> None:
        """size_bytes and sha256 (hex) as promised, 0 and "" if unknown.

        Raises InvalidName, FileNameUnsupported and UploadTooLarge.
        """
        self.session = session
        self.filename = names.file_name(re.sub(r"\s+", "_", filename.strip()))
        if PurePath(self.filename).suffix.lower() not in images.ENDINGS:
            raise FileNameUnsupported(self.filename, images.ENDINGS)
        self._size_bytes = size_bytes
        self._sha256 = sha256
        self._data = bytearray()
        self._limit(size_bytes)

    def add(self, chunk: bytes) -> None:
        """Take the next bytes. Raises UploadTooLarge and UploadMismatch as soon as there are too many."""
        self._limit(len(self._data) + len(chunk))
        self._data += chunk
        if self._size_bytes and len(self._data) > self._size_bytes:
            raise UploadMismatch(self.filename, f"{self._size_bytes} bytes", "more")

    def check(self) -> images.Size:
        """Hold the whole file to its promises and decode it. Raises UploadMismatch and what `images.check` raises."""
        data = bytes(self._data)
        if self._size_bytes and len(data) != self._size_bytes:
            raise UploadMismatch(self.filename, f"{self._size_bytes} bytes", f"{len(data)} bytes")
        found = hashlib.sha256(data).hexdigest()
        if self._sha256 and found != self._sha256:
            raise UploadMismatch(self.filename, f"sha256 {self._sha256}", f"sha256 {found}")
        return images.check(data, self.filename)

    def store(self, sessions: Sessions, size: images.Size) -> InstanceImage:
        """Put the checked file into the session. Raises what the store raises."""
        return sessions.put_image(self.session, self.filename, bytes(self._data), size.width_px, size.height_px)

    def _limit(self, size_bytes: int) -> None:
        if size_bytes > MAX_BYTES:
            raise UploadTooLarge(self.filename, MAX_BYTES)
