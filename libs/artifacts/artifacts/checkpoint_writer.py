"""Writing one checkpoint: files first, digests on the way, manifest.json last by a conditional write.

`Checkpoints.begin` makes these; trainer and converter use them.
"""

import hashlib
import logging
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from artifacts import names, reservation
from artifacts.errors import AccessDenied, AlreadyExists, ArtifactError, Conflict, StoreRejected
from artifacts.manifest import FileEntry, Manifest, decode
from artifacts.store import CHUNK_BYTES, ObjectStore, ObjectWriter

_log = logging.getLogger(__name__)


class CheckpointWriter:
    """An unpublished checkpoint. Invisible to readers until `publish` returns; used in a `with` block."""

    def __init__(self, store: ObjectStore, folder: str, checkpoint_id: str, fields: dict[str, Any]) -> None:
        self._store = store
        self._folder = folder
        self._writer = secrets.token_hex(4)
        self._entries: dict[str, FileEntry] = {}
        self._closed = False
        self._keep_files = False
        # Built and encoded now, so that a wrong field fails before hours of work, not after.
        self._draft = Manifest(id=checkpoint_id, files=(), writer=self._writer, **fields)
        decode(self._manifest_key, checkpoint_id, self._draft.encode())
        reservation.find(store, self._manifest_key, checkpoint_id)

    @property
    def _manifest_key(self) -> str:
        return f"{self._folder}manifest.json"

    @property
    def _files_prefix(self) -> str:
        return f"{self._folder}{self._writer}/"

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """What was written completely so far, in order of path."""
        return tuple(self._entries[path] for path in sorted(self._entries))

    @property
    def draft(self) -> Manifest:
        """The manifest as it stands, for `Checkpoints` to read back what was written before anybody else can."""
        return replace(self._draft, files=self.files)

    def add_bytes(self, path: str, data: bytes) -> FileEntry:
        """Write one small file."""
        self._check(path)
        self._store.put(f"{self._files_prefix}{path}", data)
        return self._record(path, len(data), hashlib.sha256(data).hexdigest())

    @contextmanager
    def open(self, path: str) -> Iterator[ObjectWriter]:
        """Stream one file of unknown length: `with writer.open(path) as file: file.write(...)`."""
        self._check(path)
        with self._store.writer(f"{self._files_prefix}{path}") as file:
            yield file
        self._record(path, file.size, file.sha256)

    def add_file(self, path: str, source: Path) -> FileEntry:
        """Stream one local file."""
        with source.open("rb") as local, self.open(path) as file:
            while chunk := local.read(CHUNK_BYTES):
                file.write(chunk)
        return self._entries[path]

    def publish(self, metrics: Mapping[str, Any] | None = None, reserved: str = "") -> Manifest:
        """Make the checkpoint visible, all at once. `metrics` are added to those given to `begin`.

        reserved: what `Checkpoints.reserve` returned: publish only in place of this reservation. Without it any
        reservation is replaced: the first manifest stands.

        Raises AlreadyExists if another writer of this id was first; its checkpoint stays as it is and our files go.
        Conflict if the place is no longer reserved for us; nothing was published, and `publish` may be repeated with a
        new reservation. After StoreUnavailable nobody knows whether it was published: the files stay, and `publish`
        may be repeated. ValueError for metrics that JSON cannot hold (NaN).
        """
        self._check_open()
        if not self._entries:
            raise ValueError(f"checkpoint {self._draft.id!r} has no files")
        manifest = replace(self._draft, files=self.files, metrics={**self._draft.metrics, **(metrics or {})})
        data = manifest.encode()
        self._keep_files = True  # until it is certain that no manifest names them
        try:
            self._put_manifest(data, reserved)
        except AlreadyExists:
            published = decode(self._manifest_key, manifest.id, self._store.get(self._manifest_key))
            if published.writer != self._writer:
                self._keep_files = False
                self.abort()
                raise AlreadyExists("checkpoint", manifest.id, "another writer published it first") from None
            manifest = published  # by an earlier call of ours, whose answer was lost
        except (AccessDenied, StoreRejected, Conflict):
            self._keep_files = False
            raise
        self._closed = True
        self._sweep_others()
        return manifest

    def _put_manifest(self, data: bytes, reserved: str) -> None:
        """Raises AlreadyExists if a manifest is there, Conflict if the reservation that was asked for is not."""
        etag = reserved
        while True:
            try:
                reservation.swap(self._store, self._manifest_key, data, etag)
                return
            except (AlreadyExists, Conflict):
                etag = reservation.find(self._store, self._manifest_key, self._draft.id)
                if reserved:
                    raise

    def abort(self) -> None:
        """Remove what was uploaded; nothing was ever visible. Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        if self._keep_files:
            _log.warning("checkpoint %r may have been published; its files stay in the store", self._draft.id)
            return
        try:
            self._store.delete_prefix(self._files_prefix)
        except ArtifactError as error:
            # Mostly called while another error is on its way out; that one matters more.
            _log.warning("files of unpublished checkpoint %r stay in the store: %s", self._draft.id, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _sweep_others(self) -> None:
        """Remove the files of writers that came too late or died; no manifest can point at them any more."""
        try:
            for name in self._store.list_folders(self._folder):
                if name != self._writer:
                    self._store.delete_prefix(f"{self._folder}{name}/")
        except ArtifactError as error:
            _log.warning("left-over files of checkpoint %r stay in the store: %s", self._draft.id, error)

    def _check(self, path: str) -> None:
        self._check_open()
        names.file_path(path)
        if path in self._entries:
            raise AlreadyExists("file", path, "each file of a checkpoint is written once")

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"the writer of checkpoint {self._draft.id!r} is closed")

    def _record(self, path: str, size_bytes: int, sha256: str) -> FileEntry:
        entry = self._entries[path] = FileEntry(path, size_bytes, sha256)
        return entry
