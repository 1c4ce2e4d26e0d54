"""Replicas, autoscalers and disruption budgets."""

import pytest

from tests.helm import chart
from tests.helm.chart import Object

SCALED = {"HorizontalPodAutoscaler": "alternatives", "ScaledObject": "everything"}


def budgets(name: str) -> set[str]:
    """Components with a PodDisruptionBudget."""
    return {
        item["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
        for item in chart.rendered(name)
        if item["kind"] == "PodDisruptionBudget"
    }


def workload(objects: list[Object], target: Object) -> Object:
    """What a scaler scales."""
    (found,) = (
        item for item in objects if (item["kind"], item["metadata"]["name"]) == (target["kind"], target["name"])
    )
    return found


def test_one_pod_has_no_budget_that_would_block_its_node() -> None:
    assert budgets("minimal") == set()


def test_several_pods_have_one() -> None:
    # two replicas, or up to four by KEDA
    assert budgets("everything") == {"captioner", "trainer", "converter", "webui-gateway", "webui-engine"}
    for item in chart.rendered("everything"):
        if item["kind"] == "PodDisruptionBudget":
            assert item["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.parametrize(("kind", "name"), SCALED.items())
def test_scalers_name_a_workload_and_are_its_only_master(kind: str, name: str) -> None:
    objects = chart.rendered(name)
    scalers = [item for item in objects if item["kind"] == kind]
    assert len(scalers) == {"HorizontalPodAutoscaler": 5, "ScaledObject": 2}[kind]
    for scaler in scalers:
        target = workload(objects, scaler["spec"]["scaleTargetRef"])
        assert "replicas" not in target["spec"], "an upgrade would reset what the scaler chose"


def test_replicas_are_spread_softly() -> None:
    for pod in chart.pods(chart.rendered("minimal")):
        constraints = pod.spec.get("topologySpreadConstraints", [])
        if pod.owner["kind"] in ("Deployment", "StatefulSet"):
            (one,) = constraints
            assert one["whenUnsatisfiable"] == "ScheduleAnyway"
            assert one["labelSelector"]["matchLabels"].items() <= pod.labels.items()
        else:
            assert constraints == []


def test_own_constraints_come_on_top() -> None:
    pod = chart.pod(chart.rendered("alternatives"), "webui-engine")
    keys = [one["topologyKey"] for one in pod.spec["topologySpreadConstraints"]]
    assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]


def test_own_constraints_count_the_pods_of_the_service_or_those_they_name() -> None:
    zone = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    named = zone | {"labelSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}
    objects = chart.render("minimal", overrides={"converter": {"topologySpreadConstraints": [zone, named]}})
    pod = chart.pod(objects, "converter")
    _, first, second = pod.spec["topologySpreadConstraints"]
    assert first["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == "converter"
    assert second == named


def test_a_services_own_placement_replaces_the_common_one() -> None:
    overrides = {
        "placement": {"nodeSelector": {"pool": "all"}, "priorityClassName": "all"},
        "converter": {"nodeSelector": {"disk": "fast"}},
    }
    objects = chart.render("minimal", overrides=overrides)
    assert chart.pod(objects, "converter").spec["nodeSelector"] == {"disk": "fast"}
    for component in ("captioner", "trainer", "bucket-setup", "test"):
        assert chart.pod(objects, component).spec["nodeSelector"] == {"pool": "all"}
        assert chart.pod(objects, component).spec["priorityClassName"] == "all"


def test_images_take_registry_tag_and_digest_from_the_nearest_value() -> None:
    digest = f"sha256:{'0' * 64}"
    overrides = {
        "images": {"registry": "r.example.org/d/", "tag": "1.2.3"},
        "converter": {"image": {"registry": "other.example.org", "tag": "9", "digest": digest}},
    }
    objects = chart.render("minimal", overrides=overrides)
    assert chart.pod(objects, "captioner").main["image"] == "r.example.org/d/darkroom-captioner:1.2.3"
    assert chart.pod(objects, "converter").main["image"] == f"other.example.org/darkroom-converter:9@{digest}"
    assert not [pod for pod in chart.pods(objects) if "sha256" in str(pod.labels)]


def test_every_image_follows_the_registry() -> None:
    overrides = {"images": {"registry": "r.example.org"}}
    for name in ("minimal", "trial"):
        objects = chart.render(name, overrides=overrides)
        images = {container["image"] for pod in chart.pods(objects) for container in pod.containers()}
        assert images
        assert all(image.startswith("r.example.org/") for image in images)
