"""Objects of one kind as the API server last told them: a full list at least once a minute, changes in between.

A thread of its own lists, watches for a minute, and lists again, so that a change that was missed is found. An API server
that is away is asked again, ever more rarely; meanwhile the mirror shows what it knew. (The client's own SharedInformer asks
an API server that is away two thousand times a second, and logs each time.)

What was deleted is remembered for a minute or two as it was last seen: how a Job ended that its TTL has removed since.
"""

import logging
import threading
from typing import Any

from trainer.cluster.api import ClusterApi, Watch
from trainer.cluster.errors import ClusterError, Expired

_LIST_EVERY_SECONDS = 60
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 10.0

log = logging.getLogger(__name__)


class Mirror:
    """kind: "jobs" or "pods". selector: labels they have."""

    def __init__(self, api: ClusterApi, kind: str, selector: str) -> None:
        self._api = api
        self._kind = kind
        self._selector = selector
        self._objects: dict[str, Any] = {}
        self._deleted: dict[str, Any] = {}
        self._deleted_earlier: dict[str, Any] = {}  # before the last list
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._watch: Watch | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """List once, then follow in the background. Raises ClusterError if the list fails; safe to repeat."""
        if self._thread:
            return
        version = self._list()
        self._thread = threading.Thread(target=self._run, args=(version,), name=f"mirror-{self._kind}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        with self._lock:
            watch = self._watch
        if watch:
            watch.stop()
        if self._thread:
            self._thread.join(timeout=5)

    def objects(self) -> list[Any]:
        """All of them, as JSON."""
        with self._lock:
            return list(self._objects.values())

    def get(self, name: str) -> Any | None:
        """The one of this name, as JSON."""
        with self._lock:
            return self._objects.get(name)

    def deleted(self) -> dict[str, Any]:
        """The last state of those that were deleted lately, as JSON by name."""
        with self._lock:
            return self._deleted_earlier | self._deleted

    def _run(self, version: str) -> None:
        pause, listed = _FIRST_PAUSE_SECONDS, True
        while not self._stopping.is_set():
            try:
                version = version if listed else self._list()
                listed = False
                self._follow(version)
                pause = _FIRST_PAUSE_SECONDS
            except Expired:
                continue
            except ClusterError as error:
                if self._stopping.is_set():
                    return
                log.warning("cannot follow %s: %s", self._kind, error)
                self._stopping.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _list(self) -> str:
        items, version = self._api.listed(self._kind, self._selector)
        found = {item["metadata"]["name"]: item for item in items}
        with self._lock:
            missed = {name: item for name, item in self._objects.items() if name not in found}
            self._deleted, self._deleted_earlier = missed, self._deleted
            self._objects = found
        return version

    def _follow(self, version: str) -> None:
        with self._api.watch(self._kind, self._selector, version, _LIST_EVERY_SECONDS) as watch:
            with self._lock:
                self._watch = watch
            if self._stopping.is_set():
                return
            for change, found in watch:
                self._apply(change, found)

    def _apply(self, change: str, found: Any) -> None:
        with self._lock:
            if change in ("ADDED", "MODIFIED"):
                self._objects[found["metadata"]["name"]] = found
            elif change == "DELETED":
                self._objects.pop(found["metadata"]["name"], None)
                self._deleted[found["metadata"]["name"]] = found
