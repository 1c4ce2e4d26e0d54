"""Sessions: one subject's photos and captions, as a person can browse and edit them in the bucket.

    sessions/<name>/session.json              the record, created once
    sessions/<name>/instance_images/<file>    photos; width, height and sha256 are user metadata of the object
    sessions/<name>/captions/<stem>.txt       one caption each, plain UTF-8 text

Trainer, captioner, gateway and the CLI call this. It does not decode images: width and height come from the caller.
Hidden files (".DS_Store"), which file browsers leave behind, are no part of a session.
Every method that takes a session raises InvalidName, and NotFound if there is no such session.
"""

import builtins
import hashlib
import mimetypes
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from artifacts import names, records
from artifacts.errors import AlreadyExists, CaptionInvalid, InvalidName, NotFound
from artifacts.store import ObjectStat, ObjectStore

__all__ = ["InstanceImage", "Session", "Sessions"]

T = TypeVar("T")

ROOT = "sessions/"
MAX_CAPTION_BYTES = 64 * 1024
# Small objects cost a round trip each; this many at once keeps a hundred photos within a second.
_PARALLEL_REQUESTS = 8


@dataclass(frozen=True)
class Session:
    """The record of one session. base_model: registry name or empty. labels: free pairs for people and selectors."""

    name: str
    base_model: str = ""
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    create_time: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class InstanceImage:
    """One photo. width and height in pixels are 0 and sha256 is empty if unknown (a file put into the bucket by hand);
    caption None if there is no caption file."""

    filename: str
    size_bytes: int
    width: int
    height: int
    sha256: str
    caption: str | None


class Sessions:
    """All sessions of one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def create(
        self, name: str, base_model: str = "", description: str = "", labels: Mapping[str, str] | None = None
    ) -> Session:
        """Create an empty session. Raises AlreadyExists, InvalidName."""
        session = Session(names.session_name(name), base_model, description, dict(labels or {}))
        record = {
            "schema": records.SCHEMA,
            "name": name,
            "base_model": base_model,
            "description": description,
            "labels": dict(session.labels),
            "create_time": records.rfc3339(session.create_time),
        }
        try:
            self.store.put_if_absent(f"{folder(name)}session.json", records.encode(record), "application/json")
        except AlreadyExists:
            raise AlreadyExists("session", name) from None
        return session

    def get(self, name: str) -> Session:
        """The record. Raises ManifestInvalid if session.json was damaged by hand."""
        key = f"{folder(name)}session.json"
        try:
            data = self.store.get(key)
        except NotFound:
            raise NotFound("session", name, self.store.config.place) from None
        reader = records.RecordReader(key, data)
        session = Session(
            name=reader.text("name"),
            base_model=reader.text("base_model", ""),
            description=reader.text("description", ""),
            labels=reader.pairs("labels"),
            create_time=reader.time("create_time"),
        )
        if session.name and session.name != name:
            reader.problem(f"name: {session.name!r}, but the folder is {name!r}")
        reader.finish()
        return session

    def list(self) -> Iterator[Session]:
        """All sessions in order of name. Raises ManifestInvalid for a damaged session.json."""
        for name in sorted(self.store.list_folders(ROOT)):
            try:
                yield self.get(name)
            except (NotFound, InvalidName):  # a folder that is no session, or one deleted since
                continue

    def delete(self, name: str) -> int:
        """Remove the session and everything below it, runs included; returns the number of objects. Safe to repeat.

        The record goes last, so an interrupted delete stays visible and can be repeated.
        """
        record = f"{folder(name)}session.json"
        content = (found.key for found in self.store.list(folder(name)) if found.key != record)
        return self.store.delete_many(content) + self.store.delete_prefix(folder(name))

    def put_image(self, session: str, filename: str, data: bytes, width: int = 0, height: int = 0) -> InstanceImage:
        """Add a photo, or replace the one of this file name; its caption stays.

        Raises AlreadyExists if another photo has the same stem (a.png, a.jpg): both would share one caption file.
        Of two such photos uploaded at the same moment both may be refused, but never are both kept.
        """
        names.file_name(filename)
        self._require(session)
        self._refuse_twin(session, filename)
        sha256 = hashlib.sha256(data).hexdigest()
        metadata = {"sha256": sha256, "width": str(width), "height": str(height)}
        content_type = mimetypes.guess_type(filename)[0] or "application/octet-stream"
        self.store.put(_image_key(session, filename), data, content_type, metadata=metadata)
        try:
            self._refuse_twin(session, filename)
        except AlreadyExists:
            self.store.delete(_image_key(session, filename))
            raise
        return InstanceImage(filename, len(data), width, height, sha256, self.caption(session, filename))

    def image_names(self, session: str) -> builtins.list[str]:
        """File names of all photos, in order: one listing, whatever their number."""
        self._require(session)
        return sorted(self._files(_images_prefix(session)))

    def images(self, session: str, filenames: Iterable[str] | None = None) -> builtins.list[InstanceImage]:
        """All photos, or those of these names, with their captions, in order of file name. Raises CaptionInvalid.

        No photo's bytes are read; each costs the request for its metadata and that for its caption.
        """
        return [*self.each_image(session, filenames)]

    def each_image(self, session: str, filenames: Iterable[str] | None = None) -> Iterator[InstanceImage]:
        """The same, one after the other: who stops asking stops the requests."""
        wanted = self.image_names(session) if filenames is None else sorted(filenames)
        captioned = {stat.key for stat in self.store.list(f"{folder(session)}captions/")}

        def image(filename: str) -> InstanceImage | None:
            try:
                stat = self.store.stat(_image_key(session, filename))
            except NotFound:  # deleted since it was listed
                return None
            key = _caption_key(session, filename)
            return _described(filename, stat, self._read_caption(key) if key in captioned else None)

        with self._pool() as pool:
            try:
                yield from filter(None, pool.map(image, wanted))
            finally:
                pool.shutdown(cancel_futures=True)

    def image_size(self, session: str, filename: str) -> int:
        """Bytes of one photo, without reading them. Raises NotFound."""
        return self._one_image(session, filename, self.store.stat).size_bytes

    def read_image(self, session: str, filename: str) -> bytes:
        """The bytes of one photo. Raises NotFound."""
        return self._one_image(session, filename, self.store.get)

    def delete_image(self, session: str, filename: str) -> None:
        """Remove a photo and its caption. Raises NotFound."""
        self._require_image(session, filename)
        self.store.delete(_caption_key(session, filename))  # first: no caption may stay without its photo
        self.store.delete(_image_key(session, filename))

    def caption(self, session: str, filename: str) -> str | None:
        """The caption of one photo without surrounding white space; None if it has none. Raises CaptionInvalid."""
        names.file_name(filename)
        return self._read_caption(_caption_key(session, filename))

    def set_caption(self, session: str, filename: str, text: str) -> None:
        """Write the caption of one photo. Raises NotFound if the photo does not exist, CaptionInvalid if too long."""
        self._require_image(session, filename)
        key, data = _caption_key(session, filename), (text.strip() + "\n").encode()
        if len(data) > MAX_CAPTION_BYTES:
            raise CaptionInvalid(key, f"{len(data)} bytes, at most {MAX_CAPTION_BYTES} are allowed")
        self.store.put(key, data, "text/plain; charset=utf-8")

    def delete_caption(self, session: str, filename: str) -> None:
        """Remove the caption of one photo; fine if it has none."""
        self._require_image(session, filename)
        self.store.delete(_caption_key(session, filename))

    def stray_captions(self, session: str) -> builtins.list[str]:
        """File names in captions/ that belong to no photo, as happens when people edit the bucket."""
        self._require(session)
        wanted = {f"{_stem(filename)}.txt" for filename in self.image_names(session)}
        return [name for name in self._files(f"{folder(session)}captions/") if name not in wanted]

    def _files(self, prefix: str) -> Iterator[str]:
        """Names of the files directly below a prefix, without hidden ones."""
        for stat in self.store.list(prefix):
            name = stat.key[len(prefix) :]
            if "/" not in name and not name.startswith("."):
                yield name

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_PARALLEL_REQUESTS, thread_name_prefix="sessions")

    def _require(self, session: str) -> None:
        if not self.store.exists(f"{folder(session)}session.json"):
            raise NotFound("session", session, self.store.config.place)

    def _require_image(self, session: str, filename: str) -> None:
        names.file_name(filename)
        if not self.store.exists(_image_key(session, filename)):
            self._require(session)
            raise NotFound("instance image", filename, f"session {session!r}")

    def _one_image(self, session: str, filename: str, request: Callable[[str], T]) -> T:
        """The answer of one request about a photo's key. Raises NotFound naming what is not there, session or photo."""
        names.file_name(filename)
        try:
            return request(_image_key(session, filename))
        except NotFound:
            self._require(session)
            raise NotFound("instance image", filename, f"session {session!r}") from None

    def _refuse_twin(self, session: str, filename: str) -> None:
        prefix = _images_prefix(session)
        for stat in self.store.list(f"{prefix}{_stem(filename)}"):
            other = stat.key[len(prefix) :]
            if other != filename and _stem(other) == _stem(filename):
                advice = f"rename {filename!r}: both would share the caption {_stem(filename)}.txt"
                raise AlreadyExists("instance image", other, advice)

    def _read_caption(self, key: str) -> str | None:
        data = b""
        try:
            for chunk in self.store.reader(key):
                data += chunk
                if len(data) > MAX_CAPTION_BYTES:
                    raise CaptionInvalid(key, f"more than {MAX_CAPTION_BYTES} bytes")
        except NotFound:
            return None
        try:
            return data.decode("utf-8-sig").strip()  # editors on Windows add a byte order mark
        except UnicodeDecodeError as error:
            raise CaptionInvalid(key, f"not UTF-8 at byte {error.start}; save it as UTF-8") from error


def folder(session: str) -> str:
    """The key prefix of one session, with its slash. Raises InvalidName."""
    return f"{ROOT}{names.session_name(session)}/"


def _images_prefix(session: str) -> str:
    return f"{folder(session)}instance_images/"


def _image_key(session: str, filename: str) -> str:
    return f"{_images_prefix(session)}{filename}"


def _caption_key(session: str, filename: str) -> str:
    return f"{folder(session)}captions/{_stem(filename)}.txt"


def _stem(filename: str) -> str:
    return filename.rsplit(".", 1)[0]


def _described(filename: str, stat: ObjectStat, caption: str | None) -> InstanceImage:
    facts = stat.metadata
    width, height = _pixels(facts.get("width")), _pixels(facts.get("height"))
    return InstanceImage(filename, stat.size_bytes, width, height, facts.get("sha256", ""), caption)


def _pixels(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
