"""Resume points in the bucket: complete or not there, verified when written and when read.

    <run>/resume_points/<token>-<stage index>-<step, 7 digits>/<file>
    <run>/resume_points/<token>-<stage index>-<step, 7 digits>/manifest.json     last: sizes and sha256 of the files
    <run>/writer.json                                                            lists the published points

A point exists once writer.json lists it, with the sha256 of its manifest: one compare-and-swap, which only the holder
of the lease can make, adds it and drops those beyond the newest `keep`. Before that every file is read back from the
store; after it the objects of the dropped ones are deleted. So there is a verified point at every moment once there was
one. The token in the name keeps two processes out of each other's folders. Points found damaged are kept and named in
writer.json. Formats: `resume_point` (manifest.json) and `writer_record` (writer.json); `point_files` moves the files. `saver`
writes points, the start of a run reads them.
"""

import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from artifacts.errors import ArtifactError, DigestMismatch, ManifestInvalid, NotFound
from artifacts.manifest import FileEntry
from artifacts.store import ObjectStore

from dreambooth import point_files
from dreambooth.lease import Lease
from dreambooth.resume_point import MANIFEST, POINTS_FOLDER, Position, ResumePoint, decode, name_of, order_of
from dreambooth.writer_record import ListedPoint

_log = logging.getLogger(__name__)

Upload = Callable[[ObjectStore, str, Path], tuple[FileEntry, ...]]


class ResumePoints:
    """The resume points of the run that `lease` holds. keep: how many stay, 1 or more. Not thread-safe.

    upload: `point_files.upload`, or what does the same elsewhere. folder: the key prefix of all points, with its slash.
    endpoint: where the store is, for error messages.
    """

    def __init__(
        self, store: ObjectStore, run_folder: str, lease: Lease, keep: int, upload: Upload = point_files.upload
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep must be 1 or more, not {keep}: the last resume point is never deleted")
        self._store = store
        self.folder = f"{run_folder}{POINTS_FOLDER}"
        self.endpoint = store.config.url
        self._lease = lease
        self._keep = keep
        self._upload = upload

    def newest(self, target: Path, report: Callable[[str], None]) -> ResumePoint | None:
        """Download the newest whole point into `target`, every digest verified; None if there is none.

        `target` is emptied first. Call it before the first `write`. What is torn, missing or changed is reported,
        remembered in writer.json, kept and passed over for the next older one. Points that writer.json does not list
        are the last resort: it was deleted by hand. Raises LeaseLost, ManifestInvalid for a point of a newer version of
        this program, and what the store says.
        """
        bad: list[str] = []
        for candidates in (self._listed, self._unlisted):
            left = candidates(report)
            while left:
                _empty(target)
                try:
                    point = self._download(left[-1], target)
                except (DigestMismatch, NotFound) as error:
                    bad.append(left.pop().name)
                    report(f"resume point {bad[-1]} is damaged: {error}; it is kept, the next older one is tried")
                    continue
                self._remember(left, bad)
                return point
        _empty(target)
        self._remember([], bad)
        return None

    def write(
        self,
        position: Position,
        folder: Path,
        about: Mapping[str, Any],
        before_manifest: Callable[[], None] = lambda: None,
    ) -> ResumePoint:
        """Upload all files of a local folder as the newest point, verify them, publish, then prune.

        about: a JSON object. before_manifest: called when the files are safe and nothing is visible yet. Safe to repeat
        after StoreUnavailable, also if the point was published. Raises LeaseLost, DigestMismatch if the store does not
        give back what it was sent, InvalidName and ValueError for a folder or an `about` that cannot be stored.
        """
        self._lease.confirm()  # settles whether an earlier call has published this point; and spares a vain upload
        name = name_of(self._lease.token, position)
        if any(listed.name == name for listed in self._lease.points):
            return decode(self._key(name, MANIFEST), name, self._store.get(self._key(name, MANIFEST)))
        point = ResumePoint(position, self._lease.token, datetime.now(UTC), about, ())
        point.encode()  # a wrong `about` fails before the upload
        try:
            files = self._upload(self._store, self._key(name, ""), folder)
            before_manifest()
            point = ResumePoint(position, point.token, point.time, about, files)
            listed = self._put_manifest(point)
        except DigestMismatch:
            self._lease.confirm()  # if another holder has swept our files away, that is the reason to give
            raise
        self._lease.publish([*self._lease.points, listed][-self._keep :])
        self._sweep(name)
        return point

    def _key(self, name: str, path: str) -> str:
        return f"{self.folder}{name}/{path}"

    def _put_manifest(self, point: ResumePoint) -> ListedPoint:
        data = point.encode()
        entry = FileEntry(MANIFEST, len(data), hashlib.sha256(data).hexdigest())
        self._store.put(self._key(point.name, MANIFEST), data, "application/json")
        point_files.verify(self._store, self._key(point.name, ""), entry)
        return ListedPoint(point.name, point.position.stage, point.position.step, entry.sha256)

    def _listed(self, report: Callable[[str], None]) -> list[ListedPoint]:
        return list(self._lease.points)

    def _unlisted(self, report: Callable[[str], None]) -> list[ListedPoint]:
        """Complete points that writer.json does not know, the newest last."""
        known = {*self._lease.damaged, *(listed.name for listed in self._lease.points)}
        names_found = sorted((name for name in self._folders() if name not in known), key=order_of)
        complete = [point for name in names_found if (point := self._if_complete(name, report))]
        if complete:
            found = ", ".join(point.name for point in complete)
            report(f"writer.json lists no whole resume point, but these are complete and are tried: {found}")
        return complete

    def _folders(self) -> list[str]:
        return [name for name in self._store.list_folders(self.folder) if order_of(name)]

    def _if_complete(self, name: str, report: Callable[[str], None]) -> ListedPoint | None:
        key = self._key(name, MANIFEST)
        try:
            data = self._store.get(key)
            position = decode(key, name, data).position
        except NotFound:  # an upload that was cut off: it never was a point
            return None
        except ManifestInvalid as error:
            report(f"resume point {name} is passed over: {error}")
            return None
        return ListedPoint(name, position.stage, position.step, hashlib.sha256(data).hexdigest())

    def _download(self, listed: ListedPoint, target: Path) -> ResumePoint:
        key = self._key(listed.name, MANIFEST)
        data = self._store.get(key)
        found = hashlib.sha256(data).hexdigest()
        if found != listed.sha256:
            raise DigestMismatch(f"{listed.name}/{MANIFEST}", f"sha256 {listed.sha256}", f"sha256 {found}")
        point = decode(key, listed.name, data)
        for entry in point.files:
            path = target / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for chunk in point_files.verified(self._store, self._key(listed.name, ""), entry):
                    file.write(chunk)
        return point

    def _remember(self, points: list[ListedPoint], bad: list[str]) -> None:
        """Bring writer.json up to what was found."""
        if bad or tuple(points) != self._lease.points:
            self._lease.publish(points, [*self._lease.damaged, *bad])

    def _sweep(self, newest: str) -> None:
        """Delete pruned points and the rest of broken uploads: what is older and neither listed nor damaged."""
        kept = {*self._lease.damaged, *(listed.name for listed in self._lease.points)}
        try:
            for name in self._folders():
                if name not in kept and order_of(name) < order_of(newest):
                    self._store.delete(self._key(name, MANIFEST))  # first: half a point must not look complete
                    self._store.delete_prefix(f"{self.folder}{name}/")
        except ArtifactError as error:
            _log.warning("old resume points stay in the store until the next one is saved: %s", error)


def _empty(folder: Path) -> None:
    """Make `folder` an empty one."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
