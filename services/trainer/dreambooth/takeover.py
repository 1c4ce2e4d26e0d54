"""How a process becomes the writer of a run: it takes what is free, and watches what is held.

`lease` calls this and keeps what was taken. Only the holder or a successor changes writer.json, each by a conditional
write, so of any number of processes that want a run at once one gets it.
"""

import math
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from artifacts.errors import AlreadyExists, Conflict, NotFound
from artifacts.store import ObjectStore

from dreambooth.errors import WriterAlive
from dreambooth.exits import StopSignal
from dreambooth.holder import this_process
from dreambooth.resume_point import POINTS_FOLDER
from dreambooth.writer_record import WriterRecord, decode

_LOOK_PAUSE_SECONDS = 1.0
_LOOKS_IN_VALIDITY = 10
_JSON = "application/json"


@dataclass(frozen=True)
class Version:
    """The record as it was found. A swap on this ETag succeeds only if the record still is this one."""

    record: WriterRecord
    etag: str


def take(
    store: ObjectStore, run_folder: str, stop: StopSignal, seconds: float, report: Callable[[str], None]
) -> Version:
    """Become the writer of the run; see `Lease.acquire`."""
    key = key_of(run_folder)
    while True:
        stop.check()
        found = look(store, key)
        if found is not None and not _is_free(found.record):
            report(f"the run was held by {found.record.holder}: waiting up to {found.record.seconds:g} s for it")
            if not _is_silent(store, key, found, stop):
                continue  # it is free now, or was deleted: look again
        mine = _claim(store, run_folder, found.record if found else None, seconds)
        try:
            return swap(store, key, mine, found)
        except (AlreadyExists, Conflict):  # another one was faster: see how it fares
            continue


def key_of(run_folder: str) -> str:
    """Where the record of a run is. run_folder: its key prefix, with its slash."""
    return f"{run_folder}writer.json"


def look(store: ObjectStore, key: str) -> Version | None:
    """The record and an ETag not newer than it: a swap that succeeds on it proves that they belong together.

    None if there is no record. Raises ManifestInvalid.
    """
    try:
        etag = store.stat(key).etag
        return Version(decode(key, store.get(key)), etag)
    except NotFound:
        return None


def swap(store: ObjectStore, key: str, record: WriterRecord, before: Version | None) -> Version:
    """Write `record` in place of `before`, or of none. Raises Conflict or AlreadyExists if that has changed."""
    if before is None:
        return Version(record, store.put_if_absent(key, record.encode(), _JSON).etag)
    return Version(record, store.replace(key, record.encode(), before.etag, _JSON).etag)


def _is_free(record: WriterRecord) -> bool:
    return record.released or record.holder.is_dead()


def _is_silent(store: ObjectStore, key: str, found: Version, stop: StopSignal) -> bool:
    """Watch for the validity; whether nothing changed. False if it became free meanwhile. Raises WriterAlive.

    Looks are counted, not seconds: a holder cannot renew while the store is away, nor we look.
    """
    pause_seconds = min(_LOOK_PAUSE_SECONDS, found.record.seconds / _LOOKS_IN_VALIDITY)
    for _ in range(math.ceil(found.record.seconds / pause_seconds)):
        stop.check()
        time.sleep(pause_seconds)
        try:
            if store.stat(key).etag == found.etag:
                continue
        except NotFound:
            return False
        now = look(store, key)
        if now is None or _is_free(now.record):
            return False
        raise WriterAlive(
            f"this run is being carried out by {now.record.holder}, which holds token {now.record.token}; "
            "this process leaves everything as it is. To start it anew here, stop that process first"
        )
    return True


def _claim(store: ObjectStore, run_folder: str, before: WriterRecord | None, seconds: float) -> WriterRecord:
    """What this process writes to take the run: the points stay, the token grows."""
    token = 1 + (before.token if before else _greatest_token(store, run_folder))
    mine = WriterRecord(token, secrets.token_hex(8), 0, this_process(), seconds)
    return replace(mine, points=before.points, damaged=before.damaged) if before else mine


def _greatest_token(store: ObjectStore, run_folder: str) -> int:
    """Of the folders of resume points: writer.json may have been deleted by hand, and no token is used twice."""
    names = store.list_folders(f"{run_folder}{POINTS_FOLDER}")
    return max((int(found[1]) for name in names if (found := re.match(r"(\d+)-", name))), default=0)
