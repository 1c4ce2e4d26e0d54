"""What follows when a program ends, as the Job controller decides it."""

from datetime import UTC, datetime, timedelta

import pytest
from jobs.execution import Execution
from jobs.render import render
from trainer import retries
from trainer.job_status import COMPLETE, FAILED, Condition, JobStatus

from tests.jobs.test_render import SPEC

NOW = datetime(2026, 11, 23, tzinfo=UTC)
JOB = render(SPEC, Execution(backoff_limit=2))


def status(*exit_codes: int, counted: bool = True) -> JobStatus:
    result = JobStatus()
    for code in exit_codes:
        result = result.started(NOW).ended(NOW + timedelta(seconds=1), code, f"error {code}", counted)
    return result


def test_success_completes() -> None:
    assert retries.conclusion(JOB, status(1, 0)) == Condition(COMPLETE, NOW + timedelta(seconds=1))


@pytest.mark.parametrize("code", [64, 65, 66, 67, 68, 69, 78])
def test_wrong_input_is_not_retried(code: int) -> None:
    condition = retries.conclusion(JOB, status(code))
    assert condition == Condition(FAILED, NOW + timedelta(seconds=1), "PodFailurePolicy", f"error {code}")


@pytest.mark.parametrize("code", [1, 63, 70, 75, 77, 137, 143])
def test_other_failures_are_retried_up_to_the_limit(code: int) -> None:
    assert retries.conclusion(JOB, status(code, code)) is None
    condition = retries.conclusion(JOB, status(code, code, code))
    assert condition is not None
    assert condition.reason == "BackoffLimitExceeded"
    assert f"error {code}" in condition.message


def test_interruptions_do_not_count() -> None:
    assert retries.conclusion(JOB, status(143, 143, 143, 143, counted=False)) is None
    assert retries.delay_seconds(10, status(143, counted=False)) == 0


def test_what_came_before_a_resume_does_not_count() -> None:
    ended = status(75, 65).concluded(Condition(FAILED, NOW, "PodFailurePolicy"))
    resumed = ended.resumed(accept_inexact=True)
    assert (len(resumed.attempts), resumed.finished, resumed.accept_inexact) == (2, False, True)
    assert retries.conclusion(JOB, resumed) is None
    assert retries.delay_seconds(10, resumed) == 0
    assert not resumed.resumed(accept_inexact=False).accept_inexact


def test_ignored_exit_codes_do_not_count() -> None:
    rule = {"action": "Ignore", "onExitCodes": {"operator": "NotIn", "values": [1]}}
    job = {"spec": {"backoffLimit": 0, "podFailurePolicy": {"rules": [rule]}}}
    assert retries.conclusion(job, status(5, 5)) is None
    assert retries.conclusion(job, status(5, 1)) is not None


def test_the_pause_doubles_up_to_six_minutes() -> None:
    assert [retries.delay_seconds(10, status(*[1] * count)) for count in (0, 1, 2, 3)] == [0, 10, 20, 40]
    assert retries.delay_seconds(10, status(*[1] * 20)) == 360
