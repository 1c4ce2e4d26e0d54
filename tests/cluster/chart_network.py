"""Which connections NetworkPolicies let through: tried from inside the pods of a release, and of pods around it."""

import inspect
import json
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from images.build import version
from tests.cluster.chart_release import Release
from tests.cluster.harness import store
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.layout import API_PORT, API_SERVICE_ADDRESS, HOST_ADDRESS
from tests.cluster.harness.manifests import pod, restricted_pod
from tests.helm.test_network import STORE_PORT, documented

PORTS: Final = {
    "captioner": (50051, 9090),
    "trainer": (50051, 9090),
    "converter": (50051, 9090),
    "webui-gateway": (50051, 7860, 9090),
    "webui-engine": (7861, 9090),
}
"""Where the services listen."""
_JOB: Final = {"app.kubernetes.io/name": "dreambooth", "app.kubernetes.io/part-of": "darkroom"}
_MEETING_PORT: Final = 29500
_OTHER_PORT: Final = 8080
_KUBELET_PORT: Final = 10250
Edge = tuple[str, str, int]


def _takes(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, 3).close()
    except OSError:
        return False
    return True


# Run inside the pods: those of the addresses in the argument that take a connection.
_TRY: Final = f"""
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
{inspect.getsource(_takes)}
addresses = json.loads(sys.argv[1])
with ThreadPoolExecutor(32) as pool:
    print(json.dumps([a for a, taken in zip(addresses, pool.map(_takes, addresses)) if taken]))
"""


@dataclass(frozen=True)
class Scene:
    """pods: where connections begin, as (namespace, pod, container) by the name of the table in docs/operators.md.
    targets: what listens, as (name of the table, port) by address and port.
    """

    cluster: Cluster
    ours: frozenset[str]
    pods: Mapping[str, tuple[str, str, str]]
    targets: Mapping[tuple[str, int], tuple[str, int]]

    def edges(self) -> set[Edge]:
        """Every connection that comes about and has a pod of the release, or of its Jobs, at one end."""
        with ThreadPoolExecutor() as pool:  # what is held up takes its time
            return set().union(*pool.map(self._edges_from, self.pods))

    def _edges_from(self, source: str) -> set[Edge]:
        namespace, name, container = self.pods[source]
        # No policy holds up what a pod sends to itself; of the pods of training there are two.
        tried = [
            address
            for address, (target, _) in self.targets.items()
            if self.ours & {source, target} and (source != target or source == "dreambooth")
        ]
        here = ("--namespace", namespace, name, f"--container={container}")
        printed = self.cluster.kubectl("exec", *here, "--", "python", "-c", _TRY, json.dumps(tried))
        return {(source, *self.targets[host, port]) for host, port in json.loads(printed)}

    def documented(self) -> set[Edge]:
        """The rows of the table that are about these pods and targets."""
        there = set(self.targets.values())
        edges = {(source, target, store.PORT if port == STORE_PORT else port) for source, target, port in documented()}
        return {
            (source, target, port) for source, target, port in edges if source in self.pods and (target, port) in there
        }

    def unreachable(self) -> list[tuple[str, int]]:
        """The targets that do not take a connection of this machine, which no policy holds up."""
        return [self.targets[address] for address in self.targets if not _takes(address)]


def settings(monitoring: str) -> list[str]:
    """Where DNS, store, API server and Prometheus of the test's cluster are, for Helm."""
    place = {
        "dns": {"to": [{"ipBlock": {"cidr": f"{HOST_ADDRESS}/32"}}]},
        "store": {"to": [_namespace(store.NAMESPACE)]},
        "apiServer": {"cidrs": [f"{API_SERVICE_ADDRESS}/32", f"{HOST_ADDRESS}/32"]},
        "monitoring": [_namespace(monitoring)],
    }
    return [f"--set-json=networkPolicy.{name}={json.dumps(value)}" for name, value in place.items()]


@contextmanager
def scene(release: Release, monitoring: str) -> Iterator[Scene]:
    """The release, two pods like those of one training Job, and pods of others in three namespaces."""
    cluster = release.cluster
    with cluster.namespace("elsewhere") as elsewhere:
        others = {
            "clients": (release.namespace, "clients", {"app": "theirs"}, _OTHER_PORT),
            "prometheus": (monitoring, "prometheus", {"app": "prometheus"}, _OTHER_PORT),
            "stranger": (elsewhere, "stranger", {"app.kubernetes.io/name": "darkroom"}, _OTHER_PORT),
            "dreambooth": (release.training, "like-a-job-0", _JOB, _MEETING_PORT),
            "dreambooth beside it": (release.training, "like-a-job-1", _JOB, _MEETING_PORT),
        }
        try:
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda other: _listen(cluster, *other), others.values()))
            pods = {end: (namespace, name, "listening") for end, (namespace, name, *_) in others.items()}
            _, beside, _ = pods.pop("dreambooth beside it")
            own = {each["metadata"]["labels"]["app.kubernetes.io/component"]: each for each in release.pods()}
            pods |= {name: (release.namespace, each["metadata"]["name"], name) for name, each in own.items()}
            targets = {(own[name]["status"]["podIP"], port): (name, port) for name in own for port in PORTS[name]}
            targets |= {
                (_address(cluster, release.training, beside), _MEETING_PORT): ("dreambooth", _MEETING_PORT),
                (_address(cluster, elsewhere, "stranger"), _OTHER_PORT): ("stranger", _OTHER_PORT),
                (cluster.cluster_ip(store.SERVICE, store.NAMESPACE), store.PORT): ("store", store.PORT),
                (HOST_ADDRESS, 53): ("dns", 53),
                (API_SERVICE_ADDRESS, 443): ("api-server", 443),
                (HOST_ADDRESS, API_PORT): ("api-server", API_PORT),
                (HOST_ADDRESS, _KUBELET_PORT): ("kubelet", _KUBELET_PORT),
            }
            yield Scene(cluster, frozenset({*own, "dreambooth"}), pods, targets)
        finally:
            for namespace, name, *_ in others.values():
                cluster.kubectl("delete", "pod", name, "--namespace", namespace, "--ignore-not-found", "--wait=false")


def _listen(cluster: Cluster, namespace: str, name: str, labels: dict[str, str], port: int) -> None:
    command = ["python", "-m", "http.server", str(port), "--directory", "/usr/share/darkroom"]
    image = f"localhost/darkroom-tools:{version()}"
    spec = restricted_pod({"name": "listening", "image": image, "command": command})
    cluster.apply(pod(name, spec, labels), namespace=namespace)
    cluster.kubectl("wait", "--namespace", namespace, "--for=condition=Ready", f"pod/{name}", "--timeout=60s")


def _address(cluster: Cluster, namespace: str, name: str) -> str:
    found: str = cluster.get("pod", name, "--namespace", namespace)["status"]["podIP"]
    return found


def _namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
