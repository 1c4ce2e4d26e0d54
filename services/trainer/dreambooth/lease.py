"""One writer of a run at a time, and the one place that publishes its resume points: `<run>/writer.json`.

Every change is a compare-and-swap on the object's ETag. A holder that was paused, cut off or thought dead finds its
ETag stale as soon as another one has taken over, so the store itself refuses what it still wants to publish; no clock
decides. Time only decides when a silent holder counts as dead: after its record stayed the same for its full validity
under the eyes of the one who waits.

While the store is away training goes on, and the lease with it. Afterwards the holder renews; it has lost the lease
only if another one was faster. `takeover` decides who becomes the holder, `writer_record` holds the format, `resume_points`
publishes.
"""

import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from artifacts.errors import ArtifactError, Conflict, StoreUnavailable
from artifacts.store import ObjectStore

from dreambooth.errors import LeaseLost, NotOurs
from dreambooth.exits import StopSignal
from dreambooth.takeover import Version, key_of, look, swap, take
from dreambooth.writer_record import ListedPoint

SECONDS = 30.0
_RENEWALS_IN_VALIDITY = 3

_log = logging.getLogger(__name__)


class Lease:
    """The right to write one run, renewed by a thread until `release`. Made by `acquire`; use it in a `with` block.

    All methods are thread-safe. Those that swap raise LeaseLost if another process has taken over, StoreUnavailable
    (nothing is lost, and the same call may be repeated), and any other refusal of the store.
    """

    def __init__(self, store: ObjectStore, key: str, held: Version) -> None:
        self._store = store
        self._key = key
        self._held = held
        self._renewals = itertools.count(held.record.renewal + 1)
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._failure: Exception | None = None
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    @classmethod
    def acquire(
        cls,
        store: ObjectStore,
        run_folder: str,
        stop: StopSignal,
        seconds: float = SECONDS,
        report: Callable[[str], None] = _log.info,
    ) -> "Lease":
        """Become the writer of the run. run_folder: its key prefix, with its slash. seconds: validity without renewal.

        Free at once are a run without a record, one that was given back, and one whose holder is a dead process of this
        machine. Any other is watched, for at most its validity; `report` is told. Raises WriterAlive if its holder
        moves, Stopped, ManifestInvalid for a damaged record, and what the store says.
        """
        return cls(store, key_of(run_folder), take(store, run_folder, stop, seconds, report))

    @property
    def token(self) -> int:
        """The fencing token: greater than that of every holder before."""
        return self._held.record.token

    @property
    def points(self) -> tuple[ListedPoint, ...]:
        """The published resume points, the newest last."""
        return self._held.record.points

    @property
    def damaged(self) -> tuple[str, ...]:
        """Names of the points that were found damaged."""
        return self._held.record.damaged

    def check(self) -> None:
        """Raise LeaseLost, or another refusal of the store, if the renewals have met it. Never waits."""
        if self._failure:
            raise self._failure

    def confirm(self) -> None:
        """Make sure that the run is ours at this moment: a renewal now.

        It says nothing of the moment after; `ownership` closes this gap for the checkpoint.
        """
        self._swap()

    def publish(self, points: Sequence[ListedPoint], damaged: Sequence[str] | None = None) -> None:
        """Replace the list of published points, and that of the damaged ones if given.

        After StoreUnavailable nobody knows whether it was replaced; the next swap finds out, and `points` then tells.
        """
        self._swap(points=tuple(points), damaged=self.damaged if damaged is None else tuple(damaged))

    def release(self) -> None:
        """Give the run back, so that the next process need not wait. Safe to repeat; a failure is only logged."""
        if self._released.is_set():
            return
        self._released.set()  # first: a renewal that comes too late is no failure
        try:
            self._swap(released=True)
        except (ArtifactError, NotOurs) as error:
            # Mostly called while another error is on its way out; without it the next process waits for the validity.
            _log.warning("the run was not given back: %s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _keep(self) -> None:
        away = False
        while not self._released.wait(self._held.record.seconds / _RENEWALS_IN_VALIDITY):
            try:
                self._swap()
                away = False
            except StoreUnavailable as error:
                if not away:
                    _log.warning("the lease waits for the store: %s", error)
                away = True
            except Exception as error:  # noqa: BLE001 - raised in the thread that trains, by `check`
                if not self._released.is_set():
                    self._failure = error
                return

    def _swap(self, **changes: Any) -> None:
        """Write a new record in place of ours."""
        with self._lock:
            while True:
                if self._held.record.released:
                    raise LeaseLost(f"{self._key} was given back by this process; it writes nothing any more")
                wanted = replace(self._held.record, renewal=next(self._renewals), **changes)
                try:
                    self._held = swap(self._store, self._key, wanted, self._held)
                    return
                except Conflict:
                    self._held = self._found_ours()

    def _found_ours(self) -> Version:
        """The version in the store if it is ours: an earlier swap had arrived and its answer was lost."""
        found = look(self._store, self._key)
        if found is None:
            self._failure = LeaseLost(f"{self._key} was deleted while this process held it; start the run again")
            raise self._failure
        if found.record.nonce != self._held.record.nonce:
            self._failure = LeaseLost(
                f"the run was taken over by {found.record.holder} with token {found.record.token}, "
                f"while this process held token {self.token} and was silent; it writes nothing any more"
            )
            raise self._failure
        return found
