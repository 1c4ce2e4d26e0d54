"""NetworkPolicies let through the edges of the table in docs/operators.md, and nothing else."""

import re
from itertools import product
from typing import Any

import pytest
import yaml

from tests.helm import chart
from tests.helm.chart import NAMESPACE, Object
from tests.helm.policies import End, allows

PAGE = chart.CHART.parents[1] / "docs" / "operators.md"
EXAMPLES = chart.CHART.parents[1] / "examples" / "jobs"
TRAINING = "training"
STORE_PORT = 9443
PORTS = (22, 53, 80, 443, 6443, 7860, 7861, 8080, 9000, 9090, STORE_PORT, 29500, 50051)
JOB = {"app.kubernetes.io/name": "dreambooth", "app.kubernetes.io/part-of": "darkroom"}
OUTSIDE = (
    End("clients", NAMESPACE, {"app": "theirs"}),
    End("prometheus", "monitoring", {"app": "prometheus"}),
    End("stranger", "elsewhere", {"app.kubernetes.io/name": "darkroom"}),
    End("dns", "kube-system", {"k8s-app": "kube-dns"}),
    End("kube-system", "kube-system", {"app": "other"}),
    End("store", address="192.0.2.10"),
    End("api-server", address="10.0.0.1"),
    End("internet", address="203.0.113.9"),
)
NARROW: dict[str, Any] = {
    "store": {"endpoint": f"https://s3.example.org:{STORE_PORT}"},
    "networkPolicy": {
        "store": {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
        "apiServer": {"cidrs": ["10.0.0.0/24"]},
    },
    "trainer": {"namespace": TRAINING},
}
Edge = tuple[str, str, int]


def ends(objects: list[Object], training: str) -> list[End]:
    """All pods of the release, a training Job's, and what is around them."""
    own = [End(pod.component, NAMESPACE, pod.labels) for pod in chart.pods(objects)]
    return [*own, End("dreambooth", training, JOB), *OUTSIDE]


def edges(objects: list[Object], training: str = NAMESPACE) -> set[Edge]:
    """Every connection that the policies let through and that has a pod of ours at one end."""
    policies = [item for item in objects if item["kind"] == "NetworkPolicy"]
    ours = {pod.component for pod in chart.pods(objects)} | {"dreambooth"}
    found = ends(objects, training)
    return {
        (source.name, target.name, port)
        for source, target, port in product(found, found, PORTS)
        if ours & {source.name, target.name} and allows(policies, source, target, port)
    }


def documented() -> set[Edge]:
    """The table."""
    table = PAGE.read_text().partition("| from | to | port |\n|---|---|---|\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    assert len(rows) >= 8
    return {
        (source, target, port)
        for sources, targets, ports in rows
        for source, target, port in product(sources.split(", "), targets.split(", "), numbers(ports))
    }


def numbers(ports: str) -> list[int]:
    """The ports of a row."""
    if ports == "any":
        return list(PORTS)
    return [STORE_PORT if port == "the store's" else int(port) for port in ports.split(", ")]


def test_the_edges_are_those_of_the_table() -> None:
    assert edges(chart.render("minimal", overrides=NARROW), TRAINING) == documented()


def test_the_table_would_notice_one_edge_more() -> None:
    more = {"captioner": {"extraEgress": [{"ports": [{"port": 8080}]}]}}
    assert ("captioner", "internet", 8080) in edges(chart.render("minimal", overrides={**NARROW, **more}), TRAINING)


def test_without_addresses_only_the_ports_of_store_and_api_server_lead_outside() -> None:
    outside = {(source, port) for source, target, port in edges(chart.rendered("minimal")) if target == "internet"}
    to_store = {"captioner", "trainer", "converter", "webui-gateway", "webui-engine", "bucket-setup", "dreambooth"}
    assert outside == {(source, 443) for source in to_store} | {("trainer", 6443)}


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("http://minio.store.svc:9000", 9000), ("https://s3.example.org", 443), ("http://s3.example.org/", 80)],
)
def test_the_stores_port_is_that_of_its_endpoint(endpoint: str, port: int) -> None:
    objects = chart.render("minimal", overrides={"store": {"endpoint": endpoint}})
    assert ("captioner", "internet", port) in edges(objects)
    assert {found for source, target, found in edges(objects) if (source, target) == ("captioner", "internet")} == {
        port
    }


def test_the_trial_store_is_reached_by_those_who_use_it_and_reaches_nothing() -> None:
    found = edges(chart.rendered("trial"))
    assert {(source, port) for source, target, port in found if target == "trial-store"} == {
        (name, 9000)
        for name in (
            "captioner",
            "trainer",
            "converter",
            "webui-gateway",
            "webui-engine",
            "bucket-setup",
            "dreambooth",
        )
    }
    assert not [edge for edge in found if edge[0] == "trial-store"]
    assert not [edge for edge in found if edge[1] == "internet" and edge[0] != "trainer"]


@pytest.mark.parametrize("nodes", [1, 2])
def test_pods_of_one_run_reach_each_other_whoever_made_their_job(nodes: int) -> None:
    """The Job of a run file asks for its pods by itself: trainer.job.nodes says nothing about it."""
    (service, job) = yaml.safe_load_all((EXAMPLES / "two-pods.yaml").read_text())
    (meeting,) = service["spec"]["ports"]
    pod = End("dreambooth", NAMESPACE, job["spec"]["template"]["metadata"]["labels"])
    stranger = End("stranger", NAMESPACE, {"app": "theirs"})
    objects = chart.render("minimal", overrides={"trainer": {"job": {"nodes": nodes}}})
    policies = [item for item in objects if item["kind"] == "NetworkPolicy"]
    for port in (meeting["port"], 41234):  # torch goes on at any
        assert allows(policies, pod, pod, port)
        assert not allows(policies, stranger, pod, port)
        assert not allows(policies, pod, stranger, port)


def test_dns_goes_over_udp_too() -> None:
    objects = chart.rendered("minimal")
    policies = [item for item in objects if item["kind"] == "NetworkPolicy"]
    (dns,) = (end for end in OUTSIDE if end.name == "dns")
    for pod in chart.pods(objects):
        assert allows(policies, End(pod.component, NAMESPACE, pod.labels), dns, 53, "UDP"), pod.name


def test_every_pod_is_selected_by_the_default_deny() -> None:
    for name in ("minimal", "trial", "everything"):
        objects = chart.rendered(name)
        selector = chart.find(objects, "NetworkPolicy", "default-deny")["spec"]["podSelector"]["matchLabels"]
        assert all(selector.items() <= pod.labels.items() for pod in chart.pods(objects))
        assert not [
            rule
            for item in objects
            if item["kind"] == "NetworkPolicy"
            for direction in ("ingress", "egress")
            for rule in item["spec"].get(direction) or ()
            if rule == {}
        ]


def test_off_renders_none() -> None:
    assert not [item for item in chart.rendered("few") if item["kind"] == "NetworkPolicy"]
