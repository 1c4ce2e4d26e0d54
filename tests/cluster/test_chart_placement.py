"""Where the scheduler puts services with GPUs. Nodes with GPUs are made up, so pods only count as running there.

Training Jobs have the same block, and tests of their own.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.chart_release import CHART, Release, room
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.layout import NODE
from tests.cluster.test_smoke import scheduling_message

OFF = {"enabled": False}
MEMORY = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}}
KWOK = [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}]
NVIDIA = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
FIELDS = ("gpu.shared", "nvidia.com", "amd.com", "resourceClaims", "runtimeClassName", "nodeAffinity")


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[Release]:
    """A room for one release after the other."""
    with room(cluster, "chart-place") as made:
        yield made


@pytest.fixture
def values() -> dict[str, Any]:
    """A release of one captioner alone, whose image no node has to have."""
    models = {"volume": {"emptyDir": {}}}
    return {
        "store": {"endpoint": "http://minio.darkroom-store:9000", "existingSecret": "darkroom-store", "setup": OFF},
        "images": {"registry": "localhost/nowhere", "pullPolicy": "Never"},
        "tinyModels": OFF,
        "trainer": OFF,
        "converter": OFF,
        "webuiGateway": OFF,
        "webuiEngine": {"enabled": False, "resources": MEMORY},
        "captioner": {"models": models, "resources": MEMORY},
        "test": OFF,
        "shutdown": {"preStopSeconds": 0},
    }


def installed(place: Release, values: Mapping[str, Any], path: Path) -> None:
    """Install, or change what is installed."""
    (path / "values.json").write_text(json.dumps(values))
    place.helm("upgrade", "--install", str(CHART), f"--values={path / 'values.json'}", "--wait=false")


def has_place(pod: dict[str, Any]) -> bool:
    """Whether the scheduler has decided about a pod."""
    return bool(pod["spec"].get("nodeName") or scheduling_message(pod))


def placed(place: Release, component: str, count: int = 1) -> list[dict[str, Any]]:
    """The pods of a component when the scheduler has decided about all of them."""
    selector = f"--selector={place.selector},app.kubernetes.io/component={component}"
    answer = place.cluster.wait(
        f"{count} pods of {component} have a place",
        lambda found: len(found["items"]) == count and all(map(has_place, found["items"])),
        "pods",
        selector,
        "--namespace",
        place.namespace,
    )
    pods: list[dict[str, Any]] = answer["items"]
    return pods


@pytest.fixture(autouse=True)
def removed(place: Release) -> Iterator[None]:
    """Nothing is left of a release when the next one comes."""
    yield
    place.helm("uninstall", "--ignore-not-found", "--wait")
    place.kubectl("delete", "pods", "--all", "--grace-period=0", "--force")


PLACES = [
    ("gpu-a100", {"minMemoryMiB": 40000}),
    ("gpu-a100", {"products": ["NVIDIA-A100-SXM4-80GB"], "count": 5}),
    ("gpu-t4", {"products": ["Tesla-T4"]}),
    ("gpu-mig", {"resourceName": "nvidia.com/mig-1g.10gb"}),
    ("gpu-amd", {"resourceName": "amd.com/gpu", "products": ["AMD_Instinct_MI300X_OAM"]}),
    (NODE, {"products": ["NVIDIA-L4"], "minMemoryMiB": 23000}),
]


@pytest.mark.parametrize("service", ["captioner", "webuiEngine"])
@pytest.mark.parametrize(("node", "gpu"), PLACES, ids=lambda value: value if isinstance(value, str) else "")
def test_gpu_chooses_the_node(
    place: Release, values: dict[str, Any], tmp_path: Path, service: str, node: str, gpu: dict[str, Any]
) -> None:
    values["captioner"]["enabled"] = False
    values[service] |= {"enabled": True, "gpu": {"enabled": True, **gpu}}
    installed(place, values, tmp_path)
    (pod,) = placed(place, {"captioner": "captioner", "webuiEngine": "webui-engine"}[service])
    assert pod["spec"].get("nodeName") == node, scheduling_message(pod)


def test_without_a_gpu_anywhere_but_on_tainted_nodes(place: Release, values: dict[str, Any], tmp_path: Path) -> None:
    installed(place, values, tmp_path)
    (pod,) = placed(place, "captioner")
    assert pod["spec"]["nodeName"] == NODE
    assert [field for field in FIELDS if field in json.dumps(pod["spec"])] == []


@pytest.mark.parametrize(
    ("node", "rules"),
    [
        ("cpu-only", {"tolerations": KWOK, "nodeSelector": {"kubernetes.io/hostname": "cpu-only"}}),
        ("gpu-a100", {"tolerations": NVIDIA, "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}}),
    ],
)
@pytest.mark.parametrize("where", ["placement", "captioner"])
def test_placement_of_a_release_and_of_one_service(
    place: Release, values: dict[str, Any], tmp_path: Path, node: str, rules: dict[str, Any], where: str
) -> None:
    values[where] = values.get(where, {}) | rules
    installed(place, values, tmp_path)
    (pod,) = placed(place, "captioner")
    assert pod["spec"].get("nodeName", "").startswith(node.replace("gpu-a100", "gpu-")), scheduling_message(pod)


def test_one_gpu_too_many_stays_pending(place: Release, values: dict[str, Any], tmp_path: Path) -> None:
    values["captioner"]["replicas"] = 8
    values["captioner"]["gpu"] = {"enabled": True, "resourceName": "nvidia.com/mig-1g.10gb"}
    installed(place, values, tmp_path)
    pods = placed(place, "captioner", count=8)
    assert [pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName")] == ["gpu-mig"] * 7
    (waiting,) = (pod for pod in pods if not pod["spec"].get("nodeName"))
    assert waiting["status"]["phase"] == "Pending"
    assert "Insufficient nvidia.com/mig-1g.10gb" in scheduling_message(waiting)


def test_no_node_has_such_a_gpu(place: Release, values: dict[str, Any], tmp_path: Path) -> None:
    values["captioner"]["gpu"] = {"enabled": True, "minMemoryMiB": 200000}
    installed(place, values, tmp_path)
    (pod,) = placed(place, "captioner")
    assert "node(s) didn't match Pod's node affinity/selector" in scheduling_message(pod)


def test_a_rollout_does_not_wait_for_the_card_of_the_old_pod(
    place: Release, values: dict[str, Any], tmp_path: Path
) -> None:
    gpu = {"enabled": True, "products": ["NVIDIA-L4"], "count": 2}
    values["captioner"]["gpu"] = gpu
    installed(place, values, tmp_path)
    (before,) = placed(place, "captioner")
    assert before["spec"]["nodeName"] == NODE
    values["captioner"]["podAnnotations"] = {"example.org/turn": "2"}
    installed(place, values, tmp_path)
    place.cluster.wait(
        "the new pod has its place",
        lambda found: (
            [pod["metadata"].get("annotations") for pod in found["items"] if pod["spec"].get("nodeName")]
            == [{"example.org/turn": "2"}]
        ),
        "pods",
        "--namespace",
        place.namespace,
    )
