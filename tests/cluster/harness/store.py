"""MinIO as a pod: the object store of the tests, in a namespace of its own that enforces `restricted`."""

from typing import Any, Final

from tests.cluster.harness.client import Cluster
from tests.cluster.harness.layout import MINIO_IMAGE
from tests.cluster.harness.manifests import namespace, restricted_pod

NAMESPACE: Final = "darkroom-store"
SERVICE: Final = "minio"
PORT: Final = 9000
ENDPOINT: Final = f"http://{SERVICE}.{NAMESPACE}:{PORT}"
"""How pods of every namespace reach it."""
SECRET: Final = "darkroom-store"
ACCESS_KEY: Final = "darkroom"
SECRET_KEY: Final = "darkroom-cluster-tests"

_LABELS: Final = {"app.kubernetes.io/name": "minio"}


def credentials(namespace: str) -> dict[str, Any]:
    """The store's Secret, as the chart expects it, for any namespace."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": namespace},
        "stringData": {"access-key": ACCESS_KEY, "secret-key": SECRET_KEY},
    }


def address(cluster: Cluster) -> str:
    """Host and port for programs of this machine, which do not know the Service by its name."""
    return f"{cluster.cluster_ip(SERVICE, NAMESPACE)}:{PORT}"


def objects() -> list[dict[str, Any]]:
    """Everything that the store consists of."""
    metadata = {"name": SERVICE, "namespace": NAMESPACE, "labels": _LABELS}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": _pod()},
        },
    }
    ports = [{"name": "s3", "port": PORT, "targetPort": "s3"}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": _LABELS, "ports": ports},
    }
    return [namespace(NAMESPACE), credentials(NAMESPACE), deployment, service]


def _pod() -> dict[str, Any]:
    container = {
        "name": "minio",
        "image": MINIO_IMAGE,
        "args": ["server", "/data", "--address", f":{PORT}", "--certs-dir", "/tmp"],
        "env": [_from_secret("MINIO_ROOT_USER", "access-key"), _from_secret("MINIO_ROOT_PASSWORD", "secret-key")],
        "ports": [{"name": "s3", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/minio/health/ready", "port": "s3"}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    volumes = [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    return restricted_pod(container, volumes=volumes)


def _from_secret(variable: str, key: str) -> dict[str, Any]:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": key}}}
