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
        self._last_key = ""

    def read_new(self) -> list[tuple[int, Record]]:
        """(attempt, record) of everything written since the last call, in order. Raises what the store raises."""
        keys = list(_keys(self._store, self._prefix, self._last_key))
        if not keys:
            return []
        with ThreadPoolExecutor(_PARALLEL_REQUESTS, thread_name_prefix="events") as pool:
            contents = list(pool.map(lambda item: self._store.get(item[1]), keys))
        self._last_key = keys[-1][1]
        return [
            (attempt, record)
            for (attempt, key), data in zip(keys, contents, strict=True)
            for record in events.parse(data, key)
        ]


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


def _keys(store: ObjectStore, prefix: str, start_after: str = "") -> Iterator[tuple[int, str]]:
    for stat in store.list(prefix, start_after):
        attempt = events.attempt_of(stat.key[len(prefix) :])
        if attempt is not None:
            yield attempt, stat.key
