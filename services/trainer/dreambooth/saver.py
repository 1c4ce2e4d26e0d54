"""Resume points saved while training goes on: the state is copied to the disk, and a thread takes it to the bucket.

Only the copy makes the training thread wait. At most one point waits behind the one on its way; a newer one takes its
place. While the store is away the newest is tried again and again, and training does not notice. `training` calls this.
"""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.errors import DigestMismatch, StoreUnavailable

from dreambooth.full_disk import is_full_disk
from dreambooth.resume_point import Position, ResumePoint
from dreambooth.resume_points import ResumePoints

_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class _Staged:
    """A point that lies on the local disk."""

    position: Position
    folder: Path
    about: Mapping[str, Any]


class Saver:
    """Saves the points of one run. scratch: a local folder to stage in; it holds up to three copies of the state.

    report: takes a sentence and its level, "info" or "warning", in any thread. before_publish: called in the saver's
    thread before a point becomes visible; what it raises is treated like the store's own answer. published: called
    there after it.
    `last`: the newest published point. `stall_seconds`: how long training has waited for copies so far.
    """

    def __init__(
        self,
        points: ResumePoints,
        scratch: Path,
        report: Callable[[str, str], None],
        before_publish: Callable[[], None] = lambda: None,
        published: Callable[[ResumePoint], None] = lambda point: None,
    ) -> None:
        self.last: ResumePoint | None = None
        self.stall_seconds = 0.0
        self._points = points
        self._scratch = scratch
        self._report = report
        self._before_publish = before_publish
        self._published = published
        self._waiting: _Staged | None = None
        self._closing = False
        self._away = False
        self._failure: Exception | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="saver", daemon=True)
        self._thread.start()

    def save(self, position: Position, about: Mapping[str, Any], stage: Callable[[Path], None]) -> bool:
        """Let `stage` copy the state into a fresh folder, then `submit` it. False, and a warning, if the disk is full.

        Raises as `check` does, and whatever else `stage` raises.
        """
        self.check()
        began = time.monotonic()
        try:
            folder = self._stage(position, stage)
        except Exception as error:
            if not is_full_disk(error):
                raise
            self._warn(f"no resume point at {position}: the disk of {self._scratch} is full; {self._still()}")
            return False
        finally:
            self.stall_seconds += time.monotonic() - began
        self.submit(position, folder, about)
        return True

    def submit(self, position: Position, folder: Path, about: Mapping[str, Any]) -> None:
        """Hand over a folder to be uploaded and then deleted; returns at once. Raises as `check` does."""
        self.check()
        with self._changed:
            if self._waiting:
                _discard(self._waiting)
            self._waiting = _Staged(position, folder, about)
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what ended the saver: LeaseLost, or another refusal that trying again does not cure. Never waits."""
        if self._failure:
            raise self._failure

    def close(self, patience_seconds: float) -> None:
        """Save what was submitted last and end the thread. May be called again.

        Raises StoreUnavailable if that takes longer than the patience: the points before it stay; and as `check` does.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(patience_seconds)
        self.check()
        if self._thread.is_alive():
            detail = f"the last resume point was not taken in {patience_seconds:g} s; {self._still()}"
            raise StoreUnavailable(self._points.folder, self._points.endpoint, detail)

    def _stage(self, position: Position, stage: Callable[[Path], None]) -> Path:
        folder = Path(tempfile.mkdtemp(prefix=f"{position.stage}-{position.step}-", dir=self._scratch))
        try:
            stage(folder)
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def _work(self) -> None:
        try:
            while staged := self._next():
                self._save(staged)
        except Exception as error:  # noqa: BLE001 - raised in the thread that trains, by `check`
            self._failure = error

    def _next(self) -> _Staged | None:
        """Wait for a point; None when closing and there is none."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._closing)
            staged, self._waiting = self._waiting, None
            return staged

    def _save(self, staged: _Staged) -> None:
        try:
            while not self._is_settled(staged):
                if self._has_newer():
                    return
        finally:
            _discard(staged)

    def _is_settled(self, staged: _Staged) -> bool:
        """Try once; false if the store is away."""
        try:
            point = self._points.write(staged.position, staged.folder, staged.about, self._before_publish)
        except StoreUnavailable as error:
            if not self._away:
                self._warn(f"resume points wait for the store, training goes on; {self._still()}: {error}")
            self._away = True
            return False
        except DigestMismatch as error:
            self._warn(f"the store did not keep the resume point of {staged.position}: {error}; {self._still()}")
            return True
        self.last = point
        if self._away:
            self._away = False
            self._report(f"the store is back: the resume point of {staged.position} is saved", "info")
        self._published(point)
        return True

    def _has_newer(self) -> bool:
        """Pause before the next try; whether there is a newer point by then."""
        with self._changed:
            return bool(self._changed.wait_for(lambda: self._waiting is not None, _RETRY_SECONDS))

    def _still(self) -> str:
        return (
            f"the newest saved one is that of {self.last.position}"
            if self.last
            else "none is saved yet by this process"
        )

    def _warn(self, text: str) -> None:
        self._report(text, "warning")


def _discard(staged: _Staged) -> None:
    shutil.rmtree(staged.folder, ignore_errors=True)
