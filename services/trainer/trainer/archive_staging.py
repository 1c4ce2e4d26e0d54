"""Entries of an archive that has not been imported yet, kept where a broken import finds them again.

    imports/<session>/<etag of the archive>/<sha256 of the entry>

Only whole entries that have their digest get there. `session_import` fills it, `session_placing` reads it. They may be
deleted at any time: what is missing is asked for again.
"""

import hashlib
import threading
from collections.abc import Iterator

from artifacts.store import ObjectStore

from trainer.archive_index import Entry
from trainer.errors import ArchiveDamaged

ROOT = "imports/"


class Staging:
    """The staged entries of one archive for one session. Blocking; raises what the store raises."""

    def __init__(self, store: ObjectStore, session: str, etag: str) -> None:
        self._store = store
        self._session_prefix = f"{ROOT}{session}/"
        self._prefix = f"{self._session_prefix}{etag}/"

    def digests(self) -> set[str]:
        """sha256 of what is there."""
        return {stat.key[len(self._prefix) :] for stat in self._store.list(self._prefix)}

    def receive(self, entry: Entry) -> "Arrival":
        """Take an entry in."""
        return Arrival(self._store, self._prefix + entry.sha256, entry)

    def reader(self, entry: Entry) -> Iterator[bytes]:
        """The content of an entry in chunks of at most 1 MiB. Raises ArchiveDamaged after the last one, NotFound."""
        digest, size_bytes = hashlib.sha256(), 0
        for chunk in self._store.reader(self._prefix + entry.sha256):
            digest.update(chunk)
            size_bytes += len(chunk)
            yield chunk
        _compare(entry, size_bytes, digest.hexdigest())

    def read(self, entry: Entry) -> bytes:
        """The content of an entry that fits into memory. Raises as `reader`."""
        return b"".join(self.reader(entry))

    def clear(self) -> None:
        """Remove everything that was staged for the session, that of other archives included: none can become it now."""
        self._store.delete_prefix(self._session_prefix)


class Arrival:
    """One entry on its way in. It counts only once `finish` has returned; `abort` before that forgets it.

    A lock, because a call that is cancelled aborts while its last write may still be under way in another thread.
    """

    def __init__(self, store: ObjectStore, key: str, entry: Entry) -> None:
        self.entry = entry
        self._writer = store.writer(key)
        self._lock = threading.Lock()
        self._over = False

    @property
    def is_complete(self) -> bool:
        """Whether all bytes came."""
        return self._writer.size == self.entry.size_bytes

    def write(self, data: bytes) -> None:
        """Take the next bytes. Raises ArchiveDamaged if there are too many."""
        with self._lock:
            if self._writer.size + len(data) > self.entry.size_bytes:
                raise ArchiveDamaged(self.entry.path, f"{self.entry.size_bytes} bytes", "more")
            if not self._over:
                self._writer.write(data)

    def finish(self) -> None:
        """Keep the entry. Raises ArchiveDamaged unless its bytes are those of the index."""
        with self._lock:
            _compare(self.entry, self._writer.size, self._writer.sha256)
            if not self._over:
                self._over = True
                with self._writer:  # leaving the block completes the upload, or drops it
                    pass

    def abort(self) -> None:
        """Drop what came so far; without effect once `finish` has begun. Safe to repeat."""
        with self._lock:
            if not self._over:
                self._over = True
                self._writer.abort()


def _compare(entry: Entry, size_bytes: int, sha256: str) -> None:
    if size_bytes != entry.size_bytes:
        raise ArchiveDamaged(entry.path, f"{entry.size_bytes} bytes", f"{size_bytes} bytes")
    if sha256 != entry.sha256:
        raise ArchiveDamaged(entry.path, f"sha256 {entry.sha256}", f"sha256 {sha256}")
