"""Prometheus metrics of the conversions. `jobs` records them; chassis serves them beside those of the calls."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from converter.conversions import FINAL
from converter.plan import FORMAT_NAMES

# From a small model on a fast disk to tens of gigabytes over a slow network.
_SECONDS_BUCKETS: Final = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class ConversionMetrics:
    """Bytes, seconds by outcome, and conversions at work."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.bytes = Counter(
            "darkroom_conversion_bytes", "Bytes of tensors written, by format.", ("format",), registry=registry
        )
        self.seconds = Histogram(
            "darkroom_conversion_seconds",
            "Time from the start of a conversion to its end, by format and final state.",
            ("format", "state"),
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        self.active = Gauge("darkroom_conversions_active", "Conversions being worked on now.", registry=registry)
        # Every series exists from the start: a rate needs a value before the first conversion to count from.
        for format_ in FORMAT_NAMES:
            self.bytes.labels(format_)
            for state in FINAL:
                self.seconds.labels(format_, state)
        self.waits = Counter(
            "darkroom_conversion_waits", "Times a conversion stopped to wait for the store.", registry=registry
        )
