"""Jobs, pods and events as this package needs them, read from what the API answers. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from jobs import names

DIGEST: Final = f"{names.DOMAIN}/manifest-digest"
"""Annotation: digest of the run's job.json, from which the service made the Job or which it made of it."""
RESUMPTIONS: Final = f"{names.DOMAIN}/resumptions"
"""Annotation: how often the run had been resumed when this Job was made."""
_INDEX: Final = "batch.kubernetes.io/job-completion-index"
_CONTROLLER: Final = "batch.kubernetes.io/controller-uid"


@dataclass(frozen=True)
class Ended:
    """A true condition Complete or Failed of a Job."""

    type: str
    reason: str
    message: str
    time: datetime


@dataclass(frozen=True)
class LiveJob:
    """A Job. digest and owner are "" on one that nobody adopted yet; queue: of Kueue, "" for none.

    num_pods: that train together.
    """

    name: str
    uid: str
    create_time: datetime
    digest: str
    owner: str
    resumptions: int
    suspended: bool
    being_deleted: bool
    queue: str
    ended: Ended | None
    backoff_limit: int
    deadline_seconds: int
    num_pods: int
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "LiveJob":
        """From the API's answer."""
        about, spec = raw["metadata"], raw["spec"]
        notes = about.get("annotations") or {}
        return cls(
            name=about["name"],
            uid=about["uid"],
            create_time=_time(about["creationTimestamp"]),
            digest=notes.get(DIGEST, ""),
            owner=notes.get(names.OWNER, ""),
            resumptions=_whole(notes.get(RESUMPTIONS, "")),
            suspended=bool(spec.get("suspend")),
            being_deleted="deletionTimestamp" in about,
            queue=(about.get("labels") or {}).get(names.QUEUE_LABEL, ""),
            ended=_ended(raw),
            backoff_limit=spec.get("backoffLimit", 6),
            deadline_seconds=spec.get("activeDeadlineSeconds", 0),
            num_pods=num_pods(raw),
            raw=raw,
        )


@dataclass(frozen=True)
class Termination:
    """How the program of a pod ended."""

    exit_code: int
    reason: str
    message: str
    time: datetime


@dataclass(frozen=True)
class LivePod:
    """A pod of a Job. start_time: of the program, None before. disruption: why the cluster took the pod away, "" if not.

    waiting: (reason, message) of a container that cannot start. unschedulable: the scheduler's words.
    """

    name: str
    uid: str
    job_uid: str
    index: int
    phase: str
    create_time: datetime
    start_time: datetime | None
    termination: Termination | None
    disruption: str
    disruption_time: datetime | None
    waiting: tuple[str, str]
    unschedulable: str
    memory_limit: str
    being_deleted: bool

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "LivePod":
        """From the API's answer."""
        about, status = raw["metadata"], raw.get("status") or {}
        labels = about.get("labels") or {}
        state = _container_state(status)
        ended = state.get("terminated")
        started = (state.get("running") or ended or {}).get("startedAt")
        if ended and (started or "").startswith("1970"):  # the container could not be started
            started = ended.get("finishedAt")
        conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
        disruption = _true(conditions.get("DisruptionTarget"))
        scheduled = conditions.get("PodScheduled") or {}
        waiting = state.get("waiting") or {}
        return cls(
            name=about["name"],
            uid=about["uid"],
            job_uid=labels.get(_CONTROLLER, ""),
            index=_whole(labels.get(_INDEX, "")),
            phase=status.get("phase", ""),
            create_time=_time(about["creationTimestamp"]),
            start_time=_time(started) if started else None,
            termination=_termination(ended) if ended else None,
            disruption=_sentence(disruption.get("reason", ""), disruption.get("message", "")),
            disruption_time=_time(disruption["lastTransitionTime"]) if disruption.get("lastTransitionTime") else None,
            waiting=(waiting.get("reason", ""), waiting.get("message", "")),
            unschedulable=scheduled.get("message", "") if scheduled.get("status") == "False" else "",
            memory_limit=_memory_limit(raw),
            being_deleted="deletionTimestamp" in about,
        )


@dataclass(frozen=True)
class Happening:
    """An Event of the API: what the cluster says about an object."""

    reason: str
    message: str
    is_warning: bool
    time: datetime

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "Happening":
        """From the API's answer."""
        time = raw.get("lastTimestamp") or raw.get("eventTime") or raw["metadata"]["creationTimestamp"]
        return cls(
            raw.get("reason") or "", (raw.get("message") or "").strip(), raw.get("type") == "Warning", _time(time)
        )


def num_pods(job: Mapping[str, Any]) -> int:
    """Pods of a Job that train together."""
    spec = job["spec"]
    return int(spec.get("completions", 1)) if spec.get("completionMode") == "Indexed" else 1


def _ended(raw: Mapping[str, Any]) -> Ended | None:
    for condition in (raw.get("status") or {}).get("conditions") or ():
        # FailureTarget and SuccessCriteriaMet come earlier, while pods may still work.
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            time = _time(condition["lastTransitionTime"])
            return Ended(condition["type"], condition.get("reason", ""), condition.get("message", ""), time)
    return None


def _container_state(status: Mapping[str, Any]) -> Mapping[str, Any]:
    for container in status.get("containerStatuses") or ():
        if container["name"] == names.CONTAINER:
            state: Mapping[str, Any] = container.get("state") or {}
            return state
    return {}


def _termination(ended: Mapping[str, Any]) -> Termination:
    time = ended.get("finishedAt") or ended.get("startedAt")
    return Termination(
        ended["exitCode"], ended.get("reason", ""), ended.get("message", ""), _time(time) if time else _EPOCH
    )


def _memory_limit(raw: Mapping[str, Any]) -> str:
    for container in raw["spec"]["containers"]:
        if container["name"] == names.CONTAINER:
            return str(((container.get("resources") or {}).get("limits") or {}).get("memory", ""))
    return ""


def _true(condition: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return condition if condition and condition["status"] == "True" else {}


def _sentence(reason: str, message: str) -> str:
    return f"{reason}: {message}" if reason and message else reason or message


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


_EPOCH = datetime.fromtimestamp(0, UTC)
