"""Going on where a run was: the newest resume point is found and compared, and new ones are saved on the way.

Only the process that writes speaks to the bucket; with several, the others get the point's files from it.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from artifacts.errors import StoreUnavailable
from artifacts.manifest import FileEntry
from artifacts.store import ObjectStore

from dreambooth import identity, point_files
from dreambooth.errors import ResumePointUnusable
from dreambooth.helper import Helper
from dreambooth.order import Order
from dreambooth.progress import now
from dreambooth.resume_point import Position, ResumePoint
from dreambooth.resume_points import ResumePoints
from dreambooth.saver import Saver

_CLOSE_SECONDS = 600.0


class Resuming:
    """The resume points of one run; use it in a `with` block around the training.

    is_same: what `identity.of` says now. helper: uploads large points. settle: waits for what must be recorded before a
    point becomes visible. found: the point to go on from, its files in `folder`; None: from the
    beginning. inexact: whether something changed since that point, or had changed before.
    """

    def __init__(
        self, order: Order, is_same: Mapping[str, Any], helper: Helper, settle: Callable[[], None] = lambda: None
    ) -> None:
        self._order = order
        self._helper = helper
        self._settle = settle
        self._identity = is_same
        self.folder = order.scratch / "resume"
        self.inexact = False
        self._saver: Saver | None = None
        self._stall_told = 0.0
        self._saved = time.monotonic()
        self.found = order.world.once(self._find)
        order.world.share_files(self.folder)
        self._newest = self.found.position if self.found else None
        if self.found:
            self._compare(self.found)

    def is_due(self, step: int) -> bool:
        """Whether a resume point is to be saved after this step."""
        recipe = self._order.recipe
        every = recipe.resume_point_every_steps
        minutes = (time.monotonic() - self._saved) / 60
        return (every > 0 and step % every == 0) or minutes >= recipe.resume_point_every_minutes

    def check(self) -> None:
        """Raise LeaseLost, or what the store refused for good, as soon as it is known. Never waits."""
        if self._order.lease:
            self._order.lease.check()
        if self._saver:
            self._saver.check()

    def save(self, position: Position, progress: Mapping[str, Any], stage: Callable[[Path], None]) -> None:
        """Copy the state and let it be uploaded. Raises LeaseLost and what the store refused for good."""
        self._saved = time.monotonic()
        if self._saver and position != self._newest:
            self._newest = position
            about = {"identity": self._identity, "progress": progress, "inexact": self.inexact}
            self._saver.save(position, about, stage)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the last point: as long as it takes at the end of training, within the grace after SIGTERM."""
        if self._saver is None:
            return
        if error is None:
            self._saver.close(_CLOSE_SECONDS)
            return
        try:
            self._saver.close(self._order.save_seconds)
        except StoreUnavailable as away:  # the error that ended training is the one to be told
            self._order.message(f"the last resume point is not in the store: {away}", "warning")

    def _find(self) -> ResumePoint | None:
        order = self._order
        found: ResumePoint | None = None
        if order.lease is not None and order.records is not None:
            keep = order.recipe.keep_resume_points
            points = ResumePoints(order.store, f"{order.run}/", order.lease, keep, self._upload)
            found = points.newest(self.folder, lambda text: order.message(text, "warning"))
            order.records.begin(found.position if found else None)
            staging = order.scratch / "staging"
            staging.mkdir(exist_ok=True)
            self._saver = Saver(points, staging, order.message, self._before_publish, self._published)
        return found

    def _compare(self, found: ResumePoint) -> None:
        order, before = self._order, found.about["identity"]
        self.inexact = bool(found.about["inexact"])
        changed = identity.differences(before["fixed"], self._identity["fixed"])
        if changed and not order.accept_inexact:
            shown = "; ".join(changed[:20]) + (f"; and {len(changed) - 20} more" if len(changed) > 20 else "")
            raise ResumePointUnusable(
                f"this run cannot go on exactly from its {found.position}, because since then: {shown}. "
                "Undo the changes, start a new run, or go on with accept_inexact"
            )
        machine = identity.differences(before["machine"], self._identity["machine"])
        if changed or machine:
            self.inexact = True
            order.message(f"going on inexactly: {'; '.join(changed + machine)}", "warning")
        order.message(f"going on from the resume point at {found.position}")

    def _upload(self, store: ObjectStore, prefix: str, folder: Path) -> tuple[FileEntry, ...]:
        size_bytes = sum(path.stat().st_size for path in folder.iterdir())
        if size_bytes < point_files.MIN_HELPED_BYTES:
            return point_files.upload(store, prefix, folder)
        return self._helper.call(point_files.upload_to, store.config, prefix, folder)

    def _before_publish(self) -> None:
        """Everything before the point is in the store: a run that goes on from there does not do it again."""
        self._settle()
        if self._order.records is not None:
            self._order.records.flush()

    def _published(self, point: ResumePoint) -> None:
        order, saver = self._order, self._saver
        if order.records is not None and saver is not None:
            stall_seconds, self._stall_told = saver.stall_seconds - self._stall_told, saver.stall_seconds
            order.records.add(
                {
                    "kind": "resume_point",
                    "stage": point.position.stage,
                    "step": point.position.step,
                    "object": f"{order.run}/resume_points/{point.name}/",
                    "size_bytes": point.size_bytes,
                    "stall_seconds": round(stall_seconds, 3),
                    "time": now(),
                }
            )
