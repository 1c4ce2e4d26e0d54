"""Plays the nodes of a `Plane`: the test says what the program of a pod does, the API shows it as a kubelet would."""

import threading
from contextlib import suppress
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any

from jobs.names import CONTAINER

from tests.cluster.control_plane.plane import Plane, Refused, until

_MERGE = "application/merge-patch+json"


class Kubelet:
    """Pods of one namespace. Those that are deleted end with 143 and go, as if their program had saved its state."""

    def __init__(self, plane: Plane, namespace: str) -> None:
        self.plane = plane
        self.namespace = namespace
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._reap, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stopping.set()
        self._thread.join()

    def pods(self, job: str) -> list[dict[str, Any]]:
        """Pods of a Job, oldest first."""
        selector = f"batch.kubernetes.io/job-name={job}"
        found = self.plane.ask("GET", f"{self._path()}?labelSelector={selector}")["items"]
        return sorted(found, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    def placed(self, job: str, number: int = 1, seconds: float = 120) -> str:
        """Name of the newest pod of a Job that has had so many, once it is on a node."""

        def newest() -> str:
            pods = self.pods(job)
            pod = pods[-1] if len(pods) >= number else None
            if pod is None or "deletionTimestamp" in pod["metadata"]:  # that of a Job suspended meanwhile
                return ""
            on_node = pod["spec"].get("nodeName") and pod["status"]["phase"] == "Pending"
            return str(pod["metadata"]["name"]) if on_node else ""

        return str(until(f"pod {number} of {job} is on a node", newest, seconds))

    def run(self, pod: str) -> None:
        """The program has started."""
        self._status(pod, "Running", {"running": {"startedAt": _now()}})

    def wait(self, pod: str, reason: str, message: str) -> None:
        """The container cannot start."""
        self._status(pod, "Pending", {"waiting": {"reason": reason, "message": message}})

    def end(self, pod: str, exit_code: int, message: str = "", reason: str = "") -> None:
        """The program has ended."""
        reason = reason or ("Completed" if exit_code == 0 else "Error")
        ended = {"exitCode": exit_code, "reason": reason, "message": message, "finishedAt": _now()}
        ended["startedAt"] = self._started(pod) or _now()
        self._status(pod, "Failed" if exit_code else "Succeeded", {"terminated": ended})

    def disrupt(self, pod: str) -> None:
        """The cluster takes the pod away, as the Eviction API does."""
        condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
        condition |= {"message": "Eviction API: evicting", "lastTransitionTime": _now()}
        status = {"conditions": [condition]}
        self.plane.ask(
            "PATCH", f"{self._path(pod)}/status", {"status": status}, "application/strategic-merge-patch+json"
        )

    def _reap(self) -> None:
        while not self._stopping.wait(0.2):
            with suppress(OSError, Refused, HTTPException):  # the API server may be away
                for pod in self.plane.ask("GET", self._path())["items"]:
                    if "deletionTimestamp" in pod["metadata"]:
                        self._remove(pod)

    def _remove(self, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        if pod["status"]["phase"] == "Running":
            self.end(name, 143)
        self.plane.ask("DELETE", f"{self._path(name)}?gracePeriodSeconds=0")

    def _started(self, pod: str) -> str:
        states = self.plane.ask("GET", self._path(pod))["status"].get("containerStatuses", [])
        return states[0]["state"].get("running", {}).get("startedAt", "") if states else ""

    def _status(self, pod: str, phase: str, state: dict[str, Any]) -> None:
        container = {"name": CONTAINER, "image": "i", "imageID": "i", "ready": False, "restartCount": 0, "state": state}
        status = {"phase": phase, "containerStatuses": [container]}
        self.plane.ask("PATCH", f"{self._path(pod)}/status", {"status": status}, _MERGE)

    def _path(self, pod: str = "") -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods" + (f"/{pod}" if pod else "")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def node(name: str, gpus: int = 0) -> dict[str, Any]:
    """A node that says it is Ready."""
    capacity = {"cpu": "16", "memory": "64Gi", "pods": "110", "ephemeral-storage": "500Gi", "nvidia.com/gpu": str(gpus)}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": _now()}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "status": {"capacity": capacity, "allocatable": capacity, "conditions": [ready]},
    }
