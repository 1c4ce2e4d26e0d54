"""What to do next for a run that is not over, from its record and its Job. Pure.

    no Job, and none was ever seen          create it
    no Job, but one was seen                the run is over: cancelled, published, or its Job was deleted
    the Job of an earlier life of the run   remove it first
    somebody else's Job of that name        wait until it is gone
    our Job, and the run is cancelled       delete it
    our Job                                 record what it does

Whether a Job is ours, the digest of job.json in its annotation says, or the uid that was noted when it was seen first.
"""

from enum import Enum, auto

from trainer.cluster.live import LiveJob
from trainer.job_status import JobStatus


class Step(Enum):
    """One action."""

    CREATE = auto()
    CONCLUDE_GONE = auto()
    REMOVE_OLD = auto()
    STRANGER = auto()
    DELETE = auto()
    RECORD = auto()


def next_step(status: JobStatus, job: LiveJob | None, digest: str, cancel_requested: bool) -> Step:
    """digest: of job.json."""
    if job is None:
        return Step.CONCLUDE_GONE if status.job_uid or cancel_requested else Step.CREATE
    if job.uid != status.job_uid:  # one that is noted is ours, even where we see it as it was before we marked it
        if job.digest != digest:
            return Step.CONCLUDE_GONE if status.job_uid else Step.STRANGER
        if job.resumptions < status.resumptions:
            return Step.REMOVE_OLD
    if cancel_requested and not job.ended and not job.being_deleted:
        return Step.DELETE
    return Step.RECORD


def is_leftover(status: JobStatus, job: LiveJob) -> bool:
    """Whether a Job of ours works for a run that is over: a slow replica created it when another had ended the run already."""
    return (
        status.finished and bool(job.digest) and job.uid != status.job_uid and not job.ended and not job.being_deleted
    )
