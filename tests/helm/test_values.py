"""Every documented value changes what is rendered: none is forgotten by the templates."""

from pathlib import Path
from typing import Any

import yaml

from tests.helm import many
from tests.helm.chart import CHART
from tests.helm.many import Values, merged
from tests.helm.test_readme import ENTRIES

BASES = ("everything", "alternatives", "trial", "minimal")
# Switches that the bases above leave at a position where a value has no say.
TWISTS: dict[str, Values] = {
    "everything": {"auth": {"existingSecret": "fixed"}, "webuiEngine": {"store": {"existingSecret": "own"}}},
    "alternatives": {"webuiEngine": {"cache": {"persistent": True}}},
    "trial": {"trialStore": {"persistence": {"enabled": True}}},
    "minimal": {},
}
Path_ = tuple[str, ...]
# Values that contradict the first base. Being refused is a change, too, but costs all others of their batch a second render.
CONTRADICTING = {
    "trialStore.enabled",
    "tls.existingSecret",
    "tls.certManager.enabled",
    "tinyModels.enabled",
    "captioner.gpu.resourceClaimTemplateName",
    "captioner.autoscaling.enabled",
    "trainer.job.gpu.resourceClaimTemplateName",
    "webuiGateway.enginesSecret",
    "webuiEngine.gpu.resourceClaimTemplateName",
    "webuiEngine.autoscaling.enabled",
}
# Another value of the right type, by the end of the path; the longest end wins.
OTHER: dict[str, Any] = {
    "nameOverride": "pictures",
    "fullnameOverride": "atelier",
    "extraObjects": ["{apiVersion: v1, kind: ConfigMap, metadata: {name: other}}"],
    "images.registry": "other.example.org",
    "image.registry": "other.example.org",
    "image.repository": "other/image",
    "tag": "other-tag",
    "image.digest": f"sha256:{'a' * 64}",
    "pullPolicy": "Never",
    "pullSecrets": ["other"],
    "store.endpoint": "http://other.example.org:1234",
    "bucket": "other-bucket",
    "region": "eu-other-1",
    "duration": "2h",
    "renewBefore": "1h",
    "issuerRef": {"name": "other", "kind": "Issuer"},
    "dnsNames": ["other.example.org"],
    "level": "debug",
    "format": "text",
    "command": ["other"],
    "args": ["other"],
    "accessKeyVariable": "OTHER",
    "secretKeyVariable": "OTHER",
    "resources": {"requests": {"cpu": "3", "memory": "33Gi"}, "limits": {"memory": "33Gi"}},
    "cpu": "3",
    "memory": "33Gi",
    "size": "33Gi",
    "tmpSize": "33Gi",
    "shmSize": "1234Mi",
    "nodeSelector": {"other": "label"},
    "tolerations": [{"key": "other", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "other", "whenUnsatisfiable": "DoNotSchedule"}],
    "metrics": [{"type": "Other"}],
    "triggers": [{"type": "cron", "metadata": {}}],
    "clients": [{"podSelector": {"matchLabels": {"a": "b"}}}],
    "networkPolicy.monitoring": [{"podSelector": {}}],
    "to": [{"ipBlock": {"cidr": "198.51.100.0/24"}}],
    "ports": [1234],
    "cidrs": ["198.51.100.0/24"],
    "prometheusAddress": "http://other:9090",
    "interval": "11s",
    "scrapeTimeout": "9s",
    "host": "other.example.org",
    "parentRefs": [{"name": "other"}],
    "hostnames": ["other.example.org"],
    "products": ["Other"],
    "resourceName": "nvidia.com/other",
    "volume": {"emptyDir": {"sizeLimit": "1Gi"}},
    "captioner.device": "cpu",
    "captioner.precision": "fp16",
    "webuiEngine.device": "cpu",
    "webuiEngine.precision": "fp32",
    "engines": ["http://other:7860"],
    "service.type": "NodePort",
    "maxUnavailable": 3,
    "extraEnv": [{"name": "OTHER", "value": "1"}],
    "extraVolumes": [{"name": "other", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "other", "mountPath": "/other"}],
    "extraIngress": [{"from": [{"podSelector": {}}], "ports": [{"port": 1}]}],
    "extraEgress": [{"to": [{"podSelector": {}}], "ports": [{"port": 1}]}],
}


def other_value(path: Path_, default: Any) -> Any:
    """A value of the same type that is not the default."""
    for start in range(len(path)):
        if (end := ".".join(path[start:])) in OTHER:
            return OTHER[end]
    if isinstance(default, bool):
        return not default
    if isinstance(default, int | float):
        return default + 1
    if isinstance(default, dict):  # labels, annotations, variables
        return {**default, "other.example.org/name" if "env" not in path else "OTHER": "value"}
    assert isinstance(default, str), f"say in OTHER which value {'.'.join(path)} may have besides {default!r}"
    return "other"


def nested(path: Path_, value: Any) -> Values:
    """{a: {b: value}} of (a, b)."""
    for key in reversed(path):
        value = {key: value}
    found: Values = value
    return found


def test_every_documented_value_changes_the_render(tmp_path: Path) -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    left: list[Path_] = [entry.path for entry in ENTRIES if entry.default]
    assert len(left) > 300
    for name in BASES:
        base = merged(yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text()), TWISTS[name])
        effective = merged(defaults, base)
        tried = [path for path in left if name != BASES[0] or ".".join(path) not in CONTRADICTING]
        changed = [merged(base, nested(path, other_value(path, _at(effective, path)))) for path in tried]
        plain, *texts = many.render_each([base, *changed], tmp_path)
        assert not plain.startswith("refused"), plain
        effectual = {path for path, text in zip(tried, texts, strict=True) if text != plain}
        left = [path for path in left if path not in effectual]
    assert [".".join(path) for path in left] == []


def _at(values: Values, path: Path_) -> Any:
    found: Any = values
    for key in path:
        found = found[key]
    return found


def test_a_value_without_effect_would_be_noticed(tmp_path: Path) -> None:
    base = yaml.safe_load((CHART / "ci" / "minimal-values.yaml").read_text())
    idle = merged(base, {"trialStore": {"args": ["other"]}})
    refused = merged(base, {"captoiner": {}})
    plain, same, wrong = many.render_each([base, idle, refused], tmp_path)
    assert plain == same
    assert len(plain) > 10_000
    assert wrong.startswith("refused")
