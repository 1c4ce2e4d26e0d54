"""Finds the records of a run in the bucket: all of them, those that are new, or the newest.

`watching` and `active_runs` follow a run with it; `runs` asks for the newest progress. Blocking, one user at a time.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from artifacts.store import ObjectStore

from trainer import events
from trainer.events import MessageRecord, ProgressRecord, Record

# A long run has thousands of small objects; a few requests at once keep a late watcher's wait short.
_PARALLEL_REQUESTS = 8
_NEWEST_OBJECTS = 8


class EventReader:
    """Follows the events of one run from its first record on."""

    def __init__(self, store: ObjectStore, run_name: str) -> None:
        self._store = store
        self._prefix = f"{run_name}/events/"
        self._last: tuple[int, str] | None = None  # attempt and key that were read last

    def read_new(self) -> list[tuple[int, Record]]:
        """(attempt, record) of everything written since the last call, in order. Raises what the store raises."""
        keys = self._new_keys()
        if not keys:
            return []
        with ThreadPoolExecutor(_PARALLEL_REQUESTS, thread_name_prefix="events") as pool:
            contents = list(pool.map(lambda item: self._store.get(item[1]), keys))
        self._last = keys[-1]
        return [
            (attempt, record)
            for (attempt, key), data in zip(keys, contents, strict=True)
            for record in events.parse(data, key)
        ]

    def _new_keys(self) -> list[tuple[int, str]]:
        """(attempt, key) of what was written since, in order.

        A long run has many objects, and only within one attempt does the store list them in their order: so what is new
        of the last attempt is asked for, and of those after it. They follow without gaps.
        """
        if self._last is None:
            return _keys(self._store, self._prefix)
        found: list[tuple[int, str]] = []
        attempt, last_key = self._last
        while True:
            # The next attempt first: once it has written something, the one before it is complete.
            is_over = bool(_keys(self._store, self._prefix, events.prefix_of(attempt + 1)))
            found += _keys(self._store, self._prefix, events.prefix_of(attempt), last_key)
            if not is_over:
                return found
            attempt, last_key = attempt + 1, ""


def newest_progress(store: ObjectStore, run_name: str) -> ProgressRecord | None:
    """The last step that a run recorded; None before its first."""
    for records in _newest(store, run_name):
        for record in reversed(records):
            if isinstance(record, ProgressRecord):
                return record
    return None


def newest_error(store: ObjectStore, run_name: str, after_attempt: int) -> str:
    """The last error that attempts after this one reported; empty if none."""
    for records in _newest(store, run_name, after_attempt):
        for record in reversed(records):
            if isinstance(record, MessageRecord) and record.level == "error":
                return record.text
    return ""


def newest_error_since(store: ObjectStore, run_name: str, time: datetime) -> str:
    """The last error that was reported at this time or later; empty if none."""
    for records in _newest(store, run_name):
        for record in reversed(records):
            if isinstance(record, MessageRecord) and record.level == "error" and record.time >= time:
                return record.text
    return ""


def num_attempts(store: ObjectStore, run_name: str) -> int:
    """The highest attempt that wrote events; 0 if none did."""
    return max((attempt for attempt, _ in _keys(store, f"{run_name}/events/")), default=0)


def _newest(store: ObjectStore, run_name: str, after_attempt: int = 0) -> Iterator[list[Record]]:
    """Records of the newest few objects, newest object first."""
    keys = [key for attempt, key in _keys(store, f"{run_name}/events/") if attempt > after_attempt]
    for key in reversed(keys[-_NEWEST_OBJECTS:]):
        yield events.parse(store.get(key), key)


def _keys(store: ObjectStore, folder: str, begin: str = "", start_after: str = "") -> list[tuple[int, str]]:
    """(attempt, key) of the events files whose names begin so, in the order they were written; the store lists by text,
    "100-" before "99-"."""
    names = (
        (events.order_of(stat.key[len(folder) :]), stat.key) for stat in store.list(f"{folder}{begin}", start_after)
    )
    return [(order[0], key) for order, key in sorted(names) if order]
