"""One run of a session at a time: the object that says which run holds the session.

    sessions/<session>/runs/active.json

Taken by a conditional create, or from a run that is over by compare-and-swap, so of several services that start runs at
once one wins. Nobody gives it back: a run that is over no longer counts. `training`, `resuming` and `session_store` call this.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from artifacts.errors import AlreadyExists, Conflict, ManifestInvalid, NotFound
from artifacts.records import SCHEMA, encode, rfc3339

from trainer.errors import RunActive
from trainer.runs import Runs

# Between taking the lock and writing the manifest lie two requests; whoever died in between blocks no longer than this.
_CREATION = timedelta(seconds=30)


@dataclass(frozen=True)
class Holder:
    """The run that took a session last, and when it did."""

    run: str
    time: datetime
    etag: str


def holder(runs: Runs, session: str) -> Holder | None:
    """The run that took the session last, over or not; None if there was none."""
    key = _key(session)
    try:
        etag = runs.store.stat(key).etag.strip('"')
        record = json.loads(runs.store.get(key))
        return Holder(record["run"], datetime.fromisoformat(record["time"]), etag)
    except NotFound:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestInvalid(key, (f"{type(error).__name__} {error}; delete it if no run is active",)) from error


def active_run(runs: Runs, session: str) -> str | None:
    """Name of the run that is not over; None if the session is free."""
    found = holder(runs, session)
    return found.run if found and not _is_over(runs, found) else None


def take(runs: Runs, session: str, run: str) -> str:
    """Hold the session for a run; returns the ETag of the lock. Safe to repeat for the same run. Raises RunActive."""
    try:
        return runs.store.put_if_absent(_key(session), _record(run), "application/json").etag
    except AlreadyExists:
        return _take_over(runs, session, run)


def confirm(runs: Runs, session: str, run: str, etag: str) -> None:
    """Write the lock once more if it still is that of `take`. Raises RunActive.

    A run that is over can lose the lock at any time. Whoever takes the lock of such a run and then makes it one that is not
    over has to do this afterwards: others who have found it over can then take the lock no longer.
    """
    _swap(runs, session, run, etag)


def _take_over(runs: Runs, session: str, run: str) -> str:
    found = holder(runs, session)
    if found is None:
        raise RunActive(session, "another run")  # created and deleted in between: somebody else is at work
    if found.run == run:
        return found.etag
    if not _is_over(runs, found):
        raise RunActive(session, found.run)
    try:
        return _swap(runs, session, run, found.etag)
    except RunActive as error:
        winner = holder(runs, session) if error.run == run else None
        if winner is None or winner.run != run:
            raise
        return winner.etag  # the same call, made twice at once


def _swap(runs: Runs, session: str, run: str, etag: str) -> str:
    try:
        return runs.store.replace(_key(session), _record(run), etag, "application/json").etag
    except Conflict:
        winner = holder(runs, session)
        raise RunActive(session, winner.run if winner else "another run") from None


def _record(run: str) -> bytes:
    """The content of the lock; its time makes each one another version, also for the same run."""
    return encode({"schema": SCHEMA, "run": run, "time": rfc3339(datetime.now(UTC))})


def _is_over(runs: Runs, found: Holder) -> bool:
    if runs.store.exists(f"{found.run}/job.json"):
        return runs.status(found.run).finished
    return datetime.now(UTC) - found.time > _CREATION


def _key(session: str) -> str:
    return f"sessions/{session}/runs/active.json"
