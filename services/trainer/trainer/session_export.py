"""Exporting a session: its index as the bucket is now, and the bytes of its tar from any offset on.

`server.archives` streams it. Blocking; raises what the store raises. Nothing is kept in memory but the index and the small
records that an export makes by itself: recipes of runs, manifests of checkpoints.
"""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from artifacts.checkpoints import Checkpoints
from artifacts.errors import Conflict, ManifestInvalid, NotFound, StoreRejected
from artifacts.manifest import Manifest
from artifacts.records import SCHEMA, encode, rfc3339
from artifacts.sessions import Session, Sessions
from artifacts.store import ObjectStore
from jobs import manifest

from trainer import archive_index, archive_tar
from trainer.archive_index import Entry, Index
from trainer.archive_tar import Layout
from trainer.errors import OffsetBeyondEnd, SessionChanged, SessionNotExportable
from trainer.runs import Runs

BLOCK_BYTES = 1024 * 1024
_PARALLEL_REQUESTS = 8


@dataclass(frozen=True)
class Content:
    """Where the bytes of an entry are: an object of the bucket, or, if key is empty, made by the export."""

    entry: Entry
    key: str = ""
    data: bytes = b""


class SessionExport:
    """A session as it was when this was made."""

    def __init__(self, store: ObjectStore, name: str, include_checkpoints: bool) -> None:
        """Raises NotFound, ManifestInvalid, SessionNotExportable."""
        self._store = store
        self.name = name
        session = Sessions(store).get(name)
        found = list(_session_contents(store, name))
        if include_checkpoints:
            for each in checkpoints_of(store, name, found):
                found += _checkpoint_contents(store, each)
        found.sort(key=lambda content: content.entry.path)
        if problems := [problem for content in found if (problem := archive_index.problem_of(content.entry))]:
            raise SessionNotExportable(name, problems)
        self.index = Index(_summary(session), tuple(content.entry for content in found))
        encoded = self.index.encode()
        self.etag = archive_index.etag(encoded)
        first = Entry(archive_index.NAME, len(encoded), self.etag)
        self._contents = {content.entry.path: content for content in [Content(first, data=encoded), *found]}
        self._layout = Layout([first, *self.index.entries], int(session.create_time.timestamp()))
        self.size_bytes = self._layout.size_bytes

    def check(self, offset: int, etag: str) -> None:
        """Hold the offset and the etag of an earlier export to this one. Raises SessionChanged, OffsetBeyondEnd."""
        if etag and etag != self.etag:
            raise SessionChanged(self.name, f"its archive was {etag} and now is {self.etag}")
        if offset > self.size_bytes:
            raise OffsetBeyondEnd(offset, self.size_bytes)

    def read(self, offset: int) -> Iterator[bytes]:
        """The bytes of the tar from the offset on, in blocks of 1 MiB.

        Raises SessionChanged for an object that is gone or no longer the one of the index.
        """
        return archive_tar.blocks(self._layout.pieces(offset, self._read), BLOCK_BYTES)

    def _read(self, entry: Entry, offset: int) -> Iterator[bytes]:
        content = self._contents[entry.path]
        if not content.key:
            yield content.data[offset:]
            return
        digest, size_bytes = hashlib.sha256(), offset
        try:
            for chunk in self._store.reader(content.key, offset, entry.size_bytes - offset):
                digest.update(chunk)
                size_bytes += len(chunk)
                yield chunk
        except (NotFound, Conflict, StoreRejected) as error:  # a range beyond the end of a shorter object is rejected
            raise SessionChanged(self.name, f"{entry.path} cannot be read any more: {error}") from error
        # A part from the middle cannot be held to the digest; the reader of the whole tar does that.
        if size_bytes != entry.size_bytes or (offset == 0 and digest.hexdigest() != entry.sha256):
            raise SessionChanged(self.name, f"{entry.path} is no longer the file that was listed")


def checkpoints_of(store: ObjectStore, name: str, contents: list[Content]) -> list[Manifest]:
    """Published checkpoints that belong to a session: trained in it, named by its recipes, or made from one of those."""
    named = {str(json.loads(content.data)["checkpoint"]) for content in contents if _is_recipe(content.entry)}
    invalid: list[ManifestInvalid] = []
    rest = list(Checkpoints(store).list(invalid=invalid))  # a damaged manifest tells not even its session
    found: dict[str, Manifest] = {}
    while True:
        more = [
            each for each in rest if each.session == name or each.id in named or any(p in found for p in each.parents)
        ]
        if not more:
            return [found[checkpoint] for checkpoint in sorted(found)]
        found |= {each.id: each for each in more}
        rest = [each for each in rest if each.id not in found]


def portable(found: Manifest) -> bytes:
    """manifest.json as an archive holds it: files by path, and no name of the folder that its writer happened to use."""
    return replace(found, writer="", files=tuple(sorted(found.files, key=lambda file: file.path))).encode()


def _session_contents(store: ObjectStore, name: str) -> Iterator[Content]:
    folder = f"sessions/{name}/"
    keys = [f"{folder}{archive_index.SESSION}"]
    for part in ("instance_images/", "captions/"):
        keys += [key for stat in store.list(folder + part) if _belongs(key := stat.key, folder + part)]
    with ThreadPoolExecutor(_PARALLEL_REQUESTS, thread_name_prefix="export") as pool:
        yield from (content for content in pool.map(lambda key: _object(store, key, folder), keys) if content)
        runs = Runs(store).run_ids(name)
        yield from (content for content in pool.map(lambda run: _recipe(store, folder, run), runs) if content)


def _belongs(key: str, prefix: str) -> bool:
    """Whether an object is a file of a session; hidden ones and what lies deeper are not, see `artifacts.sessions`."""
    file = key[len(prefix) :]
    return "/" not in file and not file.startswith(".") and (not prefix.endswith("captions/") or file.endswith(".txt"))


def _object(store: ObjectStore, key: str, folder: str) -> Content | None:
    """An object as an entry; None if it was deleted since it was listed."""
    try:
        stat = store.stat(key)
        facts = stat.metadata
        sha256 = facts.get("sha256") or _sha256_of(store, key)
    except NotFound:
        return None
    edges = [int(text) if (text := facts.get(name, "")).isdecimal() else 0 for name in ("width", "height")]
    return Content(Entry(key[len(folder) :], stat.size_bytes, sha256, *edges), key)


def _sha256_of(store: ObjectStore, key: str) -> str:
    digest = hashlib.sha256()
    for chunk in store.reader(key):
        digest.update(chunk)
    return digest.hexdigest()


def _recipe(store: ObjectStore, folder: str, run: str) -> Content | None:
    """The recipe of a run: out of its manifest, or as an import left it; None if the folder holds neither."""
    key = f"{folder}runs/{run}/job.json"
    try:
        spec, job = manifest.parse(store.get(key), key)
    except NotFound:
        try:
            data = store.get(f"{folder}runs/{run}/recipe.json")
        except NotFound:
            return None
        check_recipe(data, f"{folder}runs/{run}/recipe.json")
        return _made(f"runs/{run}/recipe.json", data)
    settings: dict[str, Any] = json.loads(manifest.environment_of(job)["DARKROOM_RECIPE"])
    # Where the base model lies is a matter of the machine; its name is in the recipe.
    recipe = {name: value for name, value in settings.items() if name not in ("base_model_source", "checkpoint")}
    record = {
        "schema": SCHEMA,
        "session": spec.session,
        "run": spec.run_id,
        "checkpoint": spec.checkpoint,
        "create_time": rfc3339(spec.create_time),
        "recipe": recipe,
    }
    return _made(f"runs/{run}/recipe.json", encode(record))


def check_recipe(data: bytes, key: str) -> None:
    """Raise ManifestInvalid unless this is a record as `_recipe` makes it."""
    try:
        record = json.loads(data)
        if not isinstance(record["checkpoint"], str) or not isinstance(record["recipe"], dict):
            raise TypeError("checkpoint or recipe")
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestInvalid(key, (f"no recipe of a run: {type(error).__name__} {error}",)) from error


def _is_recipe(entry: Entry) -> bool:
    return entry.path.startswith("runs/")


def _checkpoint_contents(store: ObjectStore, found: Manifest) -> Iterator[Content]:
    folder = f"checkpoints/{found.id}/"
    yield _made(f"{folder}manifest.json", portable(found))
    for file in found.files:
        key = Checkpoints(store).key(found, file.path)
        yield Content(Entry(f"{folder}{file.path}", file.size_bytes, file.sha256), key)


def _made(path: str, data: bytes) -> Content:
    return Content(Entry(path, len(data), hashlib.sha256(data).hexdigest()), data=data)


def _summary(session: Session) -> dict[str, str]:
    return {
        "name": session.name,
        "base_model": session.base_model,
        "description": session.description,
        "create_time": rfc3339(session.create_time),
    }
