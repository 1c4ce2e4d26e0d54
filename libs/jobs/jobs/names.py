"""Names, labels and annotations by which Jobs of Darkroom are known, whoever made them."""

import hashlib
from typing import Final

from jobs.run_spec import RunSpec

DOMAIN: Final = "darkroom.dev"
CONTAINER: Final = "dreambooth"
"""The container of a pod that runs the program."""

SESSION_LABEL: Final = f"{DOMAIN}/session"
RUN_LABEL: Final = f"{DOMAIN}/run"
CHECKPOINT: Final = f"{DOMAIN}/checkpoint"
CREATE_TIME: Final = f"{DOMAIN}/create-time"
OWNER: Final = f"{DOMAIN}/owner"
REQUEST_ID: Final = f"{DOMAIN}/request-id"
REQUEST_DIGEST: Final = f"{DOMAIN}/request-digest"

QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL: Final = "kueue.x-k8s.io/priority-class"

EVERY_RUN: Final = {"app.kubernetes.io/name": "dreambooth", "app.kubernetes.io/part-of": "darkroom"}
"""Labels of all Jobs of runs and of their pods."""
SELECTOR: Final = ",".join(f"{label}={value}" for label, value in EVERY_RUN.items())


def job_name(run_name: str) -> str:
    """Of the Job and, with several pods, of their Service. Fits 63 characters with a pod's suffix, however long the run's name is."""
    return f"run-{hashlib.sha256(run_name.encode()).hexdigest()[:16]}"


def labels(spec: RunSpec) -> dict[str, str]:
    """Labels of the Job, its pods and its Service."""
    return {
        **EVERY_RUN,
        "app.kubernetes.io/component": "trainer",
        "app.kubernetes.io/managed-by": "darkroom-trainer",
        SESSION_LABEL: spec.session,
        RUN_LABEL: spec.run_id,
    }
