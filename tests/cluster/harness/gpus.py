"""Nodes with made-up GPUs: what gpu-feature-discovery and the AMD labeller would say of real ones.

The made-up nodes are kept Ready by kwok. Pods that land there are called Running, and pods of Jobs Succeeded after some
seconds, without anything running. Each of these nodes has a taint, so that nothing lands there by chance: the one that GPU
operators set for their resource, and on the node without a GPU kwok's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.cluster.harness import pki
from tests.cluster.harness.binaries import binary, kept_files
from tests.cluster.harness.layout import FAKE_POD_RANGE, HOST_ADDRESS, STATE
from tests.cluster.harness.processes import Process, start

_STAGES: Final = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/general/*.yaml",
    "pod/chaos/*.yaml",
)
_FAKE: Final = "kwok.x-k8s.io/node"


def nvidia_labels(product: str, memory_mib: int, count: int, family: str, compute: str) -> dict[str, str]:
    """Labels of a node with whole NVIDIA GPUs; `memory_mib` is per GPU, `compute` as `8.0`."""
    major, minor = compute.split(".")
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.memory": str(memory_mib),
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/gpu.family": family,
        "nvidia.com/gpu.compute.major": major,
        "nvidia.com/gpu.compute.minor": minor,
        "nvidia.com/mig.capable": str(family in ("ampere", "hopper")).lower(),
        "nvidia.com/mig.strategy": "mixed",
    }


@dataclass(frozen=True)
class FakeNode:
    """A node that exists in the API only."""

    name: str
    cpu: str
    memory: str
    taint: str
    resources: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def manifest(self) -> dict[str, Any]:
        """The Node as kwok expects it: with its annotation and with the capacity that it is to keep."""
        capacity = {"cpu": self.cpu, "memory": self.memory, "pods": "110", "ephemeral-storage": "500Gi"}
        capacity |= self.resources
        labels = {
            "type": "kwok",
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            **self.labels,
        }
        metadata = {"name": self.name, "labels": labels, "annotations": {_FAKE: "fake"}}
        taint = {"key": self.taint, "value": "fake" if self.taint == _FAKE else "present", "effect": "NoSchedule"}
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": metadata,
            "spec": {"taints": [taint]},
            "status": {"capacity": capacity, "allocatable": capacity},
        }


FAKE_NODES: Final = (
    FakeNode(
        "gpu-a100",
        "96",
        "1000Gi",
        "nvidia.com/gpu",
        {"nvidia.com/gpu": "8"},
        nvidia_labels("NVIDIA-A100-SXM4-80GB", 81920, 8, "ampere", "8.0"),
    ),
    FakeNode(
        "gpu-t4",
        "32",
        "120Gi",
        "nvidia.com/gpu",
        {"nvidia.com/gpu": "4"},
        nvidia_labels("Tesla-T4", 15360, 4, "turing", "7.5"),
    ),
    FakeNode(
        "gpu-mig",
        "48",
        "500Gi",
        "nvidia.com/gpu",
        {"nvidia.com/mig-1g.10gb": "7"},
        {
            **nvidia_labels("NVIDIA-A100-SXM4-80GB", 81920, 1, "ampere", "8.0"),
            "nvidia.com/mig-1g.10gb.product": "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb",
            "nvidia.com/mig-1g.10gb.memory": "9728",
            "nvidia.com/mig-1g.10gb.count": "7",
        },
    ),
    FakeNode(
        "gpu-amd",
        "96",
        "1000Gi",
        "amd.com/gpu",
        {"amd.com/gpu": "8"},
        {
            "amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM",
            "amd.com/gpu.family": "AI",
            "amd.com/gpu.vram": "192G",
        },
    ),
    FakeNode("cpu-only", "64", "256Gi", _FAKE),
)

REAL_NODE_GPUS: Final = 2
REAL_NODE_LABELS: Final = nvidia_labels("NVIDIA-L4", 23034, REAL_NODE_GPUS, "ada-lovelace", "8.9")
"""The real node claims to have GPUs, too, so that Jobs that ask for one really run. Pods find no device there."""


def real_node_patch(count: int = REAL_NODE_GPUS) -> list[dict[str, str]]:
    """A JSON patch of the real node's status that gives it GPUs. It stays until the kubelet is started anew."""
    name = "nvidia.com~1gpu"  # a slash inside a JSON pointer
    return [
        {"op": "add", "path": f"/status/{part}/{name}", "value": str(count)} for part in ("capacity", "allocatable")
    ]


def start_kwok() -> Process:
    """Start kwok for the nodes of this module; it lets the real node alone."""
    stages = kept_files("kwok") / "kustomize" / "stage"
    files = [path for pattern in _STAGES for path in sorted(stages.glob(pattern)) if path.name != "kustomization.yaml"]
    config = STATE / "kwok.yaml"
    config.write_text("\n---\n".join(path.read_text() for path in files))
    return start(
        "kwok",
        [
            binary("kwok"),
            f"--kubeconfig={pki.kubeconfig('kwok')}",
            f"--config={config}",
            "--manage-all-nodes=false",
            f"--manage-nodes-with-annotation-selector={_FAKE}=fake",
            f"--node-ip={HOST_ADDRESS}",
            f"--cidr={FAKE_POD_RANGE}",
            "--node-lease-duration-seconds=40",
            "--server-address=127.0.0.1:10247",
        ],
    )
