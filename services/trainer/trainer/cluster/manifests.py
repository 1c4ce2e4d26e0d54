"""Between job.json and the Job in the cluster: what is added for the API, and what is taken off a Job that is adopted. Pure."""

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from artifacts.records import rfc3339
from jobs import names
from jobs.execution import Execution
from jobs.manifest import container_of
from jobs.render import render_all
from jobs.run_spec import RunSpec

from trainer.cluster.live import DIGEST, RESUMPTIONS, LiveJob, num_pods

_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_OF_CONTROLLER = ("controller-uid", "job-name")


def digest(manifest: Mapping[str, Any]) -> str:
    """Differs for Jobs that ask for something else."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:32]


def to_create(
    job: Mapping[str, Any], record: Mapping[str, Any], resumptions: int, accept_inexact: bool
) -> dict[str, Any]:
    """The Job for the API: as rendered, with the marks by which it is known as that of job.json, and how the run was resumed.

    record: job.json.
    """
    made: dict[str, Any] = copy.deepcopy(dict(job))
    made["metadata"].setdefault("annotations", {}).update(marks(record, resumptions))
    if accept_inexact:
        dict(container_of(made))["env"].append({"name": "DARKROOM_ACCEPT_INEXACT", "value": "true"})
    return made


def marks(manifest: Mapping[str, Any], resumptions: int) -> dict[str, str]:
    """The annotations that say from which job.json a Job is, and who looks after it."""
    owner = (manifest["metadata"].get("annotations") or {}).get(names.OWNER, "")
    found = {DIGEST: digest(manifest), names.OWNER: owner}
    return {**found, RESUMPTIONS: str(resumptions)} if resumptions else found


def adopted(job: LiveJob, owner: str) -> dict[str, Any]:
    """job.json of a Job that somebody else made: what was asked for, without what the cluster added.

    Also without the suspension: that belongs to the Job, not to the order.
    """
    about, spec = job.raw["metadata"], copy.deepcopy(dict(job.raw["spec"]))
    spec.pop("selector", None)
    spec.pop("suspend", None)
    template = spec["template"]["metadata"]
    template["labels"] = _without_controller(template.get("labels") or {})
    template.pop("creationTimestamp", None)
    notes = {name: text for name, text in (about.get("annotations") or {}).items() if name not in _ADDED}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": about["name"],
            "namespace": about["namespace"],
            "labels": _without_controller(about.get("labels") or {}),
            "annotations": {
                names.CREATE_TIME: rfc3339(job.create_time),
                **notes,
                names.OWNER: owner,
            },
        },
        "spec": spec,
    }


def services(spec: RunSpec, manifest: Mapping[str, Any], execution: Execution, job_uid: str) -> list[dict[str, Any]]:
    """The Service of a Job of several pods, owned by the Job; [] for one pod."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": manifest["metadata"]["name"], "uid": job_uid}
    found = render_all(spec, replace(execution, nodes=num_pods(manifest)))[:-1]
    for service in found:
        service["metadata"]["ownerReferences"] = [owner]
    return found


_ADDED = (_APPLIED, DIGEST, RESUMPTIONS, names.OWNER)


def _without_controller(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if name.rpartition("/")[2] not in _OF_CONTROLLER}
