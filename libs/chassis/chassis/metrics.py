"""Prometheus metrics of the calls, and the port they are read from.

`calls.py` records calls here, `server.py` opens the port. Services put metrics of their own into `Server.registry`.
"""

import threading
from types import TracebackType
from typing import Final, Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

# A health check takes a millisecond, a caption a second, a generation or an upload minutes.
SECONDS_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class CallMetrics:
    """Calls, failures, seconds and calls in flight, for each method."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("service", "method")
        self.calls = Counter(
            "darkroom_grpc_calls", "Finished calls, by gRPC status code.", (*labels, "code"), registry=registry
        )
        self.failures = Counter(
            "darkroom_grpc_failures",
            "Calls that ended with an error, by ErrorInfo.reason; calls that the client cancelled are not counted.",
            (*labels, "reason"),
            registry=registry,
        )
        self.seconds = Histogram(
            "darkroom_grpc_seconds",
            "Time from a call's arrival to its status.",
            labels,
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge("darkroom_grpc_in_flight", "Calls being served now.", labels, registry=registry)
        self.serving = Gauge(
            "darkroom_serving", "1 while the service's health is SERVING, else 0.", ("service",), registry=registry
        )

    def announce(self, service: str, method: str) -> None:
        """Show a method with zeros before its first call, so that rates and alerts have a beginning."""
        self.calls.labels(service, method, "OK")
        self.seconds.labels(service, method)
        self.in_flight.labels(service, method)


class MetricsPort:
    """Serves `GET /metrics` of one registry from a thread until closed."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        """Open the port (0: any free one). Raises OSError if it is taken."""
        self._server: WSGIServer
        self._thread: threading.Thread
        self._server, self._thread = start_http_server(port, addr=host, registry=registry)
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Close the port and end the thread; blocks for up to half a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def process_registry() -> CollectorRegistry:
    """A registry of its own with the process's memory, CPU, files and garbage collection."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry
