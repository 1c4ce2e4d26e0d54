"""On which nodes a pod may land: GPUs, tolerations and affinity in the words of Kubernetes. GPUs off add nothing at all."""

from collections.abc import Mapping
from typing import Any

from jobs import names
from jobs.execution import Execution, Gpu

_NVIDIA = "nvidia.com"
_MIG = "nvidia.com/mig-"
_CLAIM = "gpu"


def placement(execution: Execution) -> dict[str, Any]:
    """The fields of a pod's spec that choose its node; those without content are left out.

    A spread constraint without a labelSelector would count no pod and do nothing, so it counts the pods of all runs.
    """
    gpu = execution.gpu
    claims = [{"name": _CLAIM, "resourceClaimTemplateName": gpu.resource_claim_template_name}]
    fields = {
        "runtimeClassName": gpu.runtime_class_name if gpu.enabled else "",
        "resourceClaims": claims if gpu.enabled and gpu.resource_claim_template_name else [],
        "nodeSelector": dict(execution.node_selector),
        "tolerations": _tolerations(execution),
        "affinity": _affinity(execution.affinity, _requirements(gpu)),
        "priorityClassName": execution.priority_class_name,
        "topologySpreadConstraints": [
            {"labelSelector": {"matchLabels": dict(names.EVERY_RUN)}, **each}
            for each in execution.topology_spread_constraints
        ],
    }
    return {name: value for name, value in fields.items() if value}


def resources(execution: Execution) -> dict[str, Any]:
    """Requests and limits of the container; a GPU counts in both."""
    wanted, gpu = execution.resources, execution.gpu
    found: dict[str, Any] = {
        "requests": {"cpu": wanted.cpu, "memory": wanted.memory},
        "limits": {"memory": wanted.memory},
    }
    if gpu.enabled and gpu.resource_claim_template_name:
        found["claims"] = [{"name": _CLAIM}]
    elif gpu.enabled:
        for side in ("requests", "limits"):
            found[side][gpu.resource_name] = str(gpu.count)
    return found


def vendor(gpu: Gpu) -> str:
    """Domain of a GPU's resource and labels, such as "nvidia.com"."""
    return gpu.resource_name.partition("/")[0]


def is_mig(gpu: Gpu) -> bool:
    """Whether it is a slice with memory and cores of its own, as the device plugin names it in its mixed strategy."""
    return gpu.resource_name.startswith(_MIG)


def _tolerations(execution: Execution) -> list[dict[str, Any]]:
    found = [dict(each) for each in execution.tolerations]
    if not execution.gpu.enabled:
        return found
    own = {"key": f"{vendor(execution.gpu)}/gpu", "operator": "Exists", "effect": "NoSchedule"}
    return found if own in found else [own, *found]


def _requirements(gpu: Gpu) -> list[dict[str, Any]]:
    """What the labels of a node must say of its GPUs; a claim says all of it by itself."""
    if not gpu.enabled or gpu.resource_claim_template_name:
        return []
    found: list[dict[str, Any]] = []
    if gpu.min_memory_mib and not is_mig(gpu):  # the name of a slice says how much it has
        label = f"{_NVIDIA}/gpu.memory"
        found.append({"key": label, "operator": "Gt", "values": [str(gpu.min_memory_mib - 1)]})
    if gpu.products:
        label = f"{_NVIDIA}/gpu.product" if vendor(gpu) == _NVIDIA else f"{vendor(gpu)}/gpu.product-name"
        found.append({"key": label, "operator": "In", "values": list(gpu.products)})
    if vendor(gpu) == _NVIDIA and not gpu.allow_shared:  # nodes without the label match too
        label = f"{_NVIDIA}/gpu.sharing-strategy"
        found.append({"key": label, "operator": "NotIn", "values": ["mps", "time-slicing"]})
    return found


def _affinity(given: Mapping[str, Any], requirements: list[dict[str, Any]]) -> dict[str, Any]:
    """The given affinity, with the requirements in each of its node terms: the terms are alternatives."""
    if not requirements:
        return dict(given)
    on_nodes = given.get("nodeAffinity") or {}
    required = on_nodes.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = [
        {**term, "matchExpressions": [*term.get("matchExpressions", []), *requirements]}
        for term in required.get("nodeSelectorTerms") or [{}]
    ]
    merged = {**on_nodes, "requiredDuringSchedulingIgnoredDuringExecution": {**required, "nodeSelectorTerms": terms}}
    return {**given, "nodeAffinity": merged}
