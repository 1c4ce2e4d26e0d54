"""The one renderer of runs: from a run and its execution to the objects of Kubernetes. Pure.

The Job is written to job.json, which one machine executes, and from which a cluster's Job is rendered anew; `manifest` reads
the run back, so that the Job is the whole record of what was asked for. Fields as Kubernetes 1.33 and later have them; docs/training-jobs.md explains each.
"""

import json
from typing import Any, Final

from artifacts.records import rfc3339

from jobs import names, placement
from jobs import recipe as recipes
from jobs.execution import AUTO, CUDA, Execution
from jobs.failures import failure_rules
from jobs.run_spec import UNDATED, RunSpec

STORE_FOLDER: Final = "/etc/darkroom/store"
_MASTER_PORT: Final = 29500
_LAST_RECORDS_SECONDS: Final = 10


def render(spec: RunSpec, execution: Execution) -> dict[str, Any]:
    """The Job as a dict ready for JSON or YAML."""
    labels = {**execution.labels, **names.labels(spec)}
    queue = {
        names.QUEUE_LABEL: execution.queue_name,
        names.PRIORITY_LABEL: execution.queue_priority_class,
    }
    many = execution.nodes > 1
    job_spec: dict[str, Any] = {
        "backoffLimit": execution.backoff_limit,
        "completionMode": "Indexed" if many else "NonIndexed",
        "completions": execution.nodes,
        "parallelism": execution.nodes,
        # The only value that a podFailurePolicy allows; it also keeps two attempts from working at once.
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": failure_rules(execution.nodes)},
    }
    if execution.deadline_seconds:
        job_spec["activeDeadlineSeconds"] = execution.deadline_seconds
    job_spec["ttlSecondsAfterFinished"] = execution.ttl_seconds
    about = {"labels": labels, **_some("annotations", dict(execution.annotations))}
    job_spec["template"] = {"metadata": about, "spec": _pod(spec, execution)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.job_name(spec.name),
            **_some("namespace", execution.namespace),
            "labels": {**labels, **{name: value for name, value in queue.items() if value}},
            "annotations": {**execution.annotations, **_notes(spec)},
        },
        "spec": job_spec,
    }


def render_all(spec: RunSpec, execution: Execution) -> list[dict[str, Any]]:
    """Everything a cluster needs for the run, in the order in which to create it; the Job is the last."""
    job = render(spec, execution)
    return [_service(spec, execution), job] if execution.nodes > 1 else [job]


def save_seconds(grace_seconds: float) -> float:
    """How long the program may take for its last resume point, so that its last records fit into the grace period, too."""
    return max(grace_seconds - _LAST_RECORDS_SECONDS, grace_seconds / 2, 1.0)


def _notes(spec: RunSpec) -> dict[str, str]:
    found = {
        names.CHECKPOINT: spec.checkpoint,
        names.CREATE_TIME: "" if spec.create_time == UNDATED else rfc3339(spec.create_time),
        names.OWNER: spec.owner,
        names.REQUEST_ID: spec.request_id,
        names.REQUEST_DIGEST: spec.request_digest,
    }
    return {name: value for name, value in found.items() if value}


def _service(spec: RunSpec, execution: Execution) -> dict[str, Any]:
    """Gives the pods of an Indexed Job names to meet by, also before they are ready."""
    labels = names.labels(spec)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.job_name(spec.name),
            **_some("namespace", execution.namespace),
            "labels": {**execution.labels, **labels},
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.SESSION_LABEL: spec.session, names.RUN_LABEL: spec.run_id},
            "ports": [{"name": "meeting", "port": _MASTER_PORT}],
        },
    }


def _pod(spec: RunSpec, execution: Execution) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [
        {"name": "tmp", "emptyDir": {"sizeLimit": execution.tmp_size}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": execution.shm_size}},
    ]
    if secret := execution.store_secret:
        items = [
            {"key": secret.access_key, "path": "access-key"},
            {"key": secret.secret_key, "path": "secret-key"},
        ]
        # Read by its group, which is fsGroup or the one that the platform assigns, and by nobody else.
        volumes.append({"name": "store", "secret": {"secretName": secret.name, "defaultMode": 0o440, "items": items}})
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": execution.grace_seconds,
        **_some("serviceAccountName", execution.service_account_name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **_some("subdomain", names.job_name(spec.name) if execution.nodes > 1 else ""),
        **_some("imagePullSecrets", [{"name": name} for name in execution.image_pull_secrets]),
        **placement.placement(execution),
        **({} if execution.host_users else {"hostUsers": False}),
        "securityContext": {
            "runAsNonRoot": True,
            **_some("runAsUser", execution.run_as_user),
            **_some("runAsGroup", execution.run_as_group),
            **_some("fsGroup", execution.fs_group),
            **_some("fsGroupChangePolicy", "OnRootMismatch" if execution.fs_group else ""),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(spec, execution)],
        "volumes": volumes,
    }


def _container(spec: RunSpec, execution: Execution) -> dict[str, Any]:
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}]
    if execution.store_secret:
        mounts.append({"name": "store", "mountPath": STORE_FOLDER, "readOnly": True})
    return {
        "name": names.CONTAINER,
        "image": execution.image,
        "imagePullPolicy": execution.image_pull_policy,
        "command": list(execution.command),
        "env": [{"name": name, "value": value} for name, value in _environment(spec, execution).items()],
        "resources": placement.resources(execution),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def _environment(spec: RunSpec, execution: Execution) -> dict[str, str]:
    recipe = recipes.to_json(spec.recipe, spec.base_model_source, spec.checkpoint)
    found = {
        "DARKROOM_RUN": spec.name,
        "DARKROOM_RECIPE": json.dumps(recipe, sort_keys=True, ensure_ascii=False),
        "DARKROOM_SAVE_SECONDS": f"{save_seconds(execution.grace_seconds):g}",
    }
    if store := execution.store:
        found |= {
            "DARKROOM_S3_ENDPOINT": store.endpoint,
            "DARKROOM_S3_BUCKET": store.bucket,
            "DARKROOM_S3_REGION": store.region,
        }
    if execution.store_secret:
        found["DARKROOM_S3_ACCESS_KEY_FILE"] = f"{STORE_FOLDER}/access-key"
        found["DARKROOM_S3_SECRET_KEY_FILE"] = f"{STORE_FOLDER}/secret-key"
    if device := _device(execution):
        found["DARKROOM_DEVICE"] = device
    if execution.gpu.num_gpus > 1:
        found["DARKROOM_PROCESSES"] = str(execution.gpu.count)
    if execution.nodes > 1:
        job = names.job_name(spec.name)
        found |= {
            "DARKROOM_NODES": str(execution.nodes),
            "MASTER_ADDR": f"{job}-0.{job}",
            "MASTER_PORT": str(_MASTER_PORT),
        }
    return found | dict(execution.env)


def _device(execution: Execution) -> str:
    """Where the program has to compute, "" to let it choose. A pod with a GPU computes on it or fails, so that none trains
    on the CPU of a costly node. GPUs of AMD are called cuda, too: torch's build for ROCm answers to that name.
    """
    if execution.device == AUTO:
        return CUDA if execution.gpu.enabled else ""
    return execution.device


def _some(name: str, value: Any) -> dict[str, Any]:
    """The field, or nothing if it has no content."""
    return {name: value} if value else {}
