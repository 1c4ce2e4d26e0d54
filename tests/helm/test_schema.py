"""Bad values are refused with a sentence that names them, by the schema or by the chart's own checks."""

import json
import re
import tarfile
from typing import Any

import pytest

from tests.helm import chart, helm_binary
from tests.helm.chart import CHART, RenderError

# Values, and what the message must say. Helm 4 writes paths as /a/b, Helm 3 as a.b.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"captoiner": {}}, "captoiner"),
    ({"captioner": {"replica": 1}}, "replica"),
    ({"captioner": {"replicas": "two"}}, "captioner.replicas"),
    ({"captioner": {"gpu": {"enabled": "yes"}}}, "captioner.gpu.enabled"),
    ({"captioner": {"gpu": {"allowShared": True}}}, "allowShared"),
    ({"captioner": {"image": {"digest": "sha256:abc"}}}, "captioner.image.digest"),
    ({"captioner": {"precision": "fp8"}}, "captioner.precision"),
    ({"captioner": {"resources": {"requests": {"memory": "lots"}}}}, "captioner.resources.requests.memory"),
    ({"captioner": {"podLabels": {"a": "not a label!"}}}, "captioner.podLabels.a"),
    ({"captioner": {"drainSeconds": 4000}}, "captioner.drainSeconds"),
    ({"shutdown": {"marginSeconds": 5}}, "shutdown.marginSeconds"),
    ({"captioner": {"service": {"type": "Loadbalancer"}}}, "captioner.service.type"),
    ({"store": {"endpoint": "s3.example.org"}}, "store.endpoint"),
    ({"store": {"endpoint": "https://user:word@s3.example.org"}}, "store.endpoint"),
    ({"store": {"bucket": "Capital"}}, "store.bucket"),
    ({"security": {"runAsUser": 0}}, "security.runAsUser"),
    ({"log": {"level": "loud"}}, "log.level"),
    ({"networkPolicy": {"apiServer": {"cidrs": []}}}, "networkPolicy.apiServer.cidrs"),
    ({"webuiGateway": {"engines": ["http://user:word@a1111:7860"]}}, "webuiGateway.engines.0"),
    ({"trainer": {"job": {"nodes": 0}}}, "trainer.job.nodes"),
    ({"trainer": {"job": {"env": {"A": 1}}}}, "trainer.job.env.A"),
    ({"tls": {"certManager": {"issuerRef": {"kind": "Isuer"}}}}, "tls.certManager.issuerRef.kind"),
    ({"extraObjects": [1]}, "extraObjects.0"),
]
CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"store": {"endpoint": ""}}, "store.endpoint is empty"),
    ({"store": {"existingSecret": ""}}, "store.existingSecret is empty"),
    ({"trialStore": {"enabled": True}}, "choose one of the two"),
    ({"trialStore": {"enabled": True}}, "trialStore.image.repository is empty"),
    ({"trialStore": {"enabled": True}, "trainer": {"namespace": "training"}}, "leave trainer.namespace empty"),
    ({"tls": {"enabled": True}}, "either tls.existingSecret or tls.certManager.enabled"),
    ({"tls": {"enabled": True, "certManager": {"enabled": True}}}, "issuerRef is empty"),
    ({"gatewayApi": {"grpc": {"enabled": True}}}, "gatewayApi.grpc.parentRefs is empty"),
    ({"tinyModels": {"enabled": False}}, "captioner.models.volume is empty"),
    ({"webuiEngine": {"enabled": False}}, "tell the gateway its engines"),
    ({"webuiGateway": {"engines": ["http://a:1"], "enginesSecret": "s"}}, "put all URLs into the Secret"),
    ({"webuiEngine": {"drainSeconds": 600}}, "webuiGateway.drainSeconds is 330 and webuiEngine.drainSeconds 600"),
    ({"captioner": {"keda": {"enabled": True, "minReplicas": 0}}}, "nothing would start it"),
    ({"captioner": {"keda": {"enabled": True}, "autoscaling": {"enabled": True}}}, "are both true: choose one"),
    ({"converter": {"autoscaling": {"enabled": True, "cpuUtilizationPercent": 0}}}, "has no metric"),
    ({"captioner": {"gpu": {"enabled": True}}}, "1Gi memory with a limit of 2Gi"),
    ({"trainer": {"job": {"queuePriorityClass": "low"}}}, "name the queue, too"),
]  # fmt: skip


def refusal(overrides: dict[str, Any], major: str = "4") -> str:
    """What helm prints, with the paths of values as dots."""
    with pytest.raises(RenderError) as caught:
        chart.template("minimal", overrides=overrides, major=major)
    return re.sub(r"'/([\w/]+)'", lambda found: found[1].replace("/", "."), str(caught.value))


@pytest.mark.parametrize(("overrides", "named"), WRONG, ids=[named for _, named in WRONG])
def test_wrong_values_are_named(overrides: dict[str, Any], named: str) -> None:
    assert re.search(rf"(^|[-' ]){re.escape(named)}[:' ]", refusal(overrides), re.MULTILINE)


@pytest.mark.parametrize(("overrides", "named"), WRONG[:3], ids=[named for _, named in WRONG[:3]])
def test_helm_3_names_them_too(overrides: dict[str, Any], named: str) -> None:
    assert named in refusal(overrides, major="3")


@pytest.mark.parametrize(("overrides", "sentence"), CONTRADICTIONS, ids=[text for _, text in CONTRADICTIONS])
def test_contradictions_are_explained(overrides: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(overrides)


def test_all_contradictions_come_at_once() -> None:
    text = refusal({"store": {"endpoint": "", "existingSecret": ""}, "tls": {"enabled": True}})
    assert "3 of the values cannot work" in text
    assert text.count("\n  - ") == 3


@pytest.mark.parametrize("volume", [{"hostPath": {"path": "/"}}])
def test_free_form_values_are_not_checked_here_but_by_the_cluster(volume: dict[str, Any]) -> None:
    """Pod Security refuses it at admission; the schema passes Kubernetes' own objects through."""
    assert "hostPath" in chart.template("minimal", overrides={"captioner": {"models": {"volume": volume}}})


def test_every_own_block_is_closed() -> None:
    """additionalProperties is false wherever the schema lists properties."""
    open_blocks = []

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            if "properties" in node and node.get("additionalProperties") is not False:
                open_blocks.append(path)
            for key, value in node.items():
                walk(value, f"{path}/{key}")

    walk(json.loads((CHART / "values.schema.json").read_text()), "")
    assert open_blocks == []


def test_the_package_holds_the_schema_and_enforces_it(tmp_path: Any) -> None:
    done = helm_binary.run("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.iterdir()
    refused = helm_binary.run("template", "r", package, "--set", "captoiner.x=1")
    assert "captoiner" in refused.stderr
    with tarfile.open(package) as archive:
        names = archive.getnames()
    assert {"darkroom/values.schema.json", "darkroom/README.md"} <= set(names)
    assert not [name for name in names if "/ci/" in name or "/tools/" in name]
    assert sum(name.startswith("darkroom/dashboards/") for name in names) == len(
        list((CHART / "dashboards").glob("*.json"))
    )
