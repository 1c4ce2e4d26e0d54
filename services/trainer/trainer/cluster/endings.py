"""How a run ended, from the conditions of its Job. Pure."""

from datetime import datetime

from trainer.cluster.live import LiveJob
from trainer.job_status import CANCELLED, COMPLETE, FAILED, Condition, JobStatus

_ASKED = "the run was asked to stop"


def conclusion(job: LiveJob, status: JobStatus, cancel_requested: bool) -> Condition | None:
    """The end of a run whose Job is there; None while it is not over. status: with all attempts."""
    if job.ended is None:
        return None
    if job.ended.type == COMPLETE:
        return Condition(COMPLETE, job.ended.time)
    if cancel_requested:
        return Condition(FAILED, job.ended.time, CANCELLED, _ASKED)
    return Condition(FAILED, job.ended.time, job.ended.reason, _message(job, status))


def conclusion_of_gone(
    job_name: str, status: JobStatus, published: bool, cancel_requested: bool, now: datetime
) -> Condition:
    """The end of a run whose Job is not there any more. published: its checkpoint is."""
    if published:
        return Condition(COMPLETE, now)
    if cancel_requested:
        return Condition(FAILED, now, CANCELLED, _ASKED)
    message = (
        f"its Job {job_name} was deleted, and not by this service; resume the run to go on from its last resume point"
    )
    return Condition(FAILED, now, "JobDeleted", _with(message, _last_error(status)))


def _message(job: LiveJob, status: JobStatus) -> str:
    assert job.ended is not None
    last = _last_error(status)
    match job.ended.reason:
        case "PodFailurePolicy":
            return last or job.ended.message
        case "BackoffLimitExceeded":
            failures = sum(1 for a in status.attempts if a.counted and a.end_time and a.exit_code != 0)
            head = f"attempt {failures} of at most {job.backoff_limit + 1} failed" if failures else job.ended.message
            return _with(head, last or status.pending_reason)
        case "DeadlineExceeded":
            head = f"it was not over within {job.deadline_seconds} s, the deadline of its Job"
            return _with(head, status.pending_reason or last)
        case _:
            return _with(job.ended.message or job.ended.reason, last)


def _last_error(status: JobStatus) -> str:
    errors = [attempt.error for attempt in status.attempts if attempt.error]
    return errors[-1] if errors else ""


def _with(head: str, detail: str) -> str:
    return f"{head}: {detail}" if detail else head
