"""A MinIO of one test's own, whose data outlives its pod: it may be switched off and on again."""

import copy
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tests.cluster.harness import store as minio
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.layout import STATE

_USER: Final = 10001
_CLAIM: Final = "data"


@contextmanager
def lasting_store(cluster: Cluster, namespace: str) -> Iterator[None]:
    """MinIO in a namespace, on a folder of the node; afterwards the folder is removed, the rest goes with the namespace."""
    folder = STATE / "volumes" / namespace
    folder.mkdir(parents=True)
    os.chown(folder, _USER, _USER)
    try:
        cluster.apply(*_objects(namespace, str(folder)))
        switch(cluster, namespace, on=True)
        yield
    finally:
        switch(cluster, namespace, on=False)
        cluster.kubectl("delete", "persistentvolume", namespace, "--wait=false")
        shutil.rmtree(folder)


def switch(cluster: Cluster, namespace: str, on: bool) -> None:
    """Start it and wait until it is ready, or end it and wait until it is gone."""
    here = ("--namespace", namespace)
    cluster.kubectl("scale", *here, f"deployment/{minio.SERVICE}", f"--replicas={int(on)}")
    if on:
        cluster.kubectl("rollout", "status", *here, f"deployment/{minio.SERVICE}", "--timeout=120s", timeout=150)
    else:
        pods = (*here, "pods", "--selector=app.kubernetes.io/name=minio")
        cluster.kubectl("wait", *pods, "--for=delete", "--timeout=120s", timeout=150)


def _objects(namespace: str, folder: str) -> list[dict[str, Any]]:
    """Those of the harness, in another namespace and on a volume."""
    objects = copy.deepcopy([each for each in minio.objects() if each["kind"] != "Namespace"])
    for each in objects:
        each["metadata"]["namespace"] = namespace
        if each["kind"] == "Deployment":
            pod = each["spec"]["template"]["spec"]
            others = [volume for volume in pod["volumes"] if volume["name"] != "data"]
            pod["volumes"] = [*others, {"name": "data", "persistentVolumeClaim": {"claimName": _CLAIM}}]
    size = {"storage": "5Gi"}
    common = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": namespace},
        "spec": {
            **common,
            "capacity": size,
            "hostPath": {"path": folder, "type": "Directory"},
            "claimRef": {"namespace": namespace, "name": _CLAIM},
            "persistentVolumeReclaimPolicy": "Retain",
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": _CLAIM, "namespace": namespace},
        "spec": {**common, "volumeName": namespace, "resources": {"requests": size}},
    }
    return [volume, claim, *objects]
