"""Importing a session: what of an archive is missing here, and making it visible, all at once, when everything has come.

`server.archives` feeds it from the stream. Blocking; raises what the store raises.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from artifacts import names
from artifacts.checkpoints import Checkpoints
from artifacts.errors import AlreadyExists, InvalidName, NotFound
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore

from trainer import archive_index
from trainer.archive_index import SESSION, Entry
from trainer.archive_staging import Arrival, Staging
from trainer.errors import ArchiveInvalid, CheckpointDiffers, UploadMalformed
from trainer.session_export import SessionExport, portable
from trainer.session_placing import Placing


@dataclass(frozen=True)
class Imported:
    """What an import did. checkpoints: ids of those it published."""

    session: str
    unchanged: bool
    checkpoints: tuple[str, ...]


class SessionImport:
    """One archive on its way into the bucket. Attributes: name, of the session to be; missing, entries to be sent, in order."""

    def __init__(self, store: ObjectStore, encoded: bytes, session_id: str = "") -> None:
        """encoded: the archive's index. session_id: another name than the exported session's, or "".

        Raises ArchiveInvalid, AlreadyExists for a session with other content, CheckpointDiffers.
        """
        self._store = store
        self._index = archive_index.decode(encoded)
        self.name = session_id or _name_of(self._index.session)
        self._is_there = self._compare_session()
        self._to_publish = [each for each in self._index.checkpoints if not self._compare_checkpoint(each)]
        self._staging = Staging(store, self.name, archive_index.etag(encoded))
        self.missing = self._find_missing()
        self._awaited = {entry.path: entry for entry in self.missing}

    @property
    def total_bytes(self) -> int:
        """Size of all entries of the archive."""
        return sum(entry.size_bytes for entry in self._index.entries)

    def receive(self, path: str) -> Arrival:
        """Begin with an entry. Raises UploadMalformed for one that is not awaited."""
        entry = self._awaited.get(path)
        if entry is None:
            raise UploadMalformed(f"entry {path!r} was not asked for, or came twice")
        return self._staging.receive(entry)

    def finish(self, arrival: Arrival) -> None:
        """Keep an entry that has come. Raises ArchiveDamaged."""
        arrival.finish()
        del self._awaited[arrival.entry.path]

    def publish(self) -> Imported:
        """Publish the checkpoints, then the session.

        Raises UploadMalformed while entries are missing, ArchiveInvalid for records that contradict each other, and
        AlreadyExists or CheckpointDiffers if somebody else was first with other content.
        """
        if self._awaited:
            raise UploadMalformed(f"the import ended before these entries came: {', '.join(sorted(self._awaited)[:5])}")
        placing = Placing(self._store, self._index, self._staging, self.name)
        placing.check(self._to_publish, with_session=not self._is_there)
        for checkpoint in self._to_publish:
            try:
                placing.publish_checkpoint(checkpoint)
            except AlreadyExists:
                if not self._compare_checkpoint(checkpoint):
                    raise
        if not self._is_there:
            placing.publish_session()
        self._staging.clear()
        unchanged = self._is_there and not self._to_publish
        return Imported(self.name, unchanged, tuple(self._to_publish))

    def _compare_session(self) -> bool:
        """Whether the session is there with this content. Raises AlreadyExists if it is there with another one."""
        wanted = {entry.path: entry.sha256 for entry in self._index.entries if not entry.checkpoint}
        try:
            Sessions(self._store).get(self.name)
        except NotFound:
            self._refuse_leftovers(set(wanted))
            return False
        here = SessionExport(self._store, self.name, include_checkpoints=False).index
        found = {entry.path: entry.sha256 for entry in here.entries}
        # The record names the session, so under another name its bytes differ.
        differing = {path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path)} - {SESSION}
        if _without_name(self._index.session) != _without_name(here.session):
            differing.add(SESSION)
        if differing:
            raise _taken(self.name, f"it has other content than the archive ({_first(differing)})")
        return True

    def _refuse_leftovers(self, wanted: set[str]) -> None:
        """Objects where the session will be, which are none of its, would become part of it."""
        prefix = f"sessions/{self.name}/"
        found = {stat.key[len(prefix) :] for stat in self._store.list(prefix)}
        if foreign := found - wanted:
            raise _taken(self.name, f"there is no such session, but objects below its folder ({_first(foreign)})")

    def _compare_checkpoint(self, checkpoint: str) -> bool:
        """Whether the checkpoint is published here. Raises CheckpointDiffers if it is another one."""
        try:
            found = Checkpoints(self._store).get(checkpoint)
        except NotFound:
            return False
        archived = self._index.by_path[f"checkpoints/{checkpoint}/manifest.json"].sha256
        here = hashlib.sha256(portable(found)).hexdigest()
        if here != archived:
            raise CheckpointDiffers(checkpoint, archived, here)
        return True

    def _find_missing(self) -> list[Entry]:
        """What has to be sent: each content once, small records before the files of checkpoints."""
        staged, missing = self._staging.digests(), []
        for entry in sorted(self._index.entries, key=_order):
            wanted = entry.checkpoint in self._to_publish if entry.checkpoint else not self._is_there
            if wanted and entry.sha256 not in staged:
                staged.add(entry.sha256)
                missing.append(entry)
        return missing


def _order(entry: Entry) -> tuple[bool, bool, str]:
    return bool(entry.checkpoint), entry.file != "manifest.json", entry.path


def _name_of(session: Mapping[str, object]) -> str:
    try:
        return names.session_name(str(session.get("name", "")))
    except InvalidName as error:
        raise ArchiveInvalid(f"session: {error}") from error


def _without_name(session: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in session.items() if name != "name"}


def _taken(session: str, why: str) -> AlreadyExists:
    return AlreadyExists("session", session, f"{why}; import under another name, or delete it first")


def _first(paths: set[str]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return min(paths) + more
