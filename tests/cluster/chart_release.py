"""Releases of the chart on the real cluster: namespaces, installation, the way to the services, what there is afterwards."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from darkroom_cli.connection import Connection

from tests.cluster.harness import store as minio
from tests.cluster.harness.client import Cluster

CHART: Final = Path(__file__).parents[2] / "helm" / "darkroom"
SMALL: Final = Path(__file__).with_name("values-small.yaml")
GPU: Final = Path(__file__).with_name("values-gpu.yaml")
"""What the present chart knows and the previous one does not."""
SERVICES: Final = ("captioner", "trainer", "converter", "webui-gateway", "webui-engine")
IMAGES: Final = (*SERVICES, "tools", "dreambooth")
_GRPC, _HTTP = 50051, 7860
# What the cluster itself puts into every namespace, or makes of other objects.
_NOT_OURS: Final = (
    "events",
    "events.events.k8s.io",
    "endpoints",
    "endpointslices.discovery.k8s.io",
    "leases.coordination.k8s.io",
)
_OF_EVERY_NAMESPACE: Final = {"serviceaccounts/default", "configmaps/kube-root-ca.crt"}


@dataclass(frozen=True)
class Release:
    """One release; training: the namespace of its Jobs. major: of the Helm that handles it."""

    cluster: Cluster
    name: str
    namespace: str
    training: str
    bucket: str
    major: int = 4

    @property
    def fullname(self) -> str:
        """Prefix of the names of its objects."""
        return self.name if "darkroom" in self.name else f"{self.name}-darkroom"

    def helm(self, verb: str, *arguments: str, timeout: float = 600) -> str:
        """`helm VERB RELEASE …` in its namespace."""
        here = ("--namespace", self.namespace)
        return self.cluster.helm(verb, self.name, *arguments, *here, major=self.major, timeout=timeout)

    def install(self, *arguments: str, chart: Path = CHART) -> str:
        """Install the small release with its bucket and its training namespace, and wait until it is ready."""
        return self._apply("install", chart, *arguments)

    def upgrade(self, *arguments: str, chart: Path = CHART) -> str:
        """Upgrade to a chart and wait until it is ready."""
        return self._apply("upgrade", chart, *arguments)

    def _apply(self, verb: str, chart: Path, *arguments: str) -> str:
        own = [f"--set=store.bucket={self.bucket}", f"--set=trainer.namespace={self.training}"]
        files = [f"--values={file}" for file in ((SMALL, GPU) if chart == CHART else (SMALL,))]
        return self.helm(verb, str(chart), *files, *own, "--wait", "--timeout=8m", *arguments)

    def kubectl(self, *arguments: str) -> str:
        """kubectl in its namespace."""
        return self.cluster.kubectl("--namespace", self.namespace, *arguments)

    def pods(self) -> list[dict[str, Any]]:
        """Its pods that are not on their way out."""
        found = self.cluster.get("pods", "--namespace", self.namespace, f"--selector={self.selector}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    @property
    def selector(self) -> str:
        """Selects everything of this release."""
        return f"app.kubernetes.io/instance={self.name}"

    @cached_property
    def token(self) -> str:
        """What callers present."""
        secret = self.cluster.get("secret", f"{self.fullname}-token", "--namespace", self.namespace)
        return base64.b64decode(secret["data"]["token"]).decode()

    @contextmanager
    def forwarded(self) -> Iterator[Connection]:
        """Its services through `kubectl port-forward`."""
        with ExitStack() as stack:

            def forward(service: str, port: int) -> str:
                target = f"service/{self.fullname}-{service}"
                local = stack.enter_context(self.cluster.port_forward(target, port, self.namespace))
                return f"127.0.0.1:{local}"

            captioner, trainer, converter, webui = (
                forward(service, _GRPC) for service in ("captioner", "trainer", "converter", "webui-gateway")
            )
            yield Connection(
                captioner=captioner,
                trainer=trainer,
                converter=converter,
                webui=webui,
                http=f"http://{forward('webui-gateway', _HTTP)}",
                token=self.token,
            )


@contextmanager
def room(cluster: Cluster, name: str, release: str = "darkroom", major: int = 4) -> Iterator[Release]:
    """Two empty namespaces that enforce `restricted`, both with the store's Secret, and a release to be installed there."""
    with cluster.namespace(name) as namespace, cluster.namespace(f"{name}-training") as training:
        cluster.apply(minio.credentials(namespace), minio.credentials(training))
        yield Release(cluster, release, namespace, training, bucket=namespace, major=major)


def bring_all(images_on_node: Callable[[str], str]) -> None:
    """Every image of a release: the first alone, for it makes the stages that all share, then two at a time."""
    first, *others = IMAGES
    images_on_node(first)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(images_on_node, others))


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is Ready."""
    found = pod["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in found)


def objects_in(cluster: Cluster, *namespaces: str) -> set[str]:
    """Everything in the namespaces, of every kind that can be listed, as "kind/name"; without what every namespace has."""
    listed = cluster.kubectl("api-resources", "--verbs=list", "--namespaced", "--output=name").split()
    kinds = ",".join(kind for kind in listed if kind not in _NOT_OURS)
    found = set()
    for namespace in namespaces:
        lines = cluster.kubectl("get", kinds, "--namespace", namespace, "--output=name", "--ignore-not-found")
        found |= {f"{namespace}/{line}" for line in lines.split() if plural(line) not in _OF_EVERY_NAMESPACE}
    return found


def plural(name: str) -> str:
    """`serviceaccount/default` as `serviceaccounts/default`."""
    kind, _, rest = name.partition("/")
    return f"{kind}s/{rest}"


def logs(release: Release, component: str) -> str:
    """The last words of a component's pods, for messages of failed tests."""
    selector = f"{release.selector},app.kubernetes.io/component={component}"
    return release.kubectl("logs", f"--selector={selector}", "--tail=40", "--all-containers")


def parse(text: str) -> Any:
    """The JSON on the last line of what a command printed."""
    return json.loads(text.strip().splitlines()[-1])
