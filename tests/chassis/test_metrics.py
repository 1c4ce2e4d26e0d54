import socket
import urllib.error
import urllib.request

import pytest
from chassis.metrics import MetricsPort, process_registry
from prometheus_client import CollectorRegistry, Gauge


def fetch(port: int) -> str:
    return urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()


def test_the_port_serves_its_registry_until_closed() -> None:
    registry = CollectorRegistry()
    Gauge("things", "Things.", registry=registry).set(3)
    port = MetricsPort("127.0.0.1", 0, registry)
    assert "things 3.0" in fetch(port.port)
    port.close()
    with pytest.raises(urllib.error.URLError):
        fetch(port.port)


def test_a_taken_port_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        MetricsPort("127.0.0.1", taken.getsockname()[1], CollectorRegistry())


def test_a_registry_tells_of_the_process() -> None:
    assert process_registry().get_sample_value("process_resident_memory_bytes") > 1024**2  # type: ignore[operator]
