"""The Job that is created for a run: rendered anew from what was ordered, by the service's own execution. Pure.

job.json lies in the bucket, where more than this service may write. Of it only what makes the run is taken: recipe, names,
and how many processes train together, which its resume points depend on. Image, command, account, volumes and all else are
those of the execution, so that nobody makes the service create a pod of another kind; after an upgrade they are the new ones.
A record that asks for what no run has ever had is refused, and not made into something else in silence.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from jobs import names
from jobs.execution import Execution
from jobs.execution_file import GPUS, NODES
from jobs.manifest import container_of, environment_of
from jobs.render import render
from jobs.run_spec import RunSpec

from trainer.cluster.errors import RecordRefused
from trainer.cluster.live import num_pods

_POD: Final = "spec.template.spec"
_CONTAINER: Final = f"{_POD}.containers[{names.CONTAINER}]"
_FOREIGN: Final = (
    "initContainers",
    "ephemeralContainers",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "shareProcessNamespace",
    "hostAliases",
    "nodeName",
)
_FOREIGN_IN_CONTAINER: Final = (
    "args",
    "envFrom",
    "lifecycle",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "volumeDevices",
)
_VOLUMES: Final = ("emptyDir", "secret")


def rendered_anew(spec: RunSpec, record: Mapping[str, Any], execution: Execution) -> dict[str, Any]:
    """The Job to create. record: the run's job.json. Raises RecordRefused, which names each field that no run has."""
    try:
        job = render(spec, _as_ordered(record, execution))
        foreign = list(_foreign(record, job))
    except (AttributeError, KeyError, TypeError, ValueError, StopIteration) as error:
        raise RecordRefused(spec.name, (f"its form ({type(error).__name__} {error})",)) from error
    if foreign:
        raise RecordRefused(spec.name, foreign)
    return job


def differences(record: Mapping[str, Any], job: Mapping[str, Any]) -> list[str]:
    """Fields of the container and the pod that a record has otherwise than the Job, for the log."""
    found = []
    for path, was, now in (
        (_POD, record["spec"]["template"]["spec"], job["spec"]["template"]["spec"]),
        (_CONTAINER, container_of(record), container_of(job)),
    ):
        found += [f"{path}.{name}" for name in now if name != "containers" and was.get(name) != now[name]]
    return found


def _as_ordered(record: Mapping[str, Any], execution: Execution) -> Execution:
    """The execution with as many processes as the run had from its beginning."""
    nodes, processes = num_pods(record), int(environment_of(record).get("DARKROOM_PROCESSES", "1"))
    if not NODES[0] <= nodes <= NODES[1]:
        raise ValueError(f"spec.completions is {nodes}, expected {NODES[0]} to {NODES[1]}")
    if not GPUS[0] <= processes <= GPUS[1]:
        raise ValueError(f"DARKROOM_PROCESSES is {processes}, expected {GPUS[0]} to {GPUS[1]}")
    return replace(execution, nodes=nodes, gpu=replace(execution.gpu, count=processes))


def _foreign(record: Mapping[str, Any], job: Mapping[str, Any]) -> Iterator[str]:
    """Paths of what the record asks for and no run has, in any version of Darkroom."""
    about, pod, container = record["metadata"], record["spec"]["template"]["spec"], container_of(record)
    if about["name"] != job["metadata"]["name"]:
        yield "metadata.name"
    if about.get("namespace") not in (None, "", job["metadata"].get("namespace")):
        yield "metadata.namespace"
    yield from (f"{_POD}.{name}" for name in _FOREIGN if pod.get(name))
    if pod.get("automountServiceAccountToken") is not False:
        yield f"{_POD}.automountServiceAccountToken"
    yield from (f"{_POD}.containers[{each['name']}]" for each in pod["containers"] if each is not container)
    yield from (f"{_CONTAINER}.{name}" for name in _FOREIGN_IN_CONTAINER if container.get(name))
    yield from (f"{_CONTAINER}.env[{each['name']}].valueFrom" for each in container["env"] if each.get("valueFrom"))
    own = {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}
    for volume in pod.get("volumes") or ():
        if volume["name"] not in own or not any(kind in volume for kind in _VOLUMES):
            yield f"{_POD}.volumes[{volume['name']}]"
    yield from _more_rights(pod.get("securityContext") or {}, f"{_POD}.securityContext")
    yield from _more_rights(container.get("securityContext") or {}, f"{_CONTAINER}.securityContext")


def _more_rights(context: Mapping[str, Any], path: str) -> Iterator[str]:
    """What of a securityContext gives more than Pod Security "restricted"."""
    for name in ("runAsUser", "runAsGroup", "fsGroup"):
        if context.get(name) == 0:
            yield f"{path}.{name}"
    yield from (f"{path}.{name}" for name in ("privileged", "allowPrivilegeEscalation") if context.get(name))
    yield from (f"{path}.{name}" for name in ("sysctls", "seLinuxOptions", "procMount") if context.get(name))
    if context.get("runAsNonRoot") is False:
        yield f"{path}.runAsNonRoot"
    if (context.get("capabilities") or {}).get("add"):
        yield f"{path}.capabilities.add"
    if (context.get("seccompProfile") or {}).get("type") == "Unconfined":
        yield f"{path}.seccompProfile"
