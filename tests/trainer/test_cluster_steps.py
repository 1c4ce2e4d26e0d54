"""What is to be done next for a run."""

import pytest
from trainer.cluster.live import LiveJob
from trainer.cluster.steps import Step, is_leftover, next_step
from trainer.job_status import COMPLETE, Condition, JobStatus

from tests.trainer.cluster_objects import NOW, UID, condition, live_job

NEW, KNOWN, RESUMED = JobStatus(), JobStatus(job_uid=UID), JobStatus(resumptions=1)
OTHER = JobStatus(job_uid="another")
DONE = condition("Complete")


@pytest.mark.parametrize(
    ("status", "job", "cancelling", "step"),
    [
        (NEW, None, False, Step.CREATE),
        (RESUMED, None, False, Step.CREATE),
        (NEW, None, True, Step.CONCLUDE_GONE),
        (KNOWN, None, False, Step.CONCLUDE_GONE),
        (NEW, live_job(), False, Step.RECORD),
        (KNOWN, live_job(), False, Step.RECORD),
        (KNOWN, live_job(), True, Step.DELETE),
        (KNOWN, live_job(DONE), True, Step.RECORD),
        (RESUMED, live_job(), False, Step.REMOVE_OLD),
        (RESUMED, live_job(DONE), True, Step.REMOVE_OLD),
        (RESUMED, live_job(resumptions=1), False, Step.RECORD),
        (NEW, live_job(digest="x"), False, Step.STRANGER),
        (NEW, live_job(digest=""), False, Step.STRANGER),
        (OTHER, live_job(digest="x"), False, Step.CONCLUDE_GONE),
        (OTHER, live_job(), False, Step.RECORD),
        # Just adopted: the mirror shows the Job as it was before it was marked.
        (KNOWN, live_job(digest=""), False, Step.RECORD),
        (JobStatus(job_uid=UID, resumptions=1), live_job(digest=""), False, Step.RECORD),
    ],
)
def test_step(status: JobStatus, job: LiveJob | None, cancelling: bool, step: Step) -> None:
    assert next_step(status, job, "d", cancelling) is step


def test_a_job_that_a_slow_replica_created_after_the_end_is_a_leftover() -> None:
    over = Condition(COMPLETE, NOW)
    assert is_leftover(JobStatus(condition=over, job_uid="another"), live_job())
    assert not is_leftover(JobStatus(condition=over, job_uid=UID), live_job())
    assert not is_leftover(JobStatus(condition=over, job_uid="another"), live_job(DONE))
    assert not is_leftover(JobStatus(job_uid="another"), live_job())
    assert not is_leftover(JobStatus(condition=over, job_uid="another"), live_job(digest=""))
