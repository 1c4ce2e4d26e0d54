"""Runs as the bucket tells them; there is no other database.

    sessions/<session>/runs/<run>/job.json      the manifest, written once
    sessions/<session>/runs/<run>/status.json   attempts and conditions, written by whatever executes the manifest
    sessions/<session>/runs/<run>/cancel.json   somebody asked the run to stop
    sessions/<session>/runs/<run>/events/       records of its work, see `events`

`training` and `watching` call this. Blocking; raises what the store raises.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from artifacts.errors import AlreadyExists, NotFound
from artifacts.records import SCHEMA, encode, rfc3339
from artifacts.store import ObjectStore

from trainer import event_reader, job_status, manifest
from trainer.events import ProgressRecord
from trainer.job_status import CANCELLED, COMPLETE, JobStatus
from trainer.manifest import RunSpec

_RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class RunState(StrEnum):
    """PENDING and RUNNING lead to any other; the FINAL ones stay."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


FINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})


@dataclass(frozen=True)
class Run:
    """What was asked for, and how far it is."""

    spec: RunSpec
    state: RunState
    status: JobStatus
    progress: ProgressRecord | None = None

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
    def exit_code(self) -> int | None:
        """That of the last attempt that ended."""
        codes = [attempt.exit_code for attempt in self.status.attempts if attempt.exit_code is not None]
        return codes[-1] if codes else None


class Runs:
    """All runs of one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def get(self, name: str) -> Run:
        """One run with its newest progress. Raises NotFound."""
        spec, _ = self.manifest(name)
        return self._run(spec, event_reader.newest_progress(self.store, name))

    def state(self, spec: RunSpec) -> Run:
        """Where the run of this spec stands now, without its progress."""
        return self._run(spec, None)

    def with_progress(self, spec: RunSpec) -> Run:
        """Where the run of this spec stands now."""
        return self._run(spec, event_reader.newest_progress(self.store, spec.name))

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

    def write_status(self, name: str, status: JobStatus) -> None:
        """Record what was executed; only the one executor of a run may call this."""
        self.store.put(f"{name}/status.json", job_status.to_bytes(status), "application/json")

    def request_cancel(self, name: str) -> None:
        """Record that the run is to stop. Safe to repeat."""
        record = encode({"schema": SCHEMA, "time": rfc3339(datetime.now(UTC))})
        try:
            self.store.put_if_absent(f"{name}/cancel.json", record, "application/json")
        except AlreadyExists:
            return

    def cancel_requested(self, name: str) -> bool:
        """Whether somebody asked the run to stop."""
        return self.store.exists(f"{name}/cancel.json")

    def specs(self, session: str) -> Iterator[RunSpec]:
        """All runs of a session as they were asked for, in no order."""
        for run_id in self.run_ids(session):
            try:
                yield self.manifest(f"sessions/{session}/runs/{run_id}")[0]
            except NotFound:  # being created or deleted
                continue

    def _run(self, spec: RunSpec, progress: ProgressRecord | None) -> Run:
        status = self.status(spec.name)
        cancelling = not status.finished and self.cancel_requested(spec.name)
        return Run(spec, state_of(status, cancelling), status, progress)


def state_of(status: JobStatus, cancel_requested: bool) -> RunState:
    """The state in the words of the contract."""
    if status.condition:
        if status.condition.type == COMPLETE:
            return RunState.SUCCEEDED
        return RunState.CANCELLED if status.condition.reason == CANCELLED else RunState.FAILED
    if cancel_requested:
        return RunState.CANCELLING
    return RunState.RUNNING if status.attempts else RunState.PENDING
