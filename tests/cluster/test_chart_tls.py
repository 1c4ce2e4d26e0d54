"""TLS from a Secret: probes, `helm test` and callers on a release that speaks it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from chassis.client import blocking_channel
from darkroom.trainer.v1.session_pb2 import ListSessionsRequest
from darkroom.trainer.v1.session_pb2_grpc import SessionServiceStub

from tests.cluster import chart_users
from tests.cluster.chart_certificates import certificate
from tests.cluster.chart_release import SERVICES, bring_all, is_ready, room
from tests.cluster.harness.client import Cluster

pytestmark = pytest.mark.timeout(600)


def test_tls_from_a_secret(cluster: Cluster, images_on_node: Callable[[str], str], tmp_path: Path) -> None:
    bring_all(images_on_node)
    with room(cluster, "chart-tls") as release:
        certificate(tmp_path, ["localhost", *(f"{release.fullname}-{service}" for service in SERVICES)])
        files = [f"--from-file={name}={tmp_path / name}" for name in ("tls.crt", "tls.key", "ca.crt")]
        release.kubectl("create", "secret", "generic", "darkroom-tls", "--type=kubernetes.io/tls", *files)
        try:
            release.install("--set=tls.enabled=true", "--set=tls.existingSecret=darkroom-tls")
            assert all(map(is_ready, release.pods()))
            assert "Phase:          Succeeded" in release.helm("test", "--timeout=5m")
            with release.forwarded() as where:
                target = where.trainer.replace("127.0.0.1", "localhost")
                with blocking_channel(target, where.token, root_certificate_file=str(tmp_path / "ca.crt")) as channel:
                    assert not SessionServiceStub(channel).ListSessions(ListSessionsRequest(), timeout=30).sessions
                with blocking_channel(target, where.token) as channel, pytest.raises(grpc.RpcError) as refused:
                    SessionServiceStub(channel).ListSessions(ListSessionsRequest(), timeout=10)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE  # in plain text
                port = where.http.rpartition(":")[2]
                trusting = ("--cacert", str(tmp_path / "ca.crt"), "--header", f"Authorization: Bearer {where.token}")
                models = f"https://localhost:{port}/sdapi/v1/sd-models"
                asked = subprocess.run(["curl", "-sS", "--fail", *trusting, models], capture_output=True, text=True)
                assert "sd15-tiny" in asked.stdout, asked.stderr
        finally:
            chart_users.remove_bucket(cluster, release.bucket)
