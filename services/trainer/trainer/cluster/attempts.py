"""From pods to attempts: how often the program was started, and how each start ended. Pure.

Pods come and go; what was seen of one stays in status.json. A pod whose program never started is no attempt.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from jobs.failures import PARTNER_LOST

from trainer.cluster.live import LiveJob, LivePod
from trainer.exit_codes import describe
from trainer.job_status import Attempt, JobStatus

_GONE = "its pod is gone"


def observe(
    status: JobStatus, job: LiveJob | None, pods: Sequence[LivePod], said: Mapping[str, str], now: datetime
) -> JobStatus:
    """The status with what the pods show. said: the program's own words, by pod. job None: it is gone, and its pods with it.

    The first pod of an Indexed Job speaks for all, for it alone writes; the others end when it does.
    """
    ours = [pod for pod in pods if job and pod.job_uid == job.uid]
    mine = [pod for pod in ours if pod.index == 0]
    said = {**said, **{pod.name: words for pod in mine if (words := _partner_words(pod, ours))}}
    shown = {pod.name: pod for pod in mine}
    # Then the Job's own controller deletes pods, and that is held against nobody; a pod that a person deletes counts.
    paused = status.suspended or (job is not None and (job.suspended or job.being_deleted))
    attempts = [_updated(attempt, shown.get(attempt.pod), said, now, paused) for attempt in status.attempts]
    known = {attempt.pod for attempt in attempts}
    for pod in sorted(mine, key=lambda pod: (pod.start_time or pod.create_time, pod.name)):
        if pod.start_time and pod.name not in known:
            attempt = Attempt(len(attempts) + 1, pod.start_time, pod=pod.name)
            attempts.append(_updated(attempt, pod, said, now, paused))
    return replace(status, attempts=tuple(attempts))


def newly_failed(status: JobStatus, pods: Iterable[LivePod]) -> list[LivePod]:
    """Pods whose failure is not in the status yet."""
    told = {attempt.pod for attempt in status.attempts if attempt.end_time}
    return [pod for pod in pods if pod.name not in told and pod.termination and pod.termination.exit_code]


def own_words(pod: LivePod) -> str:
    """The last line of what the program left behind, which is the end of its log; "" for nothing."""
    lines = pod.termination.message.strip().splitlines() if pod.termination else []
    return lines[-1].strip()[-500:] if lines else ""


def _updated(attempt: Attempt, pod: LivePod | None, said: Mapping[str, str], now: datetime, paused: bool) -> Attempt:
    if attempt.end_time:
        return attempt
    if pod is None:
        return replace(attempt, end_time=now, error=_GONE, counted=False)
    if pod.termination:
        return _ended(attempt, pod, said.get(pod.name) or own_words(pod), paused)
    if pod.phase == "Failed":  # its node is lost, and nobody says how the program ended
        error = pod.disruption or "its pod failed, and nobody knows how"
        return replace(attempt, end_time=pod.disruption_time or now, error=error, counted=not pod.disruption)
    return attempt


def _ended(attempt: Attempt, pod: LivePod, words: str, paused: bool) -> Attempt:
    assert pod.termination is not None
    code = pod.termination.exit_code
    is_taken_away = pod.disruption or (pod.being_deleted and paused)
    counted = code == 0 or not (is_taken_away or code == PARTNER_LOST)
    error = "" if code == 0 else f"{words or 'it printed nothing'} ({_how(pod, code)})"
    return replace(attempt, end_time=pod.termination.time, exit_code=code, error=error, counted=counted)


def _partner_words(pod: LivePod, pods: Sequence[LivePod]) -> str:
    """Where a pod only tells that another has ended, what that one says; else ""."""
    if not pod.termination or pod.termination.exit_code != PARTNER_LOST:
        return ""
    for other in pods:
        if other.index and other.termination and other.termination.exit_code not in (0, PARTNER_LOST):
            return (
                f"pod {other.index} of the run failed: {own_words(other)} ({_how(other, other.termination.exit_code)})"
            )
    return ""


def _how(pod: LivePod, code: int) -> str:
    parts = [describe(code)]
    if pod.termination and pod.termination.reason == "OOMKilled":
        limit = f" of {pod.memory_limit}" if pod.memory_limit else ""
        parts = [f"exit code {code}: OOMKilled, it needed more memory than its limit{limit}"]
    elif pod.termination and pod.termination.reason not in ("", "Error", "Completed"):
        parts.append(pod.termination.reason)
    if pod.disruption:
        parts.append(pod.disruption)
    return "; ".join(parts)
