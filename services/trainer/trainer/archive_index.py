"""The index of a session archive: which entries it holds, with the sha256 of each, and what may be in one at all. Pure.

    darkroom-session.json                     the index, first entry of the tar
    session.json  instance_images/<file>  captions/<stem>.txt  runs/<run>/recipe.json
    checkpoints/<id>/manifest.json  checkpoints/<id>/<path>

`session_export` makes it, `session_import` reads it; `archive_tar` lays it out as a tar.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from artifacts import names
from artifacts.errors import InvalidName, ManifestInvalid
from artifacts.records import RecordReader, encode
from artifacts.sessions import MAX_CAPTION_BYTES

from trainer import uploads
from trainer.errors import ArchiveInvalid

NAME = "darkroom-session.json"
SESSION = "session.json"
SCHEMA = 1
MAX_INDEX_BYTES = 32 * 1024 * 1024
MAX_ENTRIES = 100_000
_MAX_RECORD_BYTES = 4 * 1024 * 1024
_MAX_CHECKPOINT_FILE_BYTES = 64 * 1024**3
_RUN = re.compile(r"runs/[a-z0-9][a-z0-9-]{0,39}/recipe\.json")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_PIXELS = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One file of an archive. width_px, height_px: of an instance image, as far as they are known, else 0."""

    path: str
    size_bytes: int
    sha256: str
    width_px: int = 0
    height_px: int = 0

    @property
    def checkpoint(self) -> str:
        """Id of the checkpoint it belongs to; empty if to none."""
        return self.path.split("/")[1] if self.path.startswith("checkpoints/") else ""

    @property
    def file(self) -> str:
        """Path inside its checkpoint, or its file name."""
        return self.path.split("/", 2)[2] if self.checkpoint else self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Index:
    """session: fields of session.json that a person wants to see at once. entries: by path, session.json among them."""

    session: Mapping[str, Any]
    entries: tuple[Entry, ...]

    @property
    def checkpoints(self) -> list[str]:
        """Ids of the checkpoints, in order."""
        return sorted({entry.checkpoint for entry in self.entries} - {""})

    @property
    def by_path(self) -> dict[str, Entry]:
        """The entries by their paths."""
        return {entry.path: entry for entry in self.entries}

    def of_checkpoint(self, checkpoint: str) -> list[Entry]:
        """The entries of one checkpoint."""
        return [entry for entry in self.entries if entry.checkpoint == checkpoint]

    def encode(self) -> bytes:
        """The bytes of darkroom-session.json, the same for equal indexes. The last field guards the others."""
        record: dict[str, Any] = {
            "schema": SCHEMA,
            "session": dict(self.session),
            "checkpoints": self.checkpoints,
            "entries": [_entry_record(entry) for entry in self.entries],
        }
        return encode(record | {"sha256": _digest(record)})


def etag(encoded: bytes) -> str:
    """What stands for the content of the whole archive."""
    return hashlib.sha256(encoded).hexdigest()


def decode(data: bytes) -> Index:
    """An index from elsewhere. Raises ArchiveInvalid with the first few things that are wrong with it."""
    try:
        reader = RecordReader(NAME, data)
        schema = reader.integer("schema")
        session, items = reader.mapping("session"), reader.items("entries", required=True)
        digest = reader.text("sha256")
        reader.finish()
        record = {name: value for name, value in json.loads(data).items() if name != "sha256"}
    except ManifestInvalid as error:
        raise ArchiveInvalid("; ".join(error.problems)) from error
    if schema != SCHEMA:
        raise ArchiveInvalid(f"schema {schema}, expected {SCHEMA}")
    try:
        if digest != _digest(record):
            raise ArchiveInvalid("its sha256 is not that of its other fields: it was damaged or edited")
    except ValueError as error:  # NaN, which no index holds
        raise ArchiveInvalid(str(error)) from error
    if len(items) > MAX_ENTRIES:
        raise ArchiveInvalid(f"{len(items)} entries, at most {MAX_ENTRIES} are accepted")
    index = Index(session, tuple(_entry(item) for item in items))
    _check_whole(index)
    return index


def problem_of(entry: Entry) -> str:
    """Why an entry may not be in an archive; empty if it may."""
    limit = _limit(entry.path)
    if limit is None:
        return f"{entry.path!r} is no place for an entry of a session"
    if entry.size_bytes > limit:
        return f"{entry.path!r} has {entry.size_bytes} bytes, at most {limit} are accepted"
    return ""


def _limit(path: str) -> int | None:
    """The largest size of an entry with this path; None if no entry may have it."""
    folder, _, rest = path.partition("/")
    try:
        if path == SESSION or _RUN.fullmatch(path):
            return _MAX_RECORD_BYTES
        if folder == "instance_images" and names.file_name(rest):
            return uploads.MAX_BYTES
        if folder == "captions" and names.file_name(rest).endswith(".txt"):
            return MAX_CAPTION_BYTES
        checkpoint, _, file = rest.partition("/")
        if folder == "checkpoints" and names.checkpoint_id(checkpoint):
            if file == "manifest.json":
                return _MAX_RECORD_BYTES
            return _MAX_CHECKPOINT_FILE_BYTES if names.file_path(file) else None
    except InvalidName:
        return None
    return None


def _check_whole(index: Index) -> None:
    problems = [problem for entry in index.entries if (problem := problem_of(entry))]
    paths = [entry.path for entry in index.entries]
    if paths != sorted(set(paths)):
        problems.append("its entries are not in order of path, each once")
    if SESSION not in paths:
        problems.append(f"{SESSION} is missing")
    known = set(paths)
    problems += [
        f"checkpoint {checkpoint!r} has no manifest.json"
        for checkpoint in index.checkpoints
        if f"checkpoints/{checkpoint}/manifest.json" not in known
    ]
    if problems:
        raise ArchiveInvalid("; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else ""))


def _entry_record(entry: Entry) -> dict[str, Any]:
    record: dict[str, Any] = {"path": entry.path, "size_bytes": entry.size_bytes, "sha256": entry.sha256}
    if entry.width_px and entry.height_px:
        record |= {"width_px": entry.width_px, "height_px": entry.height_px}
    return record


def _entry(item: Any) -> Entry:
    if not isinstance(item, dict) or not isinstance(item.get("path"), str):
        raise ArchiveInvalid(f"{str(item)[:100]!r} is no entry: an object with a path was expected")
    path, sha256 = item["path"], item.get("sha256")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ArchiveInvalid(f"{path!r}: sha256 {sha256!r} is not 64 hex digits")
    size, width, height = (
        _whole(item, path, name, most)
        for name, most in (("size_bytes", 1 << 62), ("width_px", _MAX_PIXELS), ("height_px", _MAX_PIXELS))
    )
    return Entry(path, size, sha256, width, height)


def _whole(item: Mapping[str, Any], path: str, name: str, most: int) -> int:
    value = item.get(name, None if name == "size_bytes" else 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ArchiveInvalid(f"{path!r}: {name} {value!r} is not a whole number from 0 to {most}")
    return value


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(encode(record)).hexdigest()


def checkpoint_files(entries: Sequence[Entry]) -> list[Entry]:
    """Those of one checkpoint's entries that are its files, without its manifest."""
    return [entry for entry in entries if entry.file != "manifest.json"]
