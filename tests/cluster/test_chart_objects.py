"""Every object of every value set of helm/darkroom/ci, tried on the real API server: unknown fields, what its own validation
refuses, and pods that would not be `restricted`. Nothing is created.
"""

import json
from collections.abc import Iterator

import pytest

from tests.cluster.harness.client import Cluster, CommandError
from tests.helm import chart

# Kinds of operators: the cluster has their definitions (harness/custom_resources.py).
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "Certificate", "HTTPRoute", "GRPCRoute"}
CLASS = "services"
STRICT = ("--dry-run=server", "--server-side", "--validate=strict", "--warnings-as-errors", "--filename=-")


@pytest.fixture(scope="module")
def warning(cluster: Cluster) -> Iterator[str]:
    """A namespace where a workload whose pods would be refused is warned of."""
    with cluster.namespace("chart-objects") as name:
        cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/warn=restricted")
        # A pod is refused where its class is not there; workloads are not.
        cluster.apply(
            {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": CLASS}, "value": 1}
        )
        try:
            yield name
        finally:
            cluster.kubectl("delete", "priorityclass", CLASS)


def moved(item: chart.Object, namespace: str) -> chart.Object:
    """The object in a namespace that is there."""
    scope = {"namespace": namespace} if "namespace" in item["metadata"] else {}
    return {**item, "metadata": {**item["metadata"], **scope}}


def dry_run(cluster: Cluster, objects: list[chart.Object]) -> str:
    """Apply to nobody; CommandError with the server's words."""
    bundle = {"apiVersion": "v1", "kind": "List", "items": objects}
    return cluster.kubectl("apply", *STRICT, stdin=json.dumps(bundle))


@pytest.mark.parametrize("name", chart.VALUE_SETS)
def test_the_server_takes_every_object(cluster: Cluster, warning: str, name: str) -> None:
    objects = [moved(item, warning) for item in chart.rendered(name)]
    printed = dry_run(cluster, objects)
    assert len(printed.splitlines()) == len(objects)


def test_the_server_would_say_so(cluster: Cluster, warning: str) -> None:
    deployment = moved(chart.find(chart.render("minimal"), "Deployment", "captioner"), warning)
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    del container["securityContext"]
    with pytest.raises(CommandError, match="would violate PodSecurity"):
        dry_run(cluster, [deployment])
    container["imagePull"] = "Never"
    with pytest.raises(CommandError, match="imagePull"):
        dry_run(cluster, [deployment])


@pytest.mark.parametrize("kind", sorted(CUSTOM))
def test_the_server_knows_the_kinds_of_operators(cluster: Cluster, warning: str, kind: str) -> None:
    item = next(item for name in chart.VALUE_SETS for item in chart.rendered(name) if item["kind"] == kind)
    wrong = moved({**item, "spec": {**item["spec"], "surprise": True}}, warning)
    with pytest.raises(CommandError, match="surprise"):
        dry_run(cluster, [wrong])
