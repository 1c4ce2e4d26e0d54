"""One bucket of any S3 store: bytes in, bytes out, and the two conditional writes everything safe is built on.

Sessions, checkpoints and the services call this. Every method blocks and is thread-safe; asyncio code goes through
`asyncio.to_thread`. What the keys mean is left to `sessions` and `checkpoints`.

Common to all methods: InvalidName for a key that breaks `names.KEY_RULE`, StoreUnavailable when the store gives no
usable answer within the configured retries, AccessDenied, and StoreRejected for any other refusal.
"""

import io
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from minio.commonconfig import ComposeSource, CopySource
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from artifacts import conditional, names, s3
from artifacts.config import StoreConfig
from artifacts.errors import AlreadyExists, Conflict, NotFound, StoreRejected
from artifacts.writer import ObjectWriter

__all__ = ["ObjectStat", "ObjectStore", "ObjectWriter", "StoreConfig"]

BINARY = "application/octet-stream"
CHUNK_BYTES = 1024 * 1024
# Up to this size an object is one request; the SDK alone would cut it at 5 MiB.
_PUT_PART_BYTES = 64 * 1024 * 1024
_USER_METADATA = "x-amz-meta-"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ObjectStat:
    """What the store knows of one object. `metadata` is filled by `stat` alone; listings leave it empty."""

    key: str
    size_bytes: int
    etag: str
    modified: datetime
    metadata: Mapping[str, str] = field(default_factory=dict)


class ObjectStore:
    """The bucket named in `config`. Opens connections when first used; needs no closing."""

    def __init__(self, config: StoreConfig) -> None:
        self.config = config
        self._pool = s3.connection_pool(config)
        self._client = s3.connect(config, self._pool)

    def ensure_bucket(self) -> None:
        """Create the bucket unless it is there. Several callers at once are fine."""
        bucket = self.config.bucket
        with s3.translated(self.config, bucket):
            if self._client.bucket_exists(bucket):
                return
            try:
                self._client.make_bucket(bucket, self.config.region or None)
            except S3Error as error:
                if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise

    def delete_bucket(self) -> None:
        """Remove the bucket with everything in it."""
        bucket = self.config.bucket
        with s3.translated(self.config, bucket):
            self.delete_many(found.object_name for found in self._client.list_objects(bucket, recursive=True))
            self._client.remove_bucket(bucket)

    def put(
        self, key: str, data: bytes, content_type: str = BINARY, *, metadata: Mapping[str, str] | None = None
    ) -> ObjectStat:
        """Write `data` to `key`, replacing what was there. `metadata`: ASCII names and values kept with the object."""
        names.object_key(key)
        extra: dict[str, Any] = dict(metadata or {})
        with s3.translated(self.config, key):
            written = self._client.put_object(
                self.config.bucket, key, io.BytesIO(data), len(data), content_type, extra, part_size=_PUT_PART_BYTES
            )
        return ObjectStat(key, len(data), written.etag or "", datetime.now(UTC), dict(metadata or {}))

    def put_if_absent(self, key: str, data: bytes, content_type: str = BINARY) -> ObjectStat:
        """Create `key`; of any number of callers exactly one succeeds. Raises AlreadyExists for the others."""
        try:
            etag = self._put_conditionally(key, data, {"Content-Type": content_type, "If-None-Match": "*"})
        except conditional.PreconditionError:
            raise AlreadyExists("object", key) from None
        return ObjectStat(key, len(data), etag, datetime.now(UTC))

    def replace(self, key: str, data: bytes, etag: str, content_type: str = BINARY) -> ObjectStat:
        """Write `key` only if it still is version `etag` (compare-and-swap). Raises Conflict, also if it is gone."""
        try:
            new = self._put_conditionally(key, data, {"Content-Type": content_type, "If-Match": f'"{etag}"'})
        except (conditional.PreconditionError, NotFound):
            raise Conflict(key, etag) from None
        return ObjectStat(key, len(data), new, datetime.now(UTC))

    def _put_conditionally(self, key: str, data: bytes, headers: dict[str, str]) -> str:
        names.object_key(key)
        with s3.translated(self.config, key):
            return conditional.put(self._client, self._pool, self.config, key, data, headers)

    def writer(self, key: str, content_type: str = BINARY) -> ObjectWriter:
        """An upload of unknown length, to be used in a `with` block; see ObjectWriter."""
        return ObjectWriter(self._client, self.config, names.object_key(key), content_type)

    def get(self, key: str) -> bytes:
        """The whole object in memory. Raises NotFound."""
        return b"".join(self.reader(key))

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`. Raises NotFound, and StoreRejected if the object ends before that."""
        data = b"".join(self.reader(key, offset, length))
        if len(data) != length:
            wanted = f"bytes {offset} to {offset + length} were asked for"
            raise StoreRejected(key, self.config.url, f"{wanted}, but the object ends at {offset + len(data)}")
        return data

    def reader(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The object, or `length` bytes of it from `offset`, in chunks of at most 1 MiB. Raises NotFound.

        A connection that breaks in the middle is taken up again where it broke, as often as the configuration allows
        and only while the object is still the same version.
        """
        names.object_key(key)
        if offset < 0 or (length is not None and length < 0):
            raise ValueError(f"offset and length must not be negative: {offset}, {length}")
        return self._read(key, offset, length)

    def _read(self, key: str, offset: int, length: int | None) -> Iterator[bytes]:
        if length == 0:  # a range of no bytes cannot be said in HTTP
            return
        end = None if length is None else offset + length
        etag = ""
        for repeats_left in reversed(range(self.config.retries + 1)):
            with s3.translated(self.config, key):
                response = self._open(key, offset, end, etag)
                etag = response.headers.get("etag", "").strip('"')
                try:
                    for chunk in response.stream(CHUNK_BYTES):
                        offset += len(chunk)
                        yield chunk
                    return
                except HTTPError as error:
                    if not repeats_left:
                        raise
                    if offset == end:  # all there; and a range of no bytes would mean the rest of the object
                        return
                    _log.warning("reading %r broke at byte %d, going on from there: %s", key, offset, error)
                finally:
                    _release(response)

    def _open(self, key: str, offset: int, end: int | None, etag: str) -> BaseHTTPResponse:
        headers: dict[str, Any] = {"If-Match": f'"{etag}"'} if etag else {}
        length = 0 if end is None else end - offset
        try:
            response: BaseHTTPResponse = self._client.get_object(
                self.config.bucket, key, offset, length, request_headers=headers
            )
        except S3Error as error:
            if etag and error.response.status == 412:
                raise Conflict(key, etag) from error
            raise
        return response

    def stat(self, key: str) -> ObjectStat:
        """Size, version and user metadata without the content. Raises NotFound."""
        names.object_key(key)
        with s3.translated(self.config, key):
            found = self._client.stat_object(self.config.bucket, key)
        pairs = ((name.lower(), value) for name, value in (found.metadata or {}).items())
        metadata = {name.removeprefix(_USER_METADATA): str(v) for name, v in pairs if name.startswith(_USER_METADATA)}
        return ObjectStat(key, found.size or 0, found.etag or "", found.last_modified or datetime.now(UTC), metadata)

    def exists(self, key: str) -> bool:
        """Whether the object is there now."""
        try:
            self.stat(key)
        except NotFound:
            return False
        return True

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectStat]:
        """All objects whose key starts with `prefix`, after the key `start_after`.

        In order of key within one folder; across folders SeaweedFS and MinIO differ ("a/b" and "a-b").
        """
        with s3.translated(self.config, prefix):
            for found in self._client.list_objects(
                self.config.bucket, prefix, recursive=True, start_after=start_after or None
            ):
                if not found.is_dir:  # some stores list folder markers
                    yield ObjectStat(
                        found.object_name or "",
                        found.size or 0,
                        (found.etag or "").strip('"'),
                        found.last_modified or datetime.now(UTC),
                    )

    def list_folders(self, prefix: str) -> Iterator[str]:
        """Names of the folders directly below `prefix` (which ends in '/' or is empty), without their slashes.

        SeaweedFS keeps a folder for a while after its last object is gone.
        """
        with s3.translated(self.config, prefix):
            for found in self._client.list_objects(self.config.bucket, prefix):
                if found.is_dir:
                    yield (found.object_name or "")[len(prefix) :].rstrip("/")

    def delete(self, key: str) -> None:
        """Remove the object; fine if it is not there."""
        names.object_key(key)
        with s3.translated(self.config, key):
            self._client.remove_object(self.config.bucket, key)

    def delete_many(self, keys: Iterable[str]) -> int:
        """Remove these objects, a thousand with each request, and return how many keys there were. Safe to repeat."""
        count = 0
        for batch in _batches(keys, 1000):
            count += len(batch)
            with s3.translated(self.config, batch[0]):
                failures = list(self._client.remove_objects(self.config.bucket, [DeleteObject(key) for key in batch]))
            if failures:
                first = failures[0]
                reason = f"{len(failures)} objects were not deleted, the first because of {first.code}: {first.message}"
                raise StoreRejected(first.name or batch[0], self.config.url, reason)
        return count

    def delete_prefix(self, prefix: str) -> int:
        """Remove every object whose key starts with `prefix` and return how many there were. Safe to repeat."""
        names.object_key(prefix.rstrip("/"))
        return self.delete_many(found.key for found in self.list(prefix))

    def copy(self, source: str, target: str) -> None:
        """Copy inside the bucket, on the server, with metadata. Raises NotFound."""
        names.object_key(target)
        with s3.translated(self.config, source):
            self._client.copy_object(self.config.bucket, target, CopySource(self.config.bucket, source))

    def compose(self, target: str, sources: Sequence[tuple[str, int, int] | str]) -> None:
        """Join objects, or (key, offset, length) ranges of them, to `target` on the server.

        S3 wants at least 5 MiB of every source but the last; a smaller one raises StoreRejected.
        """
        names.object_key(target)
        bucket = self.config.bucket
        parts = [
            ComposeSource(bucket, source)
            if isinstance(source, str)
            else ComposeSource(bucket, source[0], offset=source[1], length=source[2])
            for source in sources
        ]
        with s3.translated(self.config, target):
            self._client.compose_object(bucket, target, parts)

    def presign_get(self, key: str, seconds: int) -> str:
        """A URL that reads the object without credentials, for 1 second to 7 days."""
        return self._presign("GET", key, seconds)

    def presign_put(self, key: str, seconds: int) -> str:
        """A URL that writes the object without credentials, for 1 second to 7 days."""
        return self._presign("PUT", key, seconds)

    def _presign(self, method: str, key: str, seconds: int) -> str:
        names.object_key(key)
        with s3.translated(self.config, key):
            expires = timedelta(seconds=seconds)
            return str(self._client.get_presigned_url(method, self.config.bucket, key, expires=expires))


def _batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _release(response: BaseHTTPResponse) -> None:
    # Closing first drops what a caller did not read; an unread connection must not go back to the pool.
    response.close()
    response.release_conn()
