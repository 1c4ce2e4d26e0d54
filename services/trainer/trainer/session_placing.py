"""From staged entries to checkpoints and a session: the last part of an import, in which things become visible.

`session_import` calls it once everything has come. Blocking; raises what the store raises.
"""

import json
import logging
import mimetypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

from artifacts.checkpoints import Checkpoints
from artifacts.errors import AlreadyExists, ArtifactError, ManifestInvalid
from artifacts.manifest import FileEntry, Manifest, decode
from artifacts.records import RecordReader, encode, rfc3339
from artifacts.store import ObjectStore

from trainer.archive_index import SESSION, Entry, Index, checkpoint_files
from trainer.archive_staging import Staging
from trainer.errors import ArchiveDamaged, ArchiveInvalid
from trainer.session_export import check_recipe

# An image is at most 64 MiB and is in memory while it is put in its place.
_PARALLEL_REQUESTS = 4

log = logging.getLogger(__name__)


class Placing:
    """The entries of one archive, all staged, and the session they become."""

    def __init__(self, store: ObjectStore, index: Index, staging: Staging, session: str) -> None:
        self._store = store
        self._index = index
        self._staging = staging
        self._session = session
        self._folder = f"sessions/{session}/"

    def check(self, checkpoints: Sequence[str], with_session: bool) -> None:
        """Read every record before anything becomes visible. Raises ArchiveInvalid for one that is none."""
        try:
            for checkpoint in checkpoints:
                self._manifest(checkpoint)
            if with_session:
                self._record()
                for entry in self._index.entries:
                    if entry.path.startswith("runs/"):
                        check_recipe(self._staging.read(entry), entry.path)
        except ManifestInvalid as error:
            raise ArchiveInvalid(str(error)) from error

    def publish_checkpoint(self, checkpoint: str) -> None:
        """Publish one checkpoint with everything its manifest says. Raises AlreadyExists."""
        manifest, entries = self._manifest(checkpoint), self._index.of_checkpoint(checkpoint)
        facts = {each.name: getattr(manifest, each.name) for each in fields(Manifest)}
        kept = {name: value for name, value in facts.items() if name not in ("id", "files", "writer")}
        with Checkpoints(self._store).begin(checkpoint, **kept) as writer:
            for entry in checkpoint_files(entries):
                with writer.open(entry.file) as file:
                    for chunk in self._staging.reader(entry):
                        file.write(chunk)
            if writer.files != manifest.files:
                raise ArchiveDamaged(f"checkpoint {checkpoint!r}", "the files of its manifest", "other digests")
            writer.publish()

    def publish_session(self) -> None:
        """Put the files in their places and, last, session.json. Raises AlreadyExists; nothing stays visible then."""
        entries = [entry for entry in self._index.entries if not entry.checkpoint and entry.path != SESSION]
        record = self._record()
        try:
            with ThreadPoolExecutor(_PARALLEL_REQUESTS, thread_name_prefix="import") as pool:
                for _ in pool.map(self._place, entries):
                    pass
            self._store.put_if_absent(self._folder + SESSION, record, "application/json")
        except AlreadyExists:
            self._take_back(entries)
            raise AlreadyExists("session", self._session, "somebody created it meanwhile; import again") from None
        except BaseException:
            self._take_back(entries)
            raise

    def _place(self, entry: Entry) -> None:
        content_type = mimetypes.guess_type(entry.path)[0] or "application/octet-stream"
        metadata = None
        if entry.path.startswith("instance_images/"):
            metadata = {"sha256": entry.sha256, "width": str(entry.width_px), "height": str(entry.height_px)}
        if entry.path.startswith("captions/"):
            content_type = "text/plain; charset=utf-8"
        self._store.put(self._folder + entry.path, self._staging.read(entry), content_type, metadata=metadata)

    def _take_back(self, entries: Sequence[Entry]) -> None:
        """Remove the files: a session of that name, now or later, must not find them in its folder."""
        try:
            self._store.delete_many(self._folder + entry.path for entry in entries)
        except ArtifactError as error:
            # Another error is on its way out, and the next import of the archive replaces them.
            log.warning("files of session %r, which was not imported, stay in the store: %s", self._session, error)

    def _record(self) -> bytes:
        """session.json for the name that the session gets. Raises ManifestInvalid, ArchiveInvalid."""
        data = self._staging.read(self._index.by_path[SESSION])
        reader = RecordReader(SESSION, data)
        found = {name: reader.text(name, "") for name in ("name", "base_model", "description")}
        found["create_time"] = rfc3339(reader.time("create_time"))
        reader.pairs("labels")
        reader.finish()
        if found != self._index.session:
            raise ArchiveInvalid(f"{SESSION} says {found}, the index {dict(self._index.session)}")
        record: dict[str, Any] = json.loads(data)
        return data if record["name"] == self._session else encode(record | {"name": self._session})

    def _manifest(self, checkpoint: str) -> Manifest:
        """The manifest of a checkpoint, held to the index. Raises ManifestInvalid, ArchiveInvalid."""
        path = f"checkpoints/{checkpoint}/manifest.json"
        manifest = decode(path, checkpoint, self._staging.read(self._index.by_path[path]))
        files = tuple(
            FileEntry(entry.file, entry.size_bytes, entry.sha256)
            for entry in checkpoint_files(self._index.of_checkpoint(checkpoint))
        )
        if manifest.files != files or manifest.writer:
            raise ArchiveInvalid(f"{path} lists other files than the index, or in another order, or names a writer")
        return manifest
