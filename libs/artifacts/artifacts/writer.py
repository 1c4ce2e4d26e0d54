"""Uploads of unknown length in constant memory: the object appears when the block ends cleanly, or never.

`store.writer` makes these. The SDK's own stream upload pulls from a reader in its own thread; ours is pushed, so it
uses the SDK's multipart calls directly.
"""

import hashlib
import io
import logging
from types import TracebackType
from typing import Self

from minio import Minio
from minio.datatypes import Part
from minio.error import S3Error

from artifacts import s3
from artifacts.config import StoreConfig
from artifacts.errors import ArtifactError

PART_SIZE_BYTES = 16 * 1024 * 1024

_log = logging.getLogger(__name__)


class ObjectWriter:
    """One upload. Memory: two parts (32 MiB). Largest object: 10,000 parts (156 GiB).

    Use it in a `with` block. `sha256` and `size` are those of all bytes written so far; `etag` is set at the end.
    A part that the store does not take raises StoreUnavailable out of `write`, and the block then aborts.
    """

    def __init__(self, client: Minio, config: StoreConfig, key: str, content_type: str) -> None:
        self.key = key
        self.size = 0
        self.etag = ""
        self._client = client
        self._config = config
        self._content_type = content_type
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self._upload_id = ""
        self._parts: list[Part] = []
        self._closed = False

    @property
    def sha256(self) -> str:
        """Hex digest of everything written so far."""
        return self._digest.hexdigest()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append `data`; sends a part whenever 16 MiB are together. Returns the number of bytes taken (all)."""
        if self._closed:
            raise ValueError(f"the upload of {self.key!r} is closed")
        view = memoryview(data).cast("B")
        self._digest.update(view)
        self.size += len(view)
        taken = 0
        while taken < len(view):
            if len(self._buffer) == PART_SIZE_BYTES:  # only now: the last part must not be empty
                self._send_part()
            room = PART_SIZE_BYTES - len(self._buffer)
            self._buffer += view[taken : taken + room]
            taken += room
        return len(view)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._closed:
            return
        if error is not None:
            self.abort()
            return
        try:
            self._finish()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Drop the upload; nothing becomes visible. Safe to repeat."""
        self._closed = True
        self._buffer = bytearray()
        if not self._upload_id:
            return
        upload_id, self._upload_id = self._upload_id, ""
        try:
            with s3.translated(self._config, self.key):
                self._client._abort_multipart_upload(self._config.bucket, self.key, upload_id)
        except ArtifactError as error:
            # The caller's own error matters more. The parts stay invisible; a bucket rule for aborted uploads frees them.
            _log.warning("parts of the aborted upload of %r stay in the store: %s", self.key, error)

    def _send_part(self) -> None:
        bucket, data = self._config.bucket, bytes(self._buffer)
        self._buffer.clear()
        with s3.translated(self._config, self.key):
            if not self._upload_id:
                headers: dict[str, str | list[str] | tuple[str]] = {"Content-Type": self._content_type}
                self._upload_id = self._client._create_multipart_upload(bucket, self.key, headers)
            number = len(self._parts) + 1
            etag = self._client._upload_part(bucket, self.key, data, None, self._upload_id, number)
        self._parts.append(Part(number, etag))

    def _finish(self) -> None:
        bucket = self._config.bucket
        if not self._upload_id:
            data = bytes(self._buffer)
            with s3.translated(self._config, self.key):
                written = self._client.put_object(
                    bucket, self.key, io.BytesIO(data), len(data), self._content_type, part_size=PART_SIZE_BYTES
                )
            self.etag = written.etag or ""
        else:
            self._send_part()
            with s3.translated(self._config, self.key):
                self.etag = self._complete()
        self._closed = True
        self._buffer = bytearray()

    def _complete(self) -> str:
        bucket = self._config.bucket
        try:
            done = self._client._complete_multipart_upload(bucket, self.key, self._upload_id, self._parts)
        except S3Error as error:
            # If only the answer to the first attempt was lost, the repeat finds no upload any more, but our object.
            if error.code != "NoSuchUpload" or self._client.stat_object(bucket, self.key).etag != self._expected_etag():
                raise
            return self._expected_etag()
        return (done.etag or "").strip('"')

    def _expected_etag(self) -> str:
        """The ETag S3 gives to an object of several parts: the MD5 of their MD5s, and their number."""
        md5 = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in self._parts), usedforsecurity=False)
        return f"{md5.hexdigest()}-{len(self._parts)}"
