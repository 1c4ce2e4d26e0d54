"""What follows when a program ends: the rules by which the Kubernetes Job controller reads a manifest. Pure.

`local_supervisor` asks before every attempt. Implemented are backoffLimit and podFailurePolicy with the actions FailJob,
Ignore and Count on exit codes (batch/v1, "Pod failure policy").
"""

from collections.abc import Mapping
from typing import Any

from jobs.failures import failure_action

from trainer.job_status import COMPLETE, FAILED, Condition, JobStatus

_MAX_DELAY_SECONDS = 360.0


def conclusion(manifest: Mapping[str, Any], status: JobStatus) -> Condition | None:
    """How the Job ended by what its attempts did; None if the program is to be started (again)."""
    counted = [attempt for attempt in status.attempts if attempt.end_time and attempt.counted]
    if not counted:
        return None
    last = counted[-1]
    assert last.end_time is not None
    if last.exit_code == 0:
        return Condition(COMPLETE, last.end_time)
    action = failure_action(manifest, last.exit_code)
    if action == "FailJob":
        return Condition(FAILED, last.end_time, "PodFailurePolicy", last.error)
    failures = [a for a in counted if failure_action(manifest, a.exit_code) == "Count"]
    limit = manifest["spec"]["backoffLimit"]
    if len(failures) > limit:
        message = f"attempt {len(failures)} of at most {limit + 1} failed: {last.error}"
        return Condition(FAILED, last.end_time, "BackoffLimitExceeded", message)
    return None


def delay_seconds(first_seconds: float, status: JobStatus) -> float:
    """Pause before the next attempt: doubles with each failure that counts, as the Job controller does from 10 s."""
    failures = sum(1 for attempt in status.attempts if attempt.counted and attempt.exit_code not in (0, None))
    return min(first_seconds * 2.0 ** (failures - 1), _MAX_DELAY_SECONDS) if failures else 0.0
