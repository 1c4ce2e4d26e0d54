"""Jobs of run files land on the nodes that they may use and on no other; where there is none, they wait and say why."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from jobs.errors import FileInvalid

from tests.cluster.harness.client import Cluster
from tests.cluster.jobs_cases import why_waiting
from tests.cluster.jobs_runs import Place, Training, imaginary_place, remove_jobs

KWOK = {"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}
MIG = "nvidia.com/mig-1g.10gb"


@dataclass(frozen=True)
class Wanted:
    """What a run file asks for, and the nodes on which its pod may land: so many pods as fit are made of it."""

    gpu: Mapping[str, Any]
    nodes: frozenset[str]
    execution: Mapping[str, Any]


def wanted(gpu: Mapping[str, Any], *nodes: str, **execution: Any) -> Wanted:
    """GPUs, and the nodes that are allowed."""
    return Wanted({"enabled": True, **gpu}, frozenset(nodes), execution)


# Where several nodes are allowed, the count keeps the pod off the real node, which would really train.
PLACES = {
    "large-memory": wanted({"minMemoryMiB": 40960}, "gpu-a100"),
    "memory-more-than-a-t4": wanted({"count": 4, "minMemoryMiB": 15361}, "gpu-a100"),
    "memory-of-a-t4": wanted({"count": 4, "minMemoryMiB": 15360}, "gpu-a100", "gpu-t4"),
    "product": wanted({"products": ["Tesla-T4"]}, "gpu-t4"),
    "one-of-two-products": wanted({"products": ["Tesla-V100", "Tesla-T4"]}, "gpu-t4"),
    "node-selector": wanted({}, "gpu-t4", nodeSelector={"nvidia.com/gpu.family": "turing"}),
    "mig-slice": wanted({"resourceName": MIG, "minMemoryMiB": 10240}, "gpu-mig"),
    "amd": wanted({"resourceName": "amd.com/gpu", "products": ["AMD_Instinct_MI300X_OAM"]}, "gpu-amd"),
    # More CPUs than the real node has: the GPU nodes have them, and keep off what asks for no GPU.
    "no-gpu": wanted(
        {"enabled": False}, "cpu-only", resources={"cpu": "32", "memory": "2Gi"}, tolerations=[KWOK], nodeSelector={}
    ),
}
NOWHERE = {
    "one-gpu-too-many": (wanted({"count": 9}), "Insufficient nvidia.com/gpu"),
    "more-memory-than-any-has": (wanted({"minMemoryMiB": 81921}), "didn't match Pod's node affinity/selector"),
    "no-such-product": (wanted({"products": ["Tesla-V100"]}), "didn't match Pod's node affinity/selector"),
    "amd-on-an-nvidia-node": (
        wanted({"resourceName": "amd.com/gpu"}, nodeSelector={"nvidia.com/gpu.product": "Tesla-T4"}),
        "didn't match Pod's node affinity/selector",
    ),
    "slice-of-another-size": (
        wanted({"resourceName": "nvidia.com/mig-3g.40gb"}),
        "Insufficient nvidia.com/mig-3g.40gb",
    ),
    "no-gpu-on-a-gpu-node": (
        wanted({"enabled": False}, nodeSelector={"kubernetes.io/hostname": "gpu-a100"}),
        "untolerated taint",
    ),
}


@pytest.fixture
def place(cluster: Cluster, namespace: str) -> Iterator[Place]:
    """For Jobs whose pods do not really run."""
    yield imaginary_place(cluster, namespace)
    remove_jobs(cluster, namespace)


def training_of(place: Place, name: str, given: Wanted) -> Training:
    """A run whose pod, once placed, is not called finished before the test has looked at it."""
    annotations = {"pod-complete.stage.kwok.x-k8s.io/delay": "10m"}
    return place.training(name, gpu=given.gpu, **{"nodeSelector": {}, "annotations": annotations, **given.execution})


def node_of(training: Training) -> str:
    """The node of its pod, waited for."""
    query = ("pods", "--namespace", training.place.namespace, f"--selector={training.selector}")
    found = training.place.cluster.wait(
        f"{training.name} is placed",
        lambda pods: bool(pods["items"] and pods["items"][0]["spec"].get("nodeName")),
        *query,
    )
    return str(found["items"][0]["spec"]["nodeName"])


def refusal_of(training: Training) -> str:
    """Why its pod has no node, waited for."""
    query = ("pods", "--namespace", training.place.namespace, f"--selector={training.selector}")
    found = training.place.cluster.wait(
        f"{training.name} is refused", lambda pods: bool(pods["items"] and why_waiting(pods["items"][0])), *query
    )
    assert found["items"][0]["status"]["phase"] == "Pending"
    return why_waiting(found["items"][0])


def test_land_on_allowed_nodes_only(place: Place) -> None:
    trainings = {name: training_of(place, name, given) for name, given in PLACES.items()}
    place.cluster.apply(*(training.objects[0] for training in trainings.values()))
    found = {name: node_of(training) for name, training in trainings.items()}
    print(found)
    assert {name: node for name, node in found.items() if node not in PLACES[name].nodes} == {}


def test_wait_where_no_node_is_allowed_and_say_why(place: Place) -> None:
    trainings = {name: training_of(place, name, given) for name, (given, _) in NOWHERE.items()}
    place.cluster.apply(*(training.objects[0] for training in trainings.values()))
    for name, (_, reason) in NOWHERE.items():
        said = refusal_of(trainings[name])
        print(f"{name}: {said}")
        assert reason in said
        assert trainings[name].look()["status"]["active"] == 1, "the Job goes on waiting"


def test_waiting_job_starts_when_a_gpu_is_free(place: Place) -> None:
    given = wanted({"count": 4, "products": ["Tesla-T4"]}, "gpu-t4")
    first, second = (training_of(place, name, given) for name in ("first", "second"))
    place.cluster.apply(first.objects[0])
    assert node_of(first) == "gpu-t4"
    place.cluster.apply(second.objects[0])
    assert "Insufficient nvidia.com/gpu" in refusal_of(second)
    first.kubectl("delete", "job", first.job)
    assert node_of(second) == "gpu-t4"


@pytest.mark.parametrize("strategy", ["time-slicing", "mps"])
def test_shared_gpus_only_when_allowed(place: Place, strategy: str) -> None:
    gpu = {"products": ["Tesla-T4"]}
    with sharing(place.cluster, "gpu-t4", strategy):
        alone, shared = (
            training_of(place, "alone", wanted(gpu)),
            training_of(place, "shared", wanted(gpu | {"allowShared": True})),
        )
        place.cluster.apply(alone.objects[0], shared.objects[0])
        assert node_of(shared) == "gpu-t4"
        assert "didn't match Pod's node affinity/selector" in refusal_of(alone)


@contextmanager
def sharing(cluster: Cluster, node: str, strategy: str) -> Iterator[None]:
    """Let the GPUs of a node be shared, by what its label says."""
    label = "nvidia.com/gpu.sharing-strategy"
    cluster.kubectl("label", "node", node, f"{label}={strategy}", "--overwrite")
    try:
        yield
    finally:
        cluster.kubectl("label", "node", node, f"{label}=none", "--overwrite")


@pytest.mark.parametrize(
    ("gpu", "problem"),
    [
        ({"resourceName": MIG, "minMemoryMiB": 12000}, "use a larger slice"),
        ({"resourceName": MIG, "count": 2}, "one process uses one MIG slice"),
        ({"resourceName": "nvidia.com/gpu.shared"}, "a shared GPU"),
        ({"resourceName": "amd.com/gpu", "minMemoryMiB": 1}, "no label of amd.com nodes"),
    ],
)
def test_run_file_that_could_land_wrongly_is_refused(place: Place, gpu: Mapping[str, Any], problem: str) -> None:
    with pytest.raises(FileInvalid, match=problem):
        training_of(place, "refused", wanted(gpu))
