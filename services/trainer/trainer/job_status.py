"""Status of a run's Job as it is kept in status.json: conditions, attempts, exit codes. Pure.

`local_supervisor` writes it on one machine, `cluster.keeper` on a cluster; `runs` reads it. Field names of the JSON are those of a Kubernetes
JobStatus where it has the field.
"""

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from artifacts.errors import ManifestInvalid
from artifacts.records import SCHEMA, encode, rfc3339

COMPLETE, FAILED = "Complete", "Failed"
CANCELLED = "Cancelled"
"""Reason of a Failed condition when the run was asked to stop."""


@dataclass(frozen=True)
class Attempt:
    """One start of the program. exit_code None: it still runs, or nobody saw its end.

    counted: it counts against the backoff limit; false for one that the machine or the service interrupted, and for all that
    came before the run was resumed. pod: on a cluster, its name.
    """

    number: int
    start_time: datetime
    end_time: datetime | None = None
    exit_code: int | None = None
    error: str = ""
    counted: bool = True
    pod: str = ""


@dataclass(frozen=True)
class Condition:
    """How and when the Job ended. type is COMPLETE or FAILED; reason and message say why it failed."""

    type: str
    time: datetime
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class JobStatus:
    """Everything that is known of a run's execution.

    accept_inexact: the next attempts go on from a resume point although something has changed since. resumptions: how often
    it was started again after its end. Only on a cluster: job_uid, the Job that was seen at work in this life of the run;
    suspended, whether somebody paused that Job; pending_reason, why no program runs, or not in all pods.
    """

    attempts: tuple[Attempt, ...] = ()
    condition: Condition | None = None
    accept_inexact: bool = False
    resumptions: int = 0
    job_uid: str = ""
    suspended: bool = False
    pending_reason: str = ""

    @property
    def start_time(self) -> datetime | None:
        """When the program first started."""
        return self.attempts[0].start_time if self.attempts else None

    @property
    def finished(self) -> bool:
        """Whether there will be no further attempt."""
        return self.condition is not None

    @property
    def working(self) -> bool:
        """Whether a program runs, as far as is known."""
        return bool(self.attempts) and self.attempts[-1].end_time is None

    def started(self, now: datetime) -> "JobStatus":
        """With one more attempt."""
        return replace(self, attempts=(*self.attempts, Attempt(len(self.attempts) + 1, now)))

    def ended(self, now: datetime, exit_code: int | None, error: str, counted: bool) -> "JobStatus":
        """With the end of the newest attempt."""
        *before, last = self.attempts
        over = replace(last, end_time=now, exit_code=exit_code, error=error, counted=counted)
        return replace(self, attempts=(*before, over))

    def concluded(self, condition: Condition) -> "JobStatus":
        """With the end of the Job."""
        return replace(self, condition=condition, suspended=False, pending_reason="")

    def resumed(self, accept_inexact: bool) -> "JobStatus":
        """Without its end; what failed before counts no longer."""
        attempts = tuple(replace(attempt, counted=False) for attempt in self.attempts)
        return JobStatus(attempts, None, accept_inexact, self.resumptions + 1)


def to_bytes(status: JobStatus) -> bytes:
    """status.json."""
    failed = [attempt for attempt in status.attempts if attempt.end_time and attempt.exit_code != 0]
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "active": 1 if status.working and not status.finished else 0,
        "succeeded": 1 if status.condition and status.condition.type == COMPLETE else 0,
        "failed": len(failed),
        "attempts": [_attempt_fields(attempt) for attempt in status.attempts],
        "conditions": [_condition_fields(status.condition)] if status.condition else [],
        "acceptInexact": status.accept_inexact,
        "resumptions": status.resumptions,
        "suspended": status.suspended,
        "jobUid": status.job_uid,
        "pendingReason": status.pending_reason,
    }
    if status.start_time:
        record["startTime"] = rfc3339(status.start_time)
    if status.condition:
        record["completionTime"] = rfc3339(status.condition.time)
    return encode(record)


def from_bytes(data: bytes, key: str) -> JobStatus:
    """The status. Raises ManifestInvalid for a file damaged by hand."""
    try:
        record = json.loads(data)
        attempts = tuple(_attempt(fields) for fields in record["attempts"])
        conditions = [_condition(fields) for fields in record["conditions"] if fields["status"] == "True"]
        final = [condition for condition in conditions if condition.type in (COMPLETE, FAILED)]
        return JobStatus(
            attempts,
            final[0] if final else None,
            accept_inexact=record.get("acceptInexact", False) is True,
            resumptions=int(record.get("resumptions", 0)),
            job_uid=str(record.get("jobUid", "")),
            suspended=record.get("suspended", False) is True,
            pending_reason=str(record.get("pendingReason", "")),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestInvalid(key, (f"no Job status: {type(error).__name__} {error}",)) from error


def _attempt_fields(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "startTime": rfc3339(attempt.start_time),
        "endTime": rfc3339(attempt.end_time) if attempt.end_time else None,
        "exitCode": attempt.exit_code,
        "error": attempt.error,
        "counted": attempt.counted,
        "pod": attempt.pod,
    }


def _attempt(fields: dict[str, Any]) -> Attempt:
    end = fields["endTime"]
    return Attempt(
        fields["number"],
        datetime.fromisoformat(fields["startTime"]),
        datetime.fromisoformat(end) if end else None,
        fields["exitCode"],
        fields["error"],
        fields["counted"],
        fields.get("pod", ""),
    )


def _condition_fields(condition: Condition) -> dict[str, Any]:
    return {
        "type": condition.type,
        "status": "True",
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": rfc3339(condition.time),
    }


def _condition(fields: dict[str, Any]) -> Condition:
    time = datetime.fromisoformat(fields["lastTransitionTime"])
    return Condition(fields["type"], time, fields.get("reason", ""), fields.get("message", ""))
