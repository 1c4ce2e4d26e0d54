"""What every other test of the cluster leans on: pods, names, addresses, Jobs, placement, logs, exec, port-forward, Helm."""

import socket
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness.binaries import binary
from tests.cluster.harness.client import Cluster, CommandError
from tests.cluster.harness.images import import_image, node_images, write_image
from tests.cluster.harness.layout import NODE
from tests.cluster.harness.manifests import job, pod, probe, restricted_pod, service, tolerate
from tests.cluster.harness.processes import wait_until

PHASES_AT_END = ("Succeeded", "Failed")


def in_phase(*phases: str) -> Callable[[dict[str, Any]], bool]:
    """Whether a pod's phase is one of these."""
    return lambda answer: answer["status"].get("phase") in phases


def run_to_end(cluster: Cluster, namespace: str, name: str, spec: dict[str, Any]) -> tuple[str, str]:
    """Run a pod; returns its last phase and what it printed."""
    cluster.apply(pod(name, spec), namespace=namespace)
    ended = cluster.wait(f"{name} ends", in_phase(*PHASES_AT_END), "pod", name, "--namespace", namespace)
    return ended["status"]["phase"], cluster.kubectl("logs", name, "--namespace", namespace)


def scheduling_message(answer: dict[str, Any]) -> str:
    """Why the scheduler cannot place a pod; empty when it can."""
    conditions = answer["status"].get("conditions", [])
    return "".join(c.get("message", "") for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False")


def answers(host: str, port: int) -> bool:
    """Whether a TCP connection can be made."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture
def web(cluster: Cluster, namespace: str) -> str:
    """A pod that serves HTTP, behind the Service `web`; returns the namespace."""
    labels = {"app": "web"}
    server = probe("serve", ":8080", "hello from a pod", readinessProbe={"httpGet": {"port": 8080}, "periodSeconds": 1})
    cluster.apply(pod("web", restricted_pod(server), labels), service("web", labels, 8080), namespace=namespace)
    cluster.kubectl("wait", "--namespace", namespace, "--for=condition=Ready", "pod/web", "--timeout=60s")
    # Until kube-proxy has heard of the pod, which may take a second, connections to the Service are refused.
    address = cluster.cluster_ip("web", namespace)
    wait_until("the Service answers", lambda: answers(address, 8080), 30)
    return namespace


def test_restricted_pod_runs_on_the_real_node(cluster: Cluster, namespace: str) -> None:
    assert run_to_end(cluster, namespace, "hello", restricted_pod(probe("print", "it runs"))) == (
        "Succeeded",
        "it runs\n",
    )
    placed = cluster.get("pod", "hello", "--namespace", namespace)
    assert placed["spec"]["nodeName"] == NODE
    assert placed["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0


def test_read_only_root_is_real(cluster: Cluster, namespace: str) -> None:
    spec = restricted_pod(probe("write", "/file", "text"))
    phase, printed = run_to_end(cluster, namespace, "writer", spec)
    assert phase == "Failed"
    assert "read-only file system" in printed


def test_pod_that_is_not_restricted_is_refused(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(CommandError, match='violates PodSecurity "restricted'):
        cluster.apply(pod("root", {"containers": [probe("sleep")]}), namespace=namespace)


def test_misspelled_field_is_refused(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(CommandError, match="nodeSelctor"):
        cluster.apply(pod("typo", restricted_pod(probe("sleep"), nodeSelctor={})), namespace=namespace)


def test_service_by_name_and_by_address(cluster: Cluster, web: str) -> None:
    hosts = ("web", f"web.{web}", f"web.{web}.svc.cluster.local", cluster.cluster_ip("web", web))
    clients = [probe("get", f"http://{host}:8080/", name=f"client-{i}") for i, host in enumerate(hosts)]
    spec = restricted_pod(clients[0])
    spec["containers"] = [spec["containers"][0] | client for client in clients]
    cluster.apply(pod("clients", spec), namespace=web)
    ended = cluster.wait("the clients end", in_phase(*PHASES_AT_END), "pod", "clients", "--namespace", web)
    assert ended["status"]["phase"] == "Succeeded"
    for client in clients:
        assert cluster.kubectl("logs", "clients", "-c", client["name"], "--namespace", web) == "hello from a pod"


def test_dns_gives_the_service_address_and_denies_others(cluster: Cluster, web: str) -> None:
    phase, printed = run_to_end(cluster, web, "finder", restricted_pod(probe("lookup", "web")))
    assert (phase, printed.strip()) == ("Succeeded", cluster.cluster_ip("web", web))
    phase, printed = run_to_end(cluster, web, "loser", restricted_pod(probe("lookup", "no-such-name.example")))
    assert phase == "Failed"
    assert "no such host" in printed


def test_port_forward_logs_and_exec(cluster: Cluster, web: str) -> None:
    with (
        cluster.port_forward("svc/web", 8080, web) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer,
    ):
        assert answer.read() == b"hello from a pod"
    assert cluster.kubectl("logs", "web", "--namespace", web) == "serving on :8080\n"
    printed = cluster.kubectl("exec", "web", "--namespace", web, "--", "/probe", "get", "http://127.0.0.1:8080")
    assert printed == "hello from a pod"
    with pytest.raises(CommandError, match="exit code 7"):
        cluster.kubectl("exec", "web", "--namespace", web, "--", "/probe", "print", "no", "7")


def test_deleted_pod_gets_sigterm(cluster: Cluster, web: str) -> None:
    logs = cluster.kubectl("logs", "web", "--namespace", web)
    assert "SIGTERM" not in logs
    cluster.kubectl("delete", "pod", "web", "--namespace", web, "--wait=false")
    printed = cluster.kubectl("logs", "web", "--namespace", web, "--follow")
    assert printed.endswith("stopped by SIGTERM\n")


def test_job_with_one_gpu_completes_on_the_real_node(cluster: Cluster, namespace: str) -> None:
    spec = restricted_pod(probe("print", "trained", gpus=1))
    cluster.apply(job("train", spec), namespace=namespace)
    cluster.kubectl("wait", "--namespace", namespace, "--for=condition=Complete", "job/train", "--timeout=60s")
    (placed,) = cluster.get("pods", "--namespace", namespace)["items"]
    assert placed["spec"]["nodeName"] == NODE
    assert cluster.kubectl("logs", "job/train", "--namespace", namespace) == "trained\n"


def test_one_gpu_too_many_stays_pending(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod("greedy", restricted_pod(probe("sleep", gpus=3))), namespace=namespace)
    refused = cluster.wait("it is refused", scheduling_message, "pod", "greedy", "--namespace", namespace)
    assert "Insufficient nvidia.com/gpu" in scheduling_message(refused)
    assert refused["status"]["phase"] == "Pending"


PLACES = (
    # Node, resource, how much of it (no other node has so much), and the taint of the node.
    ("gpu-a100", "nvidia.com/gpu", "8", "nvidia.com/gpu"),
    ("gpu-t4", "nvidia.com/gpu", "4", "nvidia.com/gpu"),
    ("gpu-mig", "nvidia.com/mig-1g.10gb", "1", "nvidia.com/gpu"),
    ("gpu-amd", "amd.com/gpu", "8", "amd.com/gpu"),
    ("cpu-only", "cpu", "50", "kwok.x-k8s.io/node"),
)


def test_pods_land_on_the_made_up_nodes(cluster: Cluster, namespace: str) -> None:
    for node, resource, count, taint in PLACES:
        # Four GPUs are on the A100 node, too: there the product decides.
        chosen = {"nodeSelector": {"nvidia.com/gpu.product": "Tesla-T4"}} if node == "gpu-t4" else {}
        spec = restricted_pod(probe("sleep", resources={"limits": {resource: count}}), **chosen)
        strict, tolerant = pod(f"{node}-strict", spec), pod(f"{node}-tolerant", spec | tolerate(taint))
        cluster.apply(strict, tolerant, namespace=namespace)
    for node, *_ in PLACES:
        running = cluster.wait("it runs", in_phase("Running"), "pod", f"{node}-tolerant", "--namespace", namespace)
        assert running["spec"]["nodeName"] == node
        refused = cluster.wait("refusal", scheduling_message, "pod", f"{node}-strict", "--namespace", namespace)
        assert "untolerated taint" in scheduling_message(refused)


def test_gpu_memory_by_node_affinity(cluster: Cluster, namespace: str) -> None:
    wanted = {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["40000"]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [wanted]}]}
    affinity = {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}
    spec = restricted_pod(probe("sleep", gpus=1), **affinity, **tolerate("nvidia.com/gpu"))
    cluster.apply(pod("big", spec), namespace=namespace)
    running = cluster.wait("it runs", in_phase("Running"), "pod", "big", "--namespace", namespace)
    assert running["spec"]["nodeName"] == "gpu-a100"


def test_image_from_an_archive(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    name = f"localhost/{namespace}:1"
    write_image(tmp_path / "image.tar", name, {"program": binary("probe")}, ["/program", "print", "from an archive"])
    import_image(tmp_path / "image.tar")
    assert name in node_images()
    spec = restricted_pod({"name": "own", "image": name})
    assert run_to_end(cluster, namespace, "own", spec) == ("Succeeded", "from an archive\n")


def test_image_from_buildah_also_when_it_is_built_anew(cluster: Cluster, namespace: str) -> None:
    name = f"localhost/{namespace[:40]}:1"
    for build in ("first", "second"):
        container = buildah("from", "scratch")
        try:
            buildah("copy", container, str(binary("probe")), "/program")
            buildah("config", "--entrypoint", '["/program"]', "--cmd", f"print {build}", "--user", "10001", container)
            buildah("commit", "--rm", "--quiet", container, name)
            import_image(name)
        finally:
            buildah("rmi", "--force", name)
        spec = restricted_pod({"name": build, "image": name})
        assert run_to_end(cluster, namespace, build, spec) == ("Succeeded", f"{build}\n")


def buildah(*arguments: str) -> str:
    """Run buildah and return what it printed."""
    done = subprocess.run(["buildah", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("major", [3, 4])
def test_helm_installs_a_chart(cluster: Cluster, namespace: str, tmp_path: Path, major: int) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: tiny\nversion: 1.2.3\nkubeVersion: '>=1.33.0-0'\n")
    (tmp_path / "templates/map.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}'}\ndata: {key: value}\n"
    )
    cluster.helm("install", "tiny", str(tmp_path), "--namespace", namespace, major=major)
    assert cluster.get("configmap", "tiny", "--namespace", namespace)["data"] == {"key": "value"}
    assert "tiny-1.2.3" in cluster.helm("list", "--namespace", namespace, major=major)
    cluster.helm("uninstall", "tiny", "--namespace", namespace, major=major)
    with pytest.raises(CommandError, match="NotFound"):
        cluster.get("configmap", "tiny", "--namespace", namespace)
