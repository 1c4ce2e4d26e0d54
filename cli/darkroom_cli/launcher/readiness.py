"""Is a service ready? By its own word: grpc.health.v1, or GET /readyz for the engine."""

import json
import urllib.error
import urllib.request
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_TIMEOUT_SECONDS = 2.0


def is_ready(endpoint_file: Path) -> bool:
    """True once every port named in the service's endpoint file answers that it serves."""
    try:
        endpoint = json.loads(endpoint_file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    checks = []
    if "grpc" in endpoint:
        checks.append(_grpc_ready(endpoint["grpc"]))
    if "http" in endpoint:
        checks.append(_http_ready(endpoint["http"]))
    return bool(checks) and all(checks)


def _grpc_ready(target: str) -> bool:
    with grpc.insecure_channel(target) as opened:
        try:
            answer = health_pb2_grpc.HealthStub(opened).Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _http_ready(target: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{target}/readyz", timeout=_TIMEOUT_SECONDS) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
