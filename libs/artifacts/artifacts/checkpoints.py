"""Checkpoints: immutable weights, published by one conditional write, verified on every read.

Trainer and converter publish, everyone reads. A writer puts its files into a folder of its own,

    checkpoints/<id>/<writer>/<path>      and, last,      checkpoints/<id>/manifest.json

so that a second writer of the same id, or one that was thought dead, can never touch the files of the winner. A writer
that can be replaced by another one of its run first puts a reservation where its manifest will be, see `reservation`;
nobody sees a checkpoint there.
"""

import builtins
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from artifacts import names, reservation
from artifacts.checkpoint_writer import CheckpointWriter
from artifacts.errors import AlreadyExists, Conflict, DigestMismatch, InvalidName, ManifestInvalid, NotFound
from artifacts.manifest import FileEntry, Manifest, decode
from artifacts.store import ObjectStore

__all__ = ["CheckpointWriter", "Checkpoints", "FileEntry", "Manifest"]

ROOT = "checkpoints/"


class Checkpoints:
    """All checkpoints of one bucket. Methods that read take an id, or a Manifest to save looking it up again."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def begin(self, checkpoint_id: str, **fields: object) -> CheckpointWriter:
        """Start a checkpoint; `fields` are those of Manifest except id, files and writer.

        Use the writer in a `with` block: leaving it unpublished removes what was uploaded. Raises AlreadyExists if
        the id is already published, InvalidName, and TypeError, ValueError or ManifestInvalid for fields that Manifest
        lacks, does not know or cannot store.
        """
        return CheckpointWriter(self.store, folder(checkpoint_id), checkpoint_id, dict(fields))

    def get(self, checkpoint_id: str) -> Manifest:
        """The manifest. Raises NotFound for an id that is not published, ManifestInvalid."""
        key = _manifest_key(checkpoint_id)
        try:
            data = self.store.get(key)
        except NotFound:
            raise NotFound("checkpoint", checkpoint_id, self.store.config.place) from None
        if reservation.is_reservation(data):
            raise NotFound("checkpoint", checkpoint_id, self.store.config.place)
        return decode(key, checkpoint_id, data)

    def reserve(self, checkpoint_id: str, run: str, token: int) -> str:
        """Reserve the place of the manifest for writer `token` of `run`; what `CheckpointWriter.publish` takes for it.

        Any other reservation is replaced, so ask whether the run still is ours between this and publishing. Raises
        AlreadyExists if the id is published.
        """
        while True:
            found = reservation.find(self.store, _manifest_key(checkpoint_id), checkpoint_id)
            etag = self._swap(checkpoint_id, reservation.encode(run, token), found)
            if etag:
                return etag

    def revoke(self, checkpoint_id: str, run: str, token: int) -> None:
        """Take the reservation from whoever holds it, if anybody does: what it still wants to publish is refused.

        For writer `token` of `run`, right after it has replaced another one. Raises AlreadyExists if that one has
        published.
        """
        while found := reservation.find(self.store, _manifest_key(checkpoint_id), checkpoint_id):
            if self._swap(checkpoint_id, reservation.encode(run, token), found):
                return

    def list(
        self, start_after: str = "", *, invalid: builtins.list[ManifestInvalid] | None = None
    ) -> Iterator[Manifest]:
        """Published checkpoints in order of id, after `start_after`.

        A manifest that cannot be read raises ManifestInvalid, or is appended to `invalid` if that list is given.
        """
        for name in sorted(self.store.list_folders(ROOT)):
            if name <= start_after:
                continue
            try:
                yield self.get(name)
            except (NotFound, InvalidName):  # not published, deleted since, or not ours
                continue
            except ManifestInvalid as error:
                if invalid is None:
                    raise
                invalid.append(error)

    def delete(self, checkpoint_id: str) -> None:
        """Remove a checkpoint, published or not; fine if it is not there. Other checkpoints made from it stay whole."""
        self.store.delete(_manifest_key(checkpoint_id))  # first: no reader may see half of it
        self.store.delete_prefix(folder(checkpoint_id))

    def key(self, checkpoint: str | Manifest, path: str) -> str:
        """The object key of one file. Raises NotFound if the manifest has no such path."""
        manifest = self._manifest(checkpoint)
        return self._key(manifest, self._entry(manifest, path))

    def read_file(self, checkpoint: str | Manifest, path: str) -> bytes:
        """One verified file in memory. Raises NotFound, DigestMismatch."""
        return b"".join(self.reader(checkpoint, path))

    def reader(self, checkpoint: str | Manifest, path: str) -> Iterator[bytes]:
        """One file in chunks of at most 1 MiB. Raises NotFound at once, DigestMismatch after the last chunk."""
        manifest = self._manifest(checkpoint)
        return self._verified(manifest, self._entry(manifest, path))

    def read_range(self, checkpoint: str | Manifest, path: str, offset: int, length: int) -> bytes:
        """`length` bytes of one file from `offset`. Size is checked, the digest cannot be. Raises NotFound."""
        manifest = self._manifest(checkpoint)
        entry = self._entry(manifest, path)
        if offset < 0 or length < 0 or offset + length > entry.size_bytes:
            raise ValueError(f"{path!r} has {entry.size_bytes} bytes; {offset} to {offset + length} is outside")
        return self.store.read_range(self._key(manifest, entry), offset, length)

    def verify(self, checkpoint: str | Manifest) -> Manifest:
        """Read everything and check every digest. Raises NotFound or DigestMismatch for the first bad file."""
        manifest = self._manifest(checkpoint)
        for entry in manifest.files:
            for _ in self._verified(manifest, entry):
                pass
        return manifest

    def download(self, checkpoint: str | Manifest, target: Path) -> Manifest:
        """A verified copy in the folder `target`: each file appears complete, manifest.json last.

        Files that are already there with the right digest are kept, so a broken download can be repeated.
        Raises NotFound, DigestMismatch.
        """
        manifest = self._manifest(checkpoint)
        target.mkdir(parents=True, exist_ok=True)
        for entry in manifest.files:
            path = target / entry.path
            if not _is_copy(path, entry):
                path.parent.mkdir(parents=True, exist_ok=True)
                _write_complete(path, self._verified(manifest, entry))
        _write_complete(target / "manifest.json", iter([manifest.encode()]))
        return manifest

    def _swap(self, checkpoint_id: str, data: bytes, found: str) -> str:
        """The ETag of what was written in place of the version `found`, "" if somebody else was faster."""
        try:
            return reservation.swap(self.store, _manifest_key(checkpoint_id), data, found)
        except (AlreadyExists, Conflict):
            return ""

    def _manifest(self, checkpoint: str | Manifest) -> Manifest:
        return checkpoint if isinstance(checkpoint, Manifest) else self.get(checkpoint)

    def _entry(self, manifest: Manifest, path: str) -> FileEntry:
        entry = manifest.file(path)
        if entry is None:
            raise NotFound("file", path, f"checkpoint {manifest.id!r}")
        return entry

    def _key(self, manifest: Manifest, entry: FileEntry) -> str:
        middle = f"{manifest.writer}/" if manifest.writer else ""
        return f"{folder(manifest.id)}{middle}{entry.path}"

    def _verified(self, manifest: Manifest, entry: FileEntry) -> Iterator[bytes]:
        digest, size_bytes = hashlib.sha256(), 0
        for chunk in self.store.reader(self._key(manifest, entry)):
            digest.update(chunk)
            size_bytes += len(chunk)
            yield chunk
        if (size_bytes, digest.hexdigest()) != (entry.size_bytes, entry.sha256):
            raise DigestMismatch(
                f"{manifest.id}/{entry.path}",
                f"{entry.size_bytes} bytes, sha256 {entry.sha256}",
                f"{size_bytes} bytes, sha256 {digest.hexdigest()}",
            )


def folder(checkpoint_id: str) -> str:
    """The key prefix of one checkpoint, with its slash. Raises InvalidName."""
    return f"{ROOT}{names.checkpoint_id(checkpoint_id)}/"


def _manifest_key(checkpoint_id: str) -> str:
    return f"{folder(checkpoint_id)}manifest.json"


def _is_copy(path: Path, entry: FileEntry) -> bool:
    if not path.is_file() or path.stat().st_size != entry.size_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256


def _write_complete(path: Path, chunks: Iterator[bytes]) -> None:
    part = path.with_name(f".{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
