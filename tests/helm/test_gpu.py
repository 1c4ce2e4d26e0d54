"""GPU blocks: off leaves no trace, on places pods where the card is, and training gets no shared card unless allowed."""

import json
from typing import Any

import pytest
import yaml
from jobs import placement
from jobs.execution_file import read_execution
from jobs.manifest import environment_of
from jobs.recipe import Recipe
from jobs.render import render
from jobs.run_spec import RunSpec

from images.build import reference, version
from images.catalogue import IMAGES
from tests.helm import chart
from tests.helm.chart import Object, RenderError

DIGEST = f"sha256:{'0' * 64}"
MEMORY = {"requests": {"memory": "8Gi"}, "limits": {"memory": "8Gi"}}
TRACES = ("nvidia", "amd.com", "gpu", "runtimeClass", "resourceClaims", "claims")


def captioner(gpu: dict[str, Any], **values: Any) -> Object:
    """The captioner's pod with this GPU block."""
    own = {"gpu": {"enabled": True, **gpu}, "resources": MEMORY, **values}
    return chart.pod(chart.render("minimal", overrides={"captioner": own}), "captioner").spec


def required(spec: Object) -> Any:
    """The node selector terms that must hold."""
    return spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]


@pytest.mark.parametrize("name", ["minimal", "trial"])
def test_off_renders_no_field_about_gpus(name: str) -> None:
    text = json.dumps(
        [item for item in chart.rendered(name) if item["kind"] in ("Deployment", "StatefulSet", "Job", "Pod")]
    )
    execution = chart.find(chart.rendered(name), "ConfigMap", "trainer-execution")["data"]["execution.yaml"]
    assert [word for word in TRACES if word in text or word in execution] == []


def test_off_leaves_other_fields_of_the_block_without_effect() -> None:
    block = {"count": 4, "minMemoryMiB": 9, "products": ["A"], "runtimeClassName": "nvidia"}
    overrides = {"captioner": {"gpu": block}, "webuiEngine": {"gpu": block}, "trainer": {"job": {"gpu": block}}}
    fixed = {"auth": {"existingSecret": "fixed"}}
    assert chart.render("minimal", overrides=overrides | fixed) == chart.render("minimal", overrides=fixed)


def test_on_asks_for_the_card_and_tolerates_its_taint() -> None:
    spec = captioner({"count": 2, "runtimeClassName": "nvidia"})
    resources = spec["containers"][0]["resources"]
    assert resources["limits"] == {"memory": "8Gi", "nvidia.com/gpu": "2"}
    assert resources["requests"]["nvidia.com/gpu"] == "2"
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert spec["runtimeClassName"] == "nvidia"
    assert "affinity" not in spec


def test_init_containers_ask_for_no_card() -> None:
    (init,) = captioner({})["initContainers"]
    assert "nvidia.com/gpu" not in json.dumps(init["resources"])


def test_own_tolerations_stay_beside_the_one_for_gpus() -> None:
    spec = captioner({"resourceName": "amd.com/gpu"}, tolerations=[{"key": "mine", "operator": "Exists"}])
    assert [one["key"] for one in spec["tolerations"]] == ["amd.com/gpu", "mine"]


def test_memory_and_product_are_asked_of_the_nodes_labels() -> None:
    spec = captioner({"minMemoryMiB": 40000, "products": ["A100", "H100"]})
    assert required(spec) == [
        {
            "matchExpressions": [
                {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["39999"]},
                {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["A100", "H100"]},
            ]
        }
    ]


@pytest.mark.parametrize(
    ("gpu", "key"),
    [
        ({"resourceName": "nvidia.com/mig-1g.10gb", "products": ["P"]}, "nvidia.com/gpu.product"),
        ({"resourceName": "nvidia.com/gpu.shared", "products": ["P"]}, "nvidia.com/gpu.product"),
        ({"resourceName": "amd.com/gpu", "products": ["P"]}, "amd.com/gpu.product-name"),
    ],
)
def test_each_vendor_has_its_own_labels(gpu: dict[str, Any], key: str) -> None:
    (term,) = required(captioner(gpu))
    assert [one["key"] for one in term["matchExpressions"]] == [key]


def test_alternatives_of_an_own_affinity_all_get_the_requirement() -> None:
    terms = required(chart.pod(chart.rendered("everything"), "webui-engine").spec)
    keys = [[one["key"] for one in term.get("matchExpressions", ())] for term in terms]
    assert keys == [["zone", "nvidia.com/gpu.memory"], ["nvidia.com/gpu.memory"]]
    assert terms[1]["matchFields"] == [{"key": "metadata.name", "operator": "In", "values": ["node-7"]}]


def test_a_claim_replaces_the_resource() -> None:
    spec = captioner({"resourceClaimTemplateName": "one-gpu"})
    assert spec["resourceClaims"] == [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]
    assert spec["containers"][0]["resources"]["claims"] == [{"name": "gpu"}]
    assert "nvidia.com/gpu" not in spec["containers"][0]["resources"]["limits"]


def test_memory_cannot_be_asked_of_nodes_that_do_not_tell_it() -> None:
    with pytest.raises(RenderError, match="only NVIDIA's nodes tell memory in numbers"):
        captioner({"resourceName": "amd.com/gpu", "minMemoryMiB": 1000})


def test_a_slice_is_as_large_as_its_name_says() -> None:
    with pytest.raises(RenderError, match="has 10 GiB: name a larger one"):
        captioner({"resourceName": "nvidia.com/mig-1g.10gb", "minMemoryMiB": 20000})


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_a_rollout_frees_the_card_first(kind: str) -> None:
    objects = [
        item for item in chart.rendered("everything") if item["kind"] == kind and "nvidia.com/gpu" in json.dumps(item)
    ]
    for item in objects:
        update = item["spec"].get("strategy", {}).get("rollingUpdate", {"maxSurge": 0})
        assert update["maxSurge"] == 0


def test_pods_with_a_card_have_their_memory_guaranteed() -> None:
    for name in chart.VALUE_SETS:
        for pod in chart.pods(chart.rendered(name)):
            resources = pod.main["resources"]
            if any("/" in key for key in resources["limits"]) or "claims" in resources:
                assert resources["limits"]["memory"] == resources["requests"]["memory"], pod.name


@pytest.mark.parametrize(
    ("gpu", "found"),
    [
        ({"resourceName": "nvidia.com/gpu.shared"}, "resourceName is nvidia.com/gpu.shared"),
        ({"products": ["A100", "T4-SHARED"]}, "products has T4-SHARED"),
    ],
)
def test_training_on_shared_cards_is_refused_unless_allowed(gpu: dict[str, Any], found: str) -> None:
    def job(**more: Any) -> dict[str, Any]:
        return {"trainer": {"job": {"gpu": {"enabled": True, **gpu, **more}}}}

    with pytest.raises(RenderError, match=found):
        chart.render("minimal", overrides=job())
    assert chart.render("minimal", overrides=job(allowShared=True))


def images(objects: list[Object]) -> dict[str, str]:
    """Tags, and digests if given, of what has a CUDA build, and the gateway's, which has none."""
    execution = yaml.safe_load(chart.find(objects, "ConfigMap", "trainer-execution")["data"]["execution.yaml"])
    services = ("captioner", "webui-engine", "webui-gateway")
    found = {name: chart.pod(objects, name).main["image"] for name in services} | {"dreambooth": execution["image"]}
    return {name: image.rpartition("/")[2].partition(":")[2] for name, image in found.items()}


def with_gpus(gpu: dict[str, Any], **image: str) -> dict[str, Any]:
    """Values in which everything that can have a GPU has this block and this image."""
    service = {"gpu": {"enabled": True, **gpu}, "image": image, "resources": MEMORY}
    job = {"gpu": {"enabled": True, "allowShared": True, **gpu}, "image": image}
    return {"captioner": service, "webuiEngine": service, "trainer": {"job": job}}


@pytest.mark.parametrize(
    ("values", "tag"),
    [
        (with_gpus({}), "0.1.0-cuda"),
        (with_gpus({"resourceName": "nvidia.com/gpu.shared"}), "0.1.0-cuda"),
        (with_gpus({"resourceName": "nvidia.com/mig-1g.10gb"}), "0.1.0-cuda"),
        (with_gpus({"resourceClaimTemplateName": "one-gpu"}), "0.1.0-cuda"),
        (with_gpus({}) | {"images": {"tag": "7"}}, "7-cuda"),
        (with_gpus({}) | {"images": {"cudaSuffix": "-gpu"}}, "0.1.0-gpu"),
        (with_gpus({}) | {"images": {"cudaSuffix": ""}}, "0.1.0"),
        (with_gpus({}, tag="mine"), "mine"),
        (with_gpus({}, digest=DIGEST), f"0.1.0@{DIGEST}"),
        (with_gpus({"resourceName": "amd.com/gpu"}), "0.1.0"),
        (with_gpus({"enabled": False}), "0.1.0"),
    ],
)
def test_a_card_of_nvidia_gets_the_image_for_it(values: dict[str, Any], tag: str) -> None:
    found = images(chart.render("minimal", overrides=values))
    base = values.get("images", {}).get("tag", "0.1.0")
    assert found == {"captioner": tag, "webui-engine": tag, "dreambooth": tag, "webui-gateway": base}


def test_the_build_names_its_images_as_the_chart_asks_for_them() -> None:
    found = images(chart.render("minimal", overrides=with_gpus({})))
    assert {f"darkroom-{name}" for name, tag in found.items() if tag.endswith("-cuda")} == {
        image.name for image in IMAGES if image.torch
    }
    for image in IMAGES:
        if image.torch:
            name = image.name.removeprefix("darkroom-")
            assert reference(image, "localhost", version(), "cuda") == f"localhost/{image.name}:{found[name]}"


@pytest.mark.parametrize(
    ("given", "is_on", "device"),
    [("auto", True, "cuda"), ("cpu", True, "cpu"), ("auto", False, "auto"), ("cuda", False, "cuda")],
)
@pytest.mark.parametrize("component", ["captioner", "webui-engine"])
def test_a_pod_with_a_card_does_not_fall_back_to_the_cpu(component: str, given: str, is_on: bool, device: str) -> None:
    service = {"gpu": {"enabled": is_on}, "device": given, "resources": MEMORY}
    objects = chart.render("minimal", overrides={"captioner": service, "webuiEngine": service})
    assert chart.pod(objects, component).env()["DARKROOM_DEVICE"] == device


@pytest.mark.parametrize(
    ("given", "is_on", "device"),
    [("auto", True, "cuda"), ("cpu", True, "cpu"), ("auto", False, None), ("cuda", False, "cuda")],
)
def test_nor_does_a_training_job(given: str, is_on: bool, device: str | None) -> None:
    job = {"gpu": {"enabled": is_on}, "device": given}
    objects = chart.render("minimal", overrides={"trainer": {"job": job}})
    text = chart.find(objects, "ConfigMap", "trainer-execution")["data"]["execution.yaml"]
    recipe = Recipe(base_model="b", resolution_px=64)
    spec = RunSpec("robot", "first", recipe, "models/b", "robot-first")
    made = environment_of(render(spec, read_execution(text, "execution.yaml")))
    assert made.get("DARKROOM_DEVICE") == device


@pytest.mark.parametrize(
    "gpu",
    [
        {"minMemoryMiB": 40000, "products": ["A100"], "count": 2, "runtimeClassName": "nvidia"},
        {"resourceName": "nvidia.com/mig-1g.10gb", "products": ["P"]},
        {"resourceName": "amd.com/gpu", "products": ["MI300X"]},
        {"resourceClaimTemplateName": "one-gpu"},
    ],
)
def test_services_and_training_jobs_are_placed_by_the_same_rules(gpu: dict[str, Any]) -> None:
    """The chart places services, libs/jobs places Jobs: one block, one meaning."""
    block = {"enabled": True, **gpu}
    text = yaml.safe_dump({
        "image": "i",
        "store": {"endpoint": "http://s:1"},
        "storeSecret": {"name": "s"},
        "gpu": {**block, "allowShared": True},
    })  # fmt: skip
    job = placement.placement(read_execution(text, "execution.yaml"))
    service = captioner(gpu)
    for field in ("tolerations", "runtimeClassName", "resourceClaims", "affinity"):
        assert job.get(field) == service.get(field), field
