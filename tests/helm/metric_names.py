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
OF_POD = frozenset({"pod", "instance"})
# Those in which two equal values stay one.
_IDEMPOTENT = frozenset({"max", "min"})
_AGGREGATIONS = _IDEMPOTENT | {"sum", "count", "avg", "group", "stddev", "stdvar", "topk", "bottomk", "quantile"}


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


def shared() -> frozenset[str]:
    """Series that every replica shows with the same values: of runs and of back ends, not of the replica's own calls."""
    registry = CollectorRegistry()
    TrainingMetrics(registry)
    return frozenset(registry._names_to_collectors) | {"darkroom_backends_alive"}


def counted_twice(expression: str, names: frozenset[str]) -> Iterator[str]:
    """Which of these shared series a PromQL expression counts, or shows, once for each replica.

    The aggregation next to the series must be a max or min, with the grouping in front of its parenthesis.
    """
    for found in re.finditer(r"\bdarkroom_\w+", expression):
        if found[0] not in names:
            continue
        name, grouping = next(
            (one for one in _enclosing(expression, found.start()) if one[0] in _AGGREGATIONS), ("no aggregation", "")
        )
        kind, labels = re.match(r"(by|without)?\s*\(?([^)]*)", grouping).groups()  # type: ignore[union-attr]
        of_pod = OF_POD & set(re.findall(r"\w+", labels))
        if name not in _IDEMPOTENT or (of_pod if kind != "without" else of_pod != OF_POD):
            yield f"{found[0]} under {name} {grouping}".rstrip()


def _enclosing(expression: str, start: int) -> Iterator[tuple[str, str]]:
    """Names of the functions and aggregations around a place, from inside, each with its grouping."""
    depth = 0
    for at in range(start - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(expression[at], 0)
        if depth < 0:
            depth = 0
            named = re.search(r"(\w+)\s*((?:by|without)\s*\([^)]*\))?\s*$", expression[:at])
            if named:
                yield named[1], named[2] or ""


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
