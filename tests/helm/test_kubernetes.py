"""Every object is one that Kubernetes 1.33 to 1.37 takes, without a field it does not know."""

import copy
import json

import pytest

from tests.helm import chart, kubernetes_schema
from tests.helm.chart import KUBE_VERSIONS, VALUE_SETS, Object

CUSTOM = {
    "monitoring.coreos.com/v1": {"ServiceMonitor", "PrometheusRule"},
    "cert-manager.io/v1": {"Certificate"},
    "keda.sh/v1alpha1": {"ScaledObject"},
    "gateway.networking.k8s.io/v1": {"HTTPRoute", "GRPCRoute"},
}


def built_in(name: str) -> list[Object]:
    """The objects that Kubernetes itself knows."""
    return [item for item in chart.rendered(name) if item["apiVersion"] not in CUSTOM]


def everything() -> list[Object]:
    """What all value sets render, each different object once."""
    found = {json.dumps(item, sort_keys=True): item for name in VALUE_SETS for item in built_in(name)}
    return list(found.values())


@pytest.mark.parametrize("version", KUBE_VERSIONS)
def test_all_objects_are_valid(version: str) -> None:
    assert [text for item in everything() for text in kubernetes_schema.problems(item, version)] == []


@pytest.mark.parametrize("version", KUBE_VERSIONS)
def test_a_misspelt_field_would_be_seen(version: str) -> None:
    broken = copy.deepcopy(chart.find(chart.rendered("minimal"), "Deployment", "captioner"))
    broken["spec"]["template"]["spec"]["containers"][0]["resorces"] = {}
    (problem,) = kubernetes_schema.problems(broken, version)
    assert "resorces" in problem


def test_custom_resources_are_the_known_ones() -> None:
    found: dict[str, set[str]] = {}
    for name in VALUE_SETS:
        for item in chart.rendered(name):
            if item["apiVersion"] in CUSTOM:
                found.setdefault(item["apiVersion"], set()).add(item["kind"])
    assert found == CUSTOM
