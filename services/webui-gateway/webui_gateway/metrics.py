"""Prometheus metrics of the gateway: queue, generations, back ends. `gateway` counts; `server` chooses the registry."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from webui_gateway.job import Job, State

# A tiny model draws in a second, SDXL on a slow card in minutes.
_SECONDS_BUCKETS: Final = (0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """queue_length, backends_alive: asked at every scrape."""

    def __init__(
        self, registry: CollectorRegistry, queue_length: Callable[[], float], backends_alive: Callable[[], float]
    ) -> None:
        Gauge("darkroom_generation_queue_length", "Generations that wait.", registry=registry).set_function(
            queue_length
        )
        Gauge("darkroom_backends_alive", "Back ends that answer.", registry=registry).set_function(backends_alive)
        self._ended = Counter(
            "darkroom_generations", "Generations that ended, by state.", ("state",), registry=registry
        )
        self._seconds = Histogram(
            "darkroom_generation_seconds",
            "Time that a back end took for a generation that succeeded.",
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        for state in (State.SUCCEEDED, State.FAILED, State.CANCELLED):
            self._ended.labels(state.value)  # Rates and alerts have a beginning.

    def count(self, job: Job) -> None:
        """Note that a job ended."""
        self._ended.labels(job.state.value).inc()
        if job.state == State.SUCCEEDED:
            self._seconds.observe(job.seconds)
