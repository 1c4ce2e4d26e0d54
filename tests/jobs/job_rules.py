"""What an API server or a kubelet refuses in the objects of a run although its schema does not: rules of batch/v1 and core/v1.

Pod Security "restricted" and our own promises are among them. `problems` names everything that is wrong.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_UNITS = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def problems(objects: Sequence[Mapping[str, Any]]) -> list[str]:
    """Everything wrong with the objects of one run: a Job, and perhaps its Service."""
    (job,) = [each for each in objects if each["kind"] == "Job"]
    services = [each for each in objects if each["kind"] == "Service"]
    spec, template = job["spec"], job["spec"]["template"]
    return [
        *_names(job),
        *_failure_policy(spec),
        *_indexes(job, services),
        *_restricted(template["spec"]),
        *_resources(template["spec"]),
        *_volumes(template["spec"]),
        *_placement(template["spec"]),
        *_promises(job),
    ]


def quantity(text: str) -> float:
    """A quantity as a number."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(\D*)", str(text))
    assert match, f"{text!r} is no quantity"
    return float(match[1]) * (_UNITS[match[2]] if match[2] else 1)


def _names(job: Mapping[str, Any]) -> Iterator[str]:
    # A pod of an Indexed Job is called <job>-<index>-<five characters>, its host <job>-<index>.
    if len(job["metadata"]["name"]) > 52:
        yield "the name is too long for pods"
    for about in (job["metadata"], job["spec"]["template"]["metadata"]):
        for name, value in about.get("labels", {}).items():
            if not _LABEL.fullmatch(value) or not _LABEL.fullmatch(name.rpartition("/")[2]):
                yield f"label {name}={value} is none"
        for name, value in about.get("annotations", {}).items():
            if not isinstance(value, str):
                yield f"annotation {name} is no text"
    variables = [item["name"] for item in _container(job["spec"]["template"]["spec"])["env"]]
    if len(variables) != len(set(variables)):
        yield "a variable is given twice"


def _failure_policy(spec: Mapping[str, Any]) -> Iterator[str]:
    pod = spec["template"]["spec"]
    if "podFailurePolicy" not in spec:
        yield "there is no podFailurePolicy"
        return
    if pod["restartPolicy"] != "Never":
        yield "podFailurePolicy needs restartPolicy Never"
    if spec.get("podReplacementPolicy") != "Failed":
        yield "podFailurePolicy needs podReplacementPolicy Failed"
    rules = spec["podFailurePolicy"]["rules"]
    if len(rules) > 20:
        yield "more than 20 rules"
    names = [container["name"] for container in pod["containers"]]
    for rule in rules:
        if ("onExitCodes" in rule) == ("onPodConditions" in rule):
            yield "a rule needs either onExitCodes or onPodConditions"
        if any("status" not in each for each in rule.get("onPodConditions", ())):
            yield "a condition without status, which Kubernetes up to 1.34 requires"
        if rule["action"] == "FailIndex" and "backoffLimitPerIndex" not in spec:
            yield "FailIndex needs backoffLimitPerIndex"
        if codes := rule.get("onExitCodes"):
            yield from _codes(codes, names)


def _codes(codes: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    values = codes["values"]
    if values != sorted(set(values)) or not values or len(values) > 255 or not all(0 <= each <= 255 for each in values):
        yield "exit codes have to be sorted, unique and from 0 to 255"
    if codes["operator"] == "In" and 0 in values:
        yield "exit code 0 is no failure"
    if codes.get("containerName") not in names:
        yield f"there is no container {codes.get('containerName')!r}"


def _indexes(job: Mapping[str, Any], services: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    if spec["completionMode"] == "NonIndexed":
        if spec["completions"] != 1 or spec["parallelism"] != 1 or services or "subdomain" in pod:
            yield "one pod needs neither more completions nor a Service"
        return
    if spec["completions"] != spec["parallelism"] or spec["completions"] < 2:
        yield "all pods have to run together"
    found = [each for each in services if each["metadata"]["name"] == pod.get("subdomain")]
    if len(found) != 1:
        yield "the pods' subdomain has no Service"
        return
    service = found[0]["spec"]
    if service["clusterIP"] != "None" or not service.get("publishNotReadyAddresses"):
        yield "the Service has to be headless and to publish pods that are not ready"
    labels = job["spec"]["template"]["metadata"]["labels"]
    if not service["selector"].items() <= labels.items() or len(service["selector"]) < 2:
        yield "the Service does not select the pods"
    environment = {item["name"]: item.get("value") for item in _container(pod)["env"]}
    if environment.get("MASTER_ADDR") != f"{job['metadata']['name']}-0.{pod['subdomain']}":
        yield "MASTER_ADDR is not the host of pod 0"
    if int(environment.get("MASTER_PORT") or 0) not in [port["port"] for port in service["ports"]]:
        yield "MASTER_PORT is no port of the Service"
    if environment.get("DARKROOM_NODES") != str(spec["completions"]):
        yield "DARKROOM_NODES is not the number of pods"


def _restricted(pod: Mapping[str, Any]) -> Iterator[str]:
    context = pod.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or context.get("runAsUser", 10000) < 10000:
        yield "has to run as a user of a high number"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    if any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield "uses what belongs to the host"
    if pod.get("automountServiceAccountToken") is not False:
        yield "gets a token for the API"
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield "may become privileged"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield "keeps capabilities"
        if own.get("readOnlyRootFilesystem") is not True:
            yield "may write to its root"


def _resources(pod: Mapping[str, Any]) -> Iterator[str]:
    claims = [claim["name"] for claim in pod.get("resourceClaims", ())]
    for container in pod["containers"]:
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        if requests.get("memory") != limits.get("memory") or "memory" not in limits:
            yield "memory has to be the same in request and limit"
        for name in {*requests, *limits}:
            if "/" in name and (requests.get(name) != limits.get(name) or not str(limits.get(name)).isdecimal()):
                yield f"{name} has to be a whole number, the same in request and limit"
            if name in requests and name in limits and quantity(requests[name]) > quantity(limits[name]):
                yield f"requests more {name} than its limit"
        if any(claim["name"] not in claims for claim in container["resources"].get("claims", ())):
            yield "uses a claim that the pod has not"


def _volumes(pod: Mapping[str, Any]) -> Iterator[str]:
    names = [volume["name"] for volume in pod["volumes"]]
    if len(names) != len(set(names)):
        yield "a volume is given twice"
    memory = quantity(_container(pod)["resources"]["limits"]["memory"])
    for volume in pod["volumes"]:
        if not {*volume} - {"name"} <= _VOLUMES:
            yield f"volume {volume['name']} has a type that restricted pods may not have"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {volume['name']} may fill the node"
        if volume.get("emptyDir", {}).get("medium") == "Memory" and quantity(volume["emptyDir"]["sizeLimit"]) >= memory:
            yield f"volume {volume['name']} may take all memory"
    mounts = _container(pod)["volumeMounts"]
    if {mount["name"] for mount in mounts} != set(names) or len({mount["mountPath"] for mount in mounts}) != len(
        mounts
    ):
        yield "volumes and mounts do not fit each other"


def _placement(pod: Mapping[str, Any]) -> Iterator[str]:
    on_nodes = pod.get("affinity", {}).get("nodeAffinity", {})
    required = on_nodes.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms")
    if required == []:
        yield "no node term matches nothing"
    for term in required or ():
        for each in term.get("matchExpressions", ()):
            values = each.get("values", [])
            if each["operator"] in ("Gt", "Lt") and (len(values) != 1 or not str(values[0]).lstrip("-").isdecimal()):
                yield f"{each['key']} {each['operator']} needs one whole number"
            if each["operator"] in ("In", "NotIn") and not values:
                yield f"{each['key']} {each['operator']} needs values"
            if each["operator"] in ("Exists", "DoesNotExist") and values:
                yield f"{each['key']} {each['operator']} takes no values"
    for toleration in pod.get("tolerations", ()):
        if toleration.get("operator") == "Exists" and toleration.get("value"):
            yield "a toleration with Exists takes no value"


def _promises(job: Mapping[str, Any]) -> Iterator[str]:
    spec = job["spec"]
    if "ttlSecondsAfterFinished" not in spec:
        yield "stays for ever"
    if "kueue.x-k8s.io/queue-name" in job["metadata"]["labels"] and "suspend" in spec:
        yield "Kueue itself suspends the Jobs of its queues"
    if "helm.sh/chart" in spec["template"]["metadata"].get("labels", {}):
        yield "the pods' labels change with the chart"
    for item in _container(spec["template"]["spec"])["env"]:
        if re.search(r"KEY$|TOKEN$|PASSWORD$|SECRET$", item["name"]) or "valueFrom" in item:
            yield f"{item['name']} has a secret in the environment"


def _container(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = pod["containers"][0]
    return found
