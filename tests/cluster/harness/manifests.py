"""Parts of manifests that the harness and its tests share."""

from collections.abc import Sequence
from typing import Any

from tests.cluster.harness.layout import PROBE_IMAGE


def namespace(name: str) -> dict[str, Any]:
    """A Namespace that takes no pod but restricted ones."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def restricted_pod(container: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A pod spec of one container that passes Pod Security `restricted`: uid 10001, read-only root, no token."""
    security = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{"imagePullPolicy": "Never", "securityContext": security, **container}],
        **spec,
    }


def probe(*arguments: str, gpus: int = 0, name: str = "probe", **container: Any) -> dict[str, Any]:
    """A container of the probe image (see programs/probe) that asks for so many NVIDIA GPUs."""
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    return {"name": name, "image": PROBE_IMAGE, "args": list(arguments), "resources": {"limits": limits}, **container}


def pod(name: str, spec: dict[str, Any], labels: dict[str, str] | None = None) -> dict[str, Any]:
    """A Pod that is not started again when it has ended."""
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"restartPolicy": "Never", **spec}}


def job(name: str, spec: dict[str, Any], **job_spec: Any) -> dict[str, Any]:
    """A Job of one pod that is not repeated."""
    template = {"spec": {"restartPolicy": "Never", **spec}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": template, **job_spec},
    }


def service(name: str, selector: dict[str, str], port: int) -> dict[str, Any]:
    """A Service for pods with these labels, on the same port as theirs."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": selector, "ports": [{"port": port}]},
    }


def tolerate(*keys: str) -> dict[str, Sequence[dict[str, str]]]:
    """The part of a pod spec that lets it onto nodes with these taints."""
    return {"tolerations": [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in keys]}
