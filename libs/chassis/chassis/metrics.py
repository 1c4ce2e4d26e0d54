"""Prometheus metrics of the calls, and the port they are read from.

`calls.py` records calls here, `server.py` opens the port. Services put metrics of their own into `Server.registry`.
"""

import socket
import threading
from http.server import ThreadingHTTPServer
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    MetricsHandler,
    PlatformCollector,
    ProcessCollector,
)

# How long closing the metrics port may take. prometheus_client.start_http_server would take 0.5 s at every stop.
POLL_SECONDS: Final = 0.05

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
        server_class = _Ipv6Server if ":" in host else ThreadingHTTPServer
        self._server = server_class((host.strip("[]"), port), MetricsHandler.factory(registry))
        self.port: int = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_SECONDS,), name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Close the port and end the thread; blocks for up to POLL_SECONDS."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Ipv6Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6


def process_registry() -> CollectorRegistry:
    """A registry of its own with the process's memory, CPU, files and garbage collection."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry
