"""The one renderer of runs: from a run to the manifest of its Kubernetes Job. Pure.

Its result is written to job.json and is what every backend executes; `parse` reads the run back, so that the manifest
is the whole record of what was asked for. Why each field: docs of the Job in reference to Kubernetes 1.33 and later.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from artifacts.errors import ManifestInvalid
from artifacts.records import rfc3339

from trainer import recipe as recipes
from trainer.recipe import Recipe

DOMAIN = "darkroom.dev"
CONTAINER = "dreambooth"
_LAST_RECORDS_SECONDS = 10
# docs/exit-codes.md: 64 to 69 the input is wrong, 78 another writer owns the run; trying again would not help.
FATAL_EXIT_CODES = (64, 65, 66, 67, 68, 69, 78)


@dataclass(frozen=True)
class RunSpec:
    """What was asked for, never changed afterwards.

    base_model_source: absolute folder or prefix of the bucket. owner: the machine that executes it, "" for a cluster.
    request_id and request_digest make a repeated request recognisable.
    """

    session: str
    run_id: str
    recipe: Recipe
    base_model_source: str
    checkpoint: str
    create_time: datetime
    owner: str = ""
    request_id: str = ""
    request_digest: str = ""

    @property
    def name(self) -> str:
        """Resource name."""
        return f"sessions/{self.session}/runs/{self.run_id}"


@dataclass(frozen=True)
class Execution:
    """How runs are executed, the same for all. grace_seconds: from SIGTERM to SIGKILL. gpus: 0 for none."""

    command: Sequence[str] = ("python", "-m", "dreambooth")
    image: str = "darkroom-trainer:0.1.0"
    backoff_limit: int = 3
    grace_seconds: int = 60
    gpus: int = 0
    memory: str = "16Gi"
    cpu: str = "2"
    store_secret: str = "darkroom-s3"
    environment: Mapping[str, str] = field(default_factory=dict)


def render(spec: RunSpec, execution: Execution) -> dict[str, Any]:
    """The Job as a dict ready for JSON or YAML."""
    labels = {
        "app.kubernetes.io/name": "dreambooth",
        "app.kubernetes.io/component": "trainer",
        "app.kubernetes.io/part-of": "darkroom",
        "app.kubernetes.io/managed-by": "darkroom-trainer",
        f"{DOMAIN}/session": spec.session,
        f"{DOMAIN}/run": spec.run_id,
    }
    annotations = {
        f"{DOMAIN}/checkpoint": spec.checkpoint,
        f"{DOMAIN}/create-time": rfc3339(spec.create_time),
        f"{DOMAIN}/owner": spec.owner,
        f"{DOMAIN}/request-id": spec.request_id,
        f"{DOMAIN}/request-digest": spec.request_digest,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(spec.name),
            "labels": labels,
            "annotations": {name: value for name, value in annotations.items() if value},
        },
        "spec": {
            "backoffLimit": execution.backoff_limit,
            "completionMode": "NonIndexed",
            "completions": 1,
            "parallelism": 1,
            # The only value that a podFailurePolicy allows; it also keeps two attempts from working at once.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _failure_rules()},
            "template": {"metadata": {"labels": labels}, "spec": _pod(spec, execution)},
        },
    }


def job_name(run_name: str) -> str:
    """Fits Kubernetes' 63 characters with a pod's suffix, whatever the length of the run's name."""
    return f"run-{hashlib.sha256(run_name.encode()).hexdigest()[:16]}"


def _failure_rules() -> list[dict[str, Any]]:
    exit_codes = {"containerName": CONTAINER, "operator": "In", "values": list(FATAL_EXIT_CODES)}
    return [
        # status is optional only from Kubernetes 1.35 on.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": exit_codes},
    ]


def _pod(spec: RunSpec, execution: Execution) -> dict[str, Any]:
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": execution.grace_seconds,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(spec, execution)],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "32Gi"}}],
    }


def _container(spec: RunSpec, execution: Execution) -> dict[str, Any]:
    recipe = recipes.to_json(spec.recipe, spec.base_model_source, spec.checkpoint)
    resources: dict[str, dict[str, str]] = {
        "requests": {"cpu": execution.cpu, "memory": execution.memory},
        "limits": {"memory": execution.memory},
    }
    if execution.gpus:
        resources["requests"]["nvidia.com/gpu"] = resources["limits"]["nvidia.com/gpu"] = str(execution.gpus)
    environment = {
        "DARKROOM_RUN": spec.name,
        "DARKROOM_RECIPE": json.dumps(recipe, sort_keys=True, ensure_ascii=False),
        "DARKROOM_SAVE_SECONDS": f"{save_seconds(execution.grace_seconds):g}",
    }
    if execution.gpus > 1:
        environment["DARKROOM_PROCESSES"] = str(execution.gpus)
    environment |= execution.environment
    return {
        "name": CONTAINER,
        "image": execution.image,
        "command": list(execution.command),
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        # Its keys are the names of the variables: DARKROOM_S3_ENDPOINT, DARKROOM_S3_BUCKET and so on.
        "envFrom": [{"secretRef": {"name": execution.store_secret}}],
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }


def save_seconds(grace_seconds: float) -> float:
    """How long the program may take for its last resume point, so that its last records fit into the grace period, too."""
    return max(grace_seconds - _LAST_RECORDS_SECONDS, grace_seconds / 2, 1.0)


def environment_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The plain variables of the container."""
    return {item["name"]: item["value"] for item in container_of(manifest)["env"]}


def container_of(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """The container that runs the program."""
    container: Mapping[str, Any] = manifest["spec"]["template"]["spec"]["containers"][0]
    return container


def parse(data: bytes, key: str) -> tuple[RunSpec, dict[str, Any]]:
    """The run and its manifest out of job.json. Raises ManifestInvalid for a file damaged by hand."""
    try:
        manifest = json.loads(data)
        labels, notes = manifest["metadata"]["labels"], manifest["metadata"]["annotations"]
        fields = json.loads(environment_of(manifest)["DARKROOM_RECIPE"])
        spec = RunSpec(
            session=labels[f"{DOMAIN}/session"],
            run_id=labels[f"{DOMAIN}/run"],
            recipe=recipes.from_json(fields),
            base_model_source=fields["base_model_source"],
            checkpoint=notes[f"{DOMAIN}/checkpoint"],
            create_time=datetime.fromisoformat(notes[f"{DOMAIN}/create-time"]),
            owner=notes.get(f"{DOMAIN}/owner", ""),
            request_id=notes.get(f"{DOMAIN}/request-id", ""),
            request_digest=notes.get(f"{DOMAIN}/request-digest", ""),
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ManifestInvalid(key, (f"no manifest of a run: {type(error).__name__} {error}",)) from error
    return spec, manifest
