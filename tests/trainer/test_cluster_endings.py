"""How a run ended, by the conditions of its Job."""

from trainer.cluster.attempts import observe
from trainer.cluster.endings import conclusion, conclusion_of_gone
from trainer.job_status import CANCELLED, COMPLETE, FAILED, JobStatus

from tests.trainer.cluster_objects import NOW, condition, ended, live_job, live_pod

LAST = observe(JobStatus(), live_job(), [live_pod("a", "Failed", ended(75, "no store"))], {}, NOW)


def test_only_the_final_conditions_end_a_run() -> None:
    for early in ("FailureTarget", "SuccessCriteriaMet", "Suspended"):
        assert conclusion(live_job(condition(early)), LAST, False) is None
    undone = {**condition("Failed"), "status": "False"}
    assert conclusion(live_job(undone), LAST, False) is None


def test_complete() -> None:
    end = conclusion(live_job(condition("SuccessCriteriaMet"), condition("Complete")), LAST, True)
    assert end is not None
    assert (end.type, end.reason) == (COMPLETE, "")


def test_retries_are_counted_in_words() -> None:
    failed = condition("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    end = conclusion(live_job(failed, backoffLimit=0), LAST, False)
    assert end is not None
    assert end.message == (
        "attempt 1 of at most 1 failed: no store "
        "(exit code 75: the object store or the other machines of the run cannot be reached)"
    )
    none = conclusion(live_job(failed, backoffLimit=0), JobStatus(), False)
    assert none is not None
    assert none.message == "Job has reached the specified backoff limit"
    alone = conclusion(live_job(failed, backoffLimit=0), JobStatus(pending_reason="no node for its pod"), False)
    assert alone is not None  # the first pod never ran, and the others gave up waiting for it
    assert alone.message == "Job has reached the specified backoff limit: no node for its pod"


def test_a_deadline_quotes_what_the_run_waited_for() -> None:
    failed = condition("Failed", "DeadlineExceeded", "too long")
    waited = JobStatus(pending_reason="no node for its pod: 0/4 nodes are available")
    end = conclusion(live_job(failed, activeDeadlineSeconds=60), waited, False)
    assert end is not None
    assert end.message == (
        "it was not over within 60 s, the deadline of its Job: no node for its pod: 0/4 nodes are available"
    )


def test_a_failure_after_the_wish_to_stop_is_a_cancel() -> None:
    end = conclusion(live_job(condition("Failed", "PodFailurePolicy")), LAST, True)
    assert end is not None
    assert (end.type, end.reason) == (FAILED, CANCELLED)


def test_a_job_that_is_gone() -> None:
    published = conclusion_of_gone("run-1", LAST, True, True, NOW)
    cancelled = conclusion_of_gone("run-1", LAST, False, True, NOW)
    deleted = conclusion_of_gone("run-1", LAST, False, False, NOW)
    assert (published.type, cancelled.reason, deleted.reason) == (COMPLETE, CANCELLED, "JobDeleted")
    assert deleted.message.startswith("its Job run-1 was deleted")
    assert deleted.message.endswith(
        "no store (exit code 75: the object store or the other machines of the run cannot be reached)"
    )
