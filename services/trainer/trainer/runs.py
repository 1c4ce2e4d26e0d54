"""Runs as the bucket tells them; there is no other database.

    sessions/<session>/runs/<run>/job.json      the manifest, written once
    sessions/<session>/runs/<run>/status.json   attempts and conditions, written by whatever executes the manifest
    sessions/<session>/runs/<run>/cancel.json   somebody asked the run to stop
    sessions/<session>/runs/<run>/suspend.json  somebody asked the run to pause, on one machine; a cluster keeps that in the Job
    sessions/<session>/runs/<run>/events/       records of its work, see `events`

`training`, `resuming` and `watching` call this. Blocking; raises what the store raises.
"""

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from artifacts.checkpoints import Checkpoints
from artifacts.errors import AlreadyExists, Conflict, ManifestInvalid, NotFound
from artifacts.records import SCHEMA, encode, rfc3339
from artifacts.store import ObjectStore
from jobs import manifest
from jobs.run_spec import RunSpec

from trainer import event_reader, job_status, resume_points
from trainer.events import ProgressRecord
from trainer.job_status import CANCELLED, COMPLETE, JobStatus

log = logging.getLogger(__name__)

_RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class RunState(StrEnum):
    """PENDING, RUNNING and SUSPENDED lead to any other; the FINAL ones stay."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


FINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})


@dataclass(frozen=True)
class Run:
    """What was asked for, and how far it is. progress and inexact are known after `Runs.detailed` only."""

    spec: RunSpec
    state: RunState
    status: JobStatus
    progress: ProgressRecord | None = None
    inexact: bool = False

    @property
    def name(self) -> str:
        """Resource name."""
        return self.spec.name

    @property
    def finished(self) -> bool:
        """Whether it is over."""
        return self.state in FINAL

    @property
    def end_time(self) -> datetime | None:
        """When it ended."""
        return self.status.condition.time if self.status.condition else None

    @property
    def error(self) -> str:
        """Why it failed; empty if it did not."""
        return self.status.condition.message if self.status.condition and self.state == RunState.FAILED else ""

    @property
    def pending_reason(self) -> str:
        """Why no program works for it now; empty if one does, and where nobody knows."""
        return self.status.pending_reason

    @property
    def exit_code(self) -> int | None:
        """That of the last attempt that ended."""
        codes = [attempt.exit_code for attempt in self.status.attempts if attempt.exit_code is not None]
        return codes[-1] if codes else None


class Runs:
    """All runs of one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def get(self, name: str) -> Run:
        """One run in detail. Raises NotFound."""
        return self.detailed(self.state(self.manifest(name)[0]))

    def state(self, spec: RunSpec) -> Run:
        """Where the run of this spec stands now, without details."""
        status = self.status(spec.name)
        cancelling = not status.finished and self.cancel_requested(spec.name)
        suspending = not status.finished and not cancelling and self.suspend_requested(spec.name)
        return Run(spec, state_of(status, cancelling, suspending), status)

    def detailed(self, run: Run) -> Run:
        """With its newest progress, and whether it is inexact."""
        return replace(run, progress=event_reader.newest_progress(self.store, run.name), inexact=self._is_inexact(run))

    def manifest(self, name: str) -> tuple[RunSpec, dict[str, Any]]:
        """The run as it was asked for, and its manifest. Raises NotFound."""
        key = f"{name}/job.json"
        try:
            return manifest.parse(self.store.get(key), key)
        except NotFound:
            raise NotFound("run", name, self.store.config.place) from None

    def create(self, spec: RunSpec, job: dict[str, Any]) -> None:
        """Write the manifest. Raises AlreadyExists."""
        try:
            self.store.put_if_absent(f"{spec.name}/job.json", encode(job), "application/json")
        except AlreadyExists:
            raise AlreadyExists("run", spec.name, "choose another run_id") from None

    def run_ids(self, session: str) -> list[str]:
        """Ids of the runs of a session, in no order; some may have no manifest."""
        return [name for name in self.store.list_folders(f"sessions/{session}/runs/") if _RUN_ID.fullmatch(name)]

    def status(self, name: str) -> JobStatus:
        """What has been executed so far."""
        key = f"{name}/status.json"
        try:
            return job_status.from_bytes(self.store.get(key), key)
        except NotFound:
            return JobStatus()

    def resume(self, name: str, accept_inexact: bool) -> JobStatus | None:
        """Take back the end of a run that is over; the status it had. None if it is not over, or another call was faster.

        The caller has to hold the session for the run.
        """
        key = f"{name}/status.json"
        etag = self.store.stat(
            key
        ).etag  # not newer than what is read now: a swap on it proves that they belong together
        before = job_status.from_bytes(self.store.get(key), key)
        if not before.finished:
            return None
        self.store.delete(f"{name}/cancel.json")
        self.take_back_suspend(name)
        try:
            self.store.replace(key, job_status.to_bytes(before.resumed(accept_inexact)), etag, "application/json")
        except Conflict:
            return None
        return before

    def write_status(self, name: str, status: JobStatus) -> None:
        """Record what was executed; only the one executor of a run may call this."""
        self.store.put(f"{name}/status.json", job_status.to_bytes(status), "application/json")

    def change_status(self, name: str, change: Callable[[JobStatus], JobStatus]) -> JobStatus:
        """Change the status by compare-and-swap, for writers that are several; what it is now. change: pure, may be asked again."""
        key = f"{name}/status.json"
        while True:
            try:
                # Not newer than what is read next: a swap on it proves that they belong together.
                etag = self.store.stat(key).etag
            except NotFound:
                etag = ""
            before = self.status(name)
            after = change(before)
            if after == before:
                return before
            data = job_status.to_bytes(after)
            try:
                if etag:
                    self.store.replace(key, data, etag, "application/json")
                else:
                    self.store.put_if_absent(key, data, "application/json")
            except (Conflict, AlreadyExists):
                continue
            return after

    def request_cancel(self, name: str) -> None:
        """Record that the run is to stop. Safe to repeat."""
        self._request(f"{name}/cancel.json")

    def cancel_requested(self, name: str) -> bool:
        """Whether somebody asked the run to stop."""
        return self.store.exists(f"{name}/cancel.json")

    def request_suspend(self, name: str) -> None:
        """Record that the run is to pause. Safe to repeat."""
        self._request(f"{name}/suspend.json")

    def take_back_suspend(self, name: str) -> None:
        """Record that the run may go on. Safe to repeat."""
        self.store.delete(f"{name}/suspend.json")

    def suspend_requested(self, name: str) -> bool:
        """Whether somebody asked the run to pause."""
        return self.store.exists(f"{name}/suspend.json")

    def specs(self, session: str) -> Iterator[RunSpec]:
        """All runs of a session as they were asked for, in no order."""
        for run_id in self.run_ids(session):
            try:
                yield self.manifest(f"sessions/{session}/runs/{run_id}")[0]
            except NotFound:  # being created or deleted
                continue

    def _request(self, key: str) -> None:
        record = encode({"schema": SCHEMA, "time": rfc3339(datetime.now(UTC))})
        try:
            self.store.put_if_absent(key, record, "application/json")
        except AlreadyExists:
            return

    def _is_inexact(self, run: Run) -> bool:
        """Whether what the run has to show rests on a state that something was changed under.

        That is its checkpoint or, as long as there is none, its newest resume point: the program writes it into both. That
        somebody accepted an inexact run says less, for nothing may have changed; and another processor makes a run inexact
        without being asked. A run that was started once has resumed nothing, and costs no request.
        """
        if len(run.status.attempts) < 2:
            return False
        try:
            if run.state == RunState.SUCCEEDED:
                return Checkpoints(self.store).get(run.spec.checkpoint).metrics.get("inexact") is True
        except NotFound:  # deleted since; its resume points may be left
            pass
        except ManifestInvalid as error:
            log.warning("nobody can say whether %s is inexact: %s", run.name, error)
        try:
            point = resume_points.newest(self.store, run.name)
        except (
            ManifestInvalid
        ) as error:  # ListResumePoints tells it to whoever asks; the run can be looked at all the same
            log.warning("nobody can say whether %s is inexact: %s", run.name, error)
            return False
        return point is not None and point.inexact


def state_of(status: JobStatus, cancel_requested: bool, suspend_requested: bool) -> RunState:
    """The state in the words of the contract."""
    if status.condition:
        if status.condition.type == COMPLETE:
            return RunState.SUCCEEDED
        return RunState.CANCELLED if status.condition.reason == CANCELLED else RunState.FAILED
    if cancel_requested:
        return RunState.CANCELLING
    if (status.suspended or suspend_requested) and not status.working:
        return RunState.SUSPENDED
    return RunState.RUNNING if status.attempts else RunState.PENDING
