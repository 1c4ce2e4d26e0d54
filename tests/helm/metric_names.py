"""The metrics that the services really have, by registering them as the services do."""

import re
from collections.abc import Iterator

from captioner.metrics import batch_metrics
from chassis.metrics import CallMetrics, process_registry
from converter.metrics import ConversionMetrics
from prometheus_client import CollectorRegistry
from trainer.metrics import TrainingMetrics
from webui_engine.metrics import Metrics as EngineMetrics
from webui_gateway.metrics import Metrics as GatewayMetrics

# What Prometheus adds to each series of a pod found by a ServiceMonitor.
TARGET_LABELS = frozenset({"namespace", "job", "pod", "instance", "endpoint", "container"})


def known() -> dict[str, frozenset[str]]:
    """Names of series, suffixes included, and their labels."""
    registry: CollectorRegistry = process_registry()
    CallMetrics(registry)
    batch_metrics(registry)
    ConversionMetrics(registry)
    TrainingMetrics(registry)
    EngineMetrics(registry)
    GatewayMetrics(registry, lambda: 0, lambda: 0)
    series = {}
    for name, collector in registry._names_to_collectors.items():
        labels = frozenset(getattr(collector, "_labelnames", ()))
        series[name] = labels | {"le"} if name.endswith("_bucket") else labels
    collected = {sample.name: frozenset(sample.labels) for family in registry.collect() for sample in family.samples}
    return collected | series  # those of the process have no names before they are read


def unknown(expression: str, series: dict[str, frozenset[str]]) -> Iterator[str]:
    """What a PromQL expression names that does not exist: series, and labels in braces or in `by`."""
    of_expression = set(TARGET_LABELS)
    for name, braces in re.findall(r"\b((?:darkroom|process)_\w+)(\{[^}]*\})?", expression):
        if name not in series:
            yield f"no series {name}"
            continue
        labels = series[name] | TARGET_LABELS
        of_expression |= labels
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", braces):
            if label not in labels:
                yield f"{name} has no label {label}"
    for group in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", expression):
        for label in filter(None, map(str.strip, group.split(","))):
            if label not in of_expression:
                yield f"nothing in {expression!r} has the label {label}"
