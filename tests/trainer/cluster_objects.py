"""Jobs and pods as the API tells them, for tests of what the trainer makes of them."""

from datetime import UTC, datetime
from typing import Any

from jobs import names
from trainer.cluster.live import DIGEST, RESUMPTIONS, LiveJob, LivePod

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
UID = "job-uid"


def at(minute: int) -> str:
    """A moment of the test's hour."""
    return f"2026-11-26T11:{minute:02d}:00Z"


def live_job(*conditions: dict[str, Any], digest: str = "d", resumptions: int = 0, **spec: Any) -> LiveJob:
    """A Job with these conditions."""
    notes = {DIGEST: digest, names.OWNER: "kubernetes/t"} if digest else {}
    if resumptions:
        notes[RESUMPTIONS] = str(resumptions)
    about = {"name": "run-1", "uid": UID, "creationTimestamp": at(0), "annotations": notes, "labels": {}}
    return LiveJob.of({"metadata": about, "spec": spec, "status": {"conditions": list(conditions)}})


def condition(kind: str, reason: str = "", message: str = "") -> dict[str, Any]:
    """A condition that is true."""
    return {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": at(30)}


def live_pod(
    name: str,
    phase: str = "Running",
    state: dict[str, Any] | None = None,
    conditions: list[dict[str, Any]] | None = None,
    index: int = 0,
    created: int = 1,
    deleted: bool = False,
) -> LivePod:
    """A pod of the Job whose program is in this state. deleted: somebody has asked for its end."""
    labels = {"batch.kubernetes.io/controller-uid": UID, "batch.kubernetes.io/job-completion-index": str(index)}
    about = {"name": name, "uid": f"uid-{name}", "creationTimestamp": at(created), "labels": labels}
    about |= {"deletionTimestamp": at(created)} if deleted else {}
    statuses = [{"name": names.CONTAINER, "state": state}] if state is not None else []
    container = {"name": names.CONTAINER, "resources": {"limits": {"memory": "16Gi"}}}
    status = {"phase": phase, "containerStatuses": statuses, "conditions": conditions or []}
    return LivePod.of({"metadata": about, "spec": {"containers": [container]}, "status": status})


def running(minute: int = 2) -> dict[str, Any]:
    """The state of a program that runs."""
    return {"running": {"startedAt": at(minute)}}


def ended(code: int, message: str = "", reason: str = "Error", minute: int = 2) -> dict[str, Any]:
    """The state of a program that has ended."""
    times = {"startedAt": at(minute), "finishedAt": at(minute + 1)}
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, **times}}
