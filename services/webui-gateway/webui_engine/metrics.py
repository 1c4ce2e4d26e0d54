"""The engine's Prometheus metrics; `__main__` opens their port, `app.py` and `engine.py` count."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Requests by route and status, pictures, seconds per generation, length of the queue."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "darkroom_engine_requests", "Answered requests.", ("route", "status"), registry=registry
        )
        self.images = Counter("darkroom_engine_images", "Pictures drawn.", registry=registry)
        self.generation_seconds = Histogram(
            "darkroom_engine_generation_seconds", "Time of a generation, the queue not counted.", buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.waiting = Gauge("darkroom_engine_waiting", "Requests that wait.", registry=registry)
        self.ready = Gauge("darkroom_engine_ready", "1 while the engine serves.", registry=registry)
