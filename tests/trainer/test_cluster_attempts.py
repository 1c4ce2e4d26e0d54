"""From pods to attempts."""

from trainer.cluster.attempts import newly_failed, observe
from trainer.cluster.endings import conclusion
from trainer.cluster.live import LiveJob, LivePod
from trainer.job_status import Attempt, JobStatus

from tests.trainer.cluster_objects import NOW, at, condition, ended, live_job, live_pod, running

DISRUPTED = condition("DisruptionTarget", "EvictionByEvictionAPI", "evicting")


def seen(status: JobStatus, *pods: LivePod, said: dict[str, str] | None = None) -> JobStatus:
    return observe(status, live_job(), pods, said or {}, NOW)


def being_deleted() -> LiveJob:
    """The Job after a cancel."""
    raw = live_job().raw
    return LiveJob.of({**raw, "metadata": {**raw["metadata"], "deletionTimestamp": at(5)}})


def only(status: JobStatus) -> Attempt:
    (attempt,) = status.attempts
    return attempt


def test_a_pod_whose_program_has_not_started_is_no_attempt() -> None:
    waiting = live_pod("a", "Pending", {"waiting": {"reason": "ContainerCreating"}})
    assert seen(JobStatus(), waiting, live_pod("b", "Failed", conditions=[DISRUPTED])).attempts == ()


def test_attempts_follow_the_pods_in_their_order() -> None:
    first, second = live_pod("z", "Failed", ended(75, minute=2)), live_pod("a", state=running(8), created=7)
    status = seen(JobStatus(), second, first)
    assert [(attempt.number, attempt.pod, attempt.exit_code) for attempt in status.attempts] == [
        (1, "z", 75),
        (2, "a", None),
    ]
    assert status.working
    assert seen(status, second, first) == status


def test_what_was_seen_of_a_pod_stays_when_the_pod_is_gone() -> None:
    status = seen(JobStatus(), live_pod("a", "Failed", ended(75, "no store")))
    assert seen(status) == status
    lost = only(seen(seen(JobStatus(), live_pod("a", state=running()))))
    assert (lost.end_time, lost.exit_code, lost.counted) == (NOW, None, False)


def test_pods_of_another_job_are_not_counted() -> None:
    assert observe(JobStatus(), None, [live_pod("a", state=running())], {}, NOW).attempts == ()


def test_the_error_is_the_programs_own_words_or_the_end_of_its_log() -> None:
    pod = live_pod("a", "Failed", ended(64, "Traceback\nValueError: steps\n\n"))
    assert only(seen(JobStatus(), pod)).error == "ValueError: steps (exit code 64: the input is wrong)"
    assert only(seen(JobStatus(), pod, said={"a": "the steps are wrong"})).error.startswith("the steps are wrong (")
    assert only(seen(JobStatus(), live_pod("a", "Failed", ended(1)))).error == "it printed nothing (exit code 1)"


def test_out_of_memory_names_the_limit() -> None:
    error = only(seen(JobStatus(), live_pod("a", "Failed", ended(137, reason="OOMKilled")))).error
    assert error == "it printed nothing (exit code 137: OOMKilled, it needed more memory than its limit of 16Gi)"


def test_a_container_that_could_not_be_started_did_so_when_it_failed() -> None:
    state = ended(128, "no such file: /nothing", "StartError")
    state["terminated"]["startedAt"] = "1970-01-01T00:00:00Z"
    attempt = only(seen(JobStatus(), live_pod("a", "Failed", state)))
    assert attempt.start_time == attempt.end_time
    assert attempt.error == "no such file: /nothing (exit code 128; StartError)"


def test_a_disruption_is_not_counted_but_told() -> None:
    attempt = only(seen(JobStatus(), live_pod("a", "Failed", ended(143), [DISRUPTED])))
    assert not attempt.counted
    assert "EvictionByEvictionAPI: evicting" in attempt.error


def test_a_pod_that_a_person_deletes_counts_as_it_does_for_kubernetes() -> None:
    deleted = live_pod("a", "Failed", ended(143), deleted=True)
    assert only(seen(JobStatus(), deleted)).counted
    for job in (live_job(suspend=True), being_deleted()):
        assert not only(observe(JobStatus(), job, [deleted], {}, NOW)).counted
    resumed_before_it_was_seen = observe(JobStatus(suspended=True), live_job(), [deleted], {}, NOW)
    assert not only(resumed_before_it_was_seen).counted


def test_a_deleted_pod_is_among_the_attempts_that_failed() -> None:
    pods = [live_pod("a", "Failed", ended(143), deleted=True), live_pod("b", "Failed", ended(1, "crash"), created=7)]
    failed = live_job(condition("Failed", "BackoffLimitExceeded"), backoffLimit=1)
    end = conclusion(failed, observe(JobStatus(), failed, pods, {}, NOW), False)
    assert end is not None
    assert end.message == "attempt 2 of at most 2 failed: crash (exit code 1)"


def test_a_disrupted_pod_that_finished_all_the_same_counts() -> None:
    attempt = only(seen(JobStatus(), live_pod("a", "Succeeded", ended(0, reason="Completed"), [DISRUPTED])))
    assert (attempt.counted, attempt.error) == (True, "")


def test_a_pod_of_a_lost_node_ends_without_an_exit_code() -> None:
    status = seen(JobStatus(), live_pod("a", state=running()))
    lost = only(seen(status, live_pod("a", "Failed", running(), [condition("DisruptionTarget", "DeletionByPodGC")])))
    assert (lost.exit_code, lost.counted, lost.error) == (None, False, "DeletionByPodGC")


def test_of_several_pods_the_first_speaks_and_quotes_the_one_that_failed() -> None:
    first = live_pod("a", "Failed", ended(76, "my partner is gone"))
    other = live_pod("b", "Failed", ended(77, "CUDA out of memory"), index=1)
    attempt = only(seen(JobStatus(), other, first, said={"a": "my partner is gone"}))
    assert (attempt.pod, attempt.exit_code, attempt.counted) == ("a", 76, False)
    assert "pod 1 of the run failed: CUDA out of memory (exit code 77: out of memory)" in attempt.error


def test_only_failures_that_are_not_recorded_are_looked_into() -> None:
    failed, fine = live_pod("a", "Failed", ended(1)), live_pod("b", "Succeeded", ended(0))
    assert newly_failed(JobStatus(), [failed, fine, live_pod("c", state=running())]) == [failed]
    assert newly_failed(seen(JobStatus(), failed), [failed]) == []
