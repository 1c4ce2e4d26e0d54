"""Brings the cluster up, step by step, and refuses where one is up already or another Kubernetes is in the way."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Final

from tests.cluster.harness import control_plane, custom_resources, gpus, images, network, node, pki, services, store
from tests.cluster.harness.binaries import build_all
from tests.cluster.harness.client import Cluster, CommandError
from tests.cluster.harness.layout import HOST_LINK, LOGS, NODE, POD_LINK, READY, STATE
from tests.cluster.harness.processes import Process, recorded, wait_until
from tests.cluster.harness.requirements import Unusable, require_machine
from tests.cluster.harness.teardown import FIXED_PATHS, Before, pod_cgroups, tear_down

_SECONDS: Final = 180
"""For each wait. On an idle machine everything together takes some seconds."""


def up() -> Cluster:
    """Start the cluster and wait until nodes and store are Ready. What was started is removed again if that fails."""
    require_machine()
    _refuse_second()
    build_all()
    _take_machine()
    try:
        cluster = _start()
    except BaseException:
        kept = keep_logs()
        ended = [process.name for process in recorded() if not process.alive]
        tear_down()
        print(
            f"The cluster did not come up. Programs that ended: {', '.join(ended) or 'none'}. Logs: {kept}", flush=True
        )
        raise
    READY.touch()
    return cluster


def is_up() -> bool:
    """Whether a cluster is up with all of its programs."""
    return READY.exists() and all(process.alive for process in recorded())


def keep_logs() -> Path:
    """Copy the logs of all programs and pods to `out/cluster-logs` of the working directory, for a person to read."""
    target = Path("out/cluster-logs").resolve()
    shutil.rmtree(target, ignore_errors=True)
    for source in (LOGS, STATE / "pod-logs"):
        if source.exists():
            shutil.copytree(source, target / source.name, symlinks=True)
    if is_up():
        listing = Cluster().kubectl("get", "nodes,events,all", "--all-namespaces", "--output=wide")
        (target / "objects.txt").write_text(listing)
    return target


def _refuse_second() -> None:
    if STATE.exists():
        state = "is up" if is_up() else "is half up: it is being started, or was left so"
        raise Unusable(f"A cluster {state} ({STATE}). `make cluster-down` removes it.")
    in_the_way = [
        *(f"network link {name}" for name in (HOST_LINK, POD_LINK) if network.has_link(name)),
        *(f"packet filter chain {chain}" for chain in network.kubernetes_chains()[:3]),
        *(f"control group {path}" for path in pod_cgroups()[:1]),
    ]
    if in_the_way:
        raise Unusable(
            f"Another Kubernetes seems to run on this machine, or to have left things: {', '.join(in_the_way)}. "
            "Two do not go together; stop it first."
        )


def _take_machine() -> None:
    """Make the state folder, which is the lock, and note what the machine looked like before."""
    try:
        STATE.mkdir(mode=0o711)
    except FileExistsError:
        raise Unusable(f"Another process is starting a cluster on this machine right now ({STATE} exists).") from None
    absent = [str(path) for path in FIXED_PATHS if not path.exists()]
    Before(network.kernel_settings(), absent).write()


def _start() -> Cluster:
    pki.write_all()
    network.add_host_link()
    containerd = node.start_containerd()
    etcd = control_plane.start_etcd()
    api_server = control_plane.start_api_server()
    images.import_own_images()
    cluster = Cluster()
    wait_until("the API server is ready", lambda: _answers(cluster), _SECONDS, api_server)
    controllers = control_plane.start_controllers()
    scheduler = control_plane.start_scheduler()
    cluster.apply(*services.dns_permissions())
    custom_resources.define(cluster)
    proxy, dns, kwok = services.start_proxy(), services.start_dns(), gpus.start_kwok()
    kubelet = node.start_kubelet()
    cluster.kubectl(
        "create",
        "--filename=-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [node.manifest() for node in gpus.FAKE_NODES]}),
    )
    _equip_real_node(cluster, kubelet)
    cluster.apply(*store.objects())
    for fake in gpus.FAKE_NODES:
        _wait_ready(cluster, fake.name, kwok)
    cluster.kubectl(
        "rollout", "status", "--namespace", store.NAMESPACE, f"deployment/{store.SERVICE}", timeout=_SECONDS
    )
    _require_alive(containerd, etcd, api_server, controllers, scheduler, proxy, dns, kwok, kubelet)
    return cluster


def _equip_real_node(cluster: Cluster, kubelet: Process) -> None:
    """Wait for the real node and give it GPUs and their labels."""
    _wait_ready(cluster, NODE, kubelet)
    cluster.kubectl("label", "--overwrite", "node", NODE, *(f"{k}={v}" for k, v in gpus.REAL_NODE_LABELS.items()))
    patch = json.dumps(gpus.real_node_patch())
    cluster.kubectl("patch", "node", NODE, "--subresource=status", "--type=json", f"--patch={patch}")


def _wait_ready(cluster: Cluster, name: str, process: Process) -> None:
    def ready() -> bool:
        nodes = cluster.get("nodes")["items"]
        conditions = [c for n in nodes if n["metadata"]["name"] == name for c in n["status"].get("conditions", [])]
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    wait_until(f"the node {name} is Ready", ready, _SECONDS, process)


def _answers(cluster: Cluster) -> bool:
    try:
        return cluster.kubectl("get", "--raw", "/readyz") == "ok"
    except CommandError:
        return False


def _require_alive(*processes: Process) -> None:
    for process in processes:
        wait_until(f"{process.name} runs", partial(getattr, process, "alive"), 0, process)
