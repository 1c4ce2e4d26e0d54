"""docs/operators.md is done, command by command, on the real cluster, with the values and requests that the chart has by default."""

import json
import secrets
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cluster import chart_users
from tests.cluster.chart_certificates import signing
from tests.cluster.chart_release import SERVICES, bring_all, objects_in
from tests.cluster.harness import store as minio
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.processes import NotReady, wait_until
from tests.helm.test_operators_page import BLOCKS

pytestmark = pytest.mark.timeout(1500)
ROOT = Path(__file__).parents[2]
BUCKET = "darkroom"
"""The chart's own, for the page names none."""
FIRST, *MIDDLE = [text for _, mark, text in BLOCKS if mark in (" e2e", " e2e serves")]
LAST = [text for _, mark, text in BLOCKS if mark == " e2e last"]
(SERVES,) = [text for _, mark, text in BLOCKS if mark == " e2e serves"]
ISSUER = "tls.certManager"
LAST_PORT = "-> 50051"
"""SERVES names it last."""


@dataclass
class Operator:
    """Somebody at a shell. said: what each block printed."""

    cluster: Cluster
    names: dict[str, str]
    said: dict[str, str] = field(default_factory=dict)

    def do(self, block: str) -> str:
        """Execute a block in the repository's folder, in a shell that ends at the first error."""
        start = time.monotonic()
        command, env = shell(block), self.cluster.env | self.names
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=960)
        print(f"{time.monotonic() - start:6.1f} s  {block.strip().splitlines()[0]}")
        assert done.returncode == 0, f"{block}\nended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        self.said[block] = done.stdout
        return done.stdout

    def use(self, block: str) -> None:
        """Execute a block that goes on until it is ended, and use what it serves meanwhile."""
        env = self.cluster.env | self.names
        with subprocess.Popen(
            shell(f"exec {block}"), cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    assert line.startswith("Forwarding from "), line
                    if LAST_PORT in line:
                        break
                bearer = {"Authorization": f"Bearer {self.output_of('data.token')}"}
                request = urllib.request.Request("http://localhost:7860/", headers=bearer)
                with urllib.request.urlopen(request, timeout=30) as page:
                    assert "<title>" in page.read().decode()
            finally:
                process.terminate()

    def output_of(self, words: str) -> str:
        """What the one block with these words printed."""
        (block,) = (text for text in self.said if words in text)
        return self.said[block]


def shell(block: str) -> list[str]:
    """A shell that knows the names of the page and ends at the first error."""
    return ["bash", "-euo", "pipefail", "-c", f"{FIRST}\n{block}"]


@pytest.fixture
def operator(cluster: Cluster, images_on_node: Callable[[str], str], tmp_path: Path) -> Iterator[Operator]:
    """The names that the page leaves open; afterwards nothing of them is there."""
    bring_all(images_on_node)
    suffix = secrets.token_hex(3)
    names = {
        "NAMESPACE": f"operators-{suffix}",
        "TRAINING": f"operators-training-{suffix}",
        "RELEASE": "darkroom",
        "REGISTRY": "localhost",
        "STORE": minio.ENDPOINT,
        "ACCESS_KEY": minio.ACCESS_KEY,
        "SECRET_KEY": minio.SECRET_KEY,
        "CAPTIONER_ACCESS_KEY": f"captioner-{suffix}",
        "CAPTIONER_SECRET_KEY": secrets.token_hex(16),
        # The alias `store`: this machine does not know the name of the Service.
        "MC_HOST_store": f"http://{minio.ACCESS_KEY}:{minio.SECRET_KEY}@{minio.address(cluster)}",
        "MC_CONFIG_DIR": str(tmp_path),
    }
    chart_users.remove_bucket(cluster, BUCKET)
    yield Operator(cluster, names)
    chart_users.remove_user(cluster, names["CAPTIONER_ACCESS_KEY"], "darkroom-captioner")
    cluster.kubectl("delete", "namespace", names["NAMESPACE"], names["TRAINING"], "--ignore-not-found", "--wait=false")
    cluster.kubectl("delete", "priorityclass", "darkroom-training", "--ignore-not-found")
    chart_users.remove_bucket(cluster, BUCKET)


def test_every_command_of_the_page(operator: Operator) -> None:
    names = operator.names
    for block in MIDDLE:
        if block == SERVES:
            operator.use(block)
        elif ISSUER in block:
            with signing(operator.cluster, names["NAMESPACE"]):
                operator.do(block)
        else:
            operator.do(block)
    check_output(operator)
    # The page's own objects: namespaces, Secrets, also that of cert-manager, a quota. What the release had is gone, and the bucket
    # is not.
    for block in LAST:
        operator.do(block)
    namespaces = (names["NAMESPACE"], names["TRAINING"])
    kept = {f"{namespace}/secret/darkroom-store" for namespace in namespaces} | {
        f"{names['NAMESPACE']}/secret/darkroom-tls",
        f"{names['TRAINING']}/resourcequota/gpus",
    }
    try:
        wait_until("nothing else is left", lambda: objects_in(operator.cluster, *namespaces) == kept, 120)
    except NotReady as error:
        error.add_note(f"left: {sorted(objects_in(operator.cluster, *namespaces))}")
        raise
    assert list(chart_users.store_as(operator.cluster, BUCKET).list_folders("models/")) == ["sd15-tiny"]


def check_output(operator: Operator) -> None:
    """What the commands printed is what the page says that they print."""
    assert "Phase:          Succeeded" in operator.output_of("helm test")
    assert len(operator.output_of("data.token")) == 40
    policy = json.loads(operator.output_of("{.data.captioner\\.json}'\n"))  # the block that only prints it
    assert policy["Statement"][0]["Resource"] == [f"arn:aws:s3:::{BUCKET}"]
    rights = operator.output_of("auth can-i")
    assert rights.count("jobs.batch") == 1
    assert (
        rights.count("[create get list watch delete patch]") + rights.count("[get list watch create delete patch]") == 1
    )
    assert "resourcequota/gpus created" in operator.output_of("create quota")
    assert "successfully rolled out" in operator.output_of("rollout restart")
    attached = " ".join(operator.output_of("mc admin").split())
    assert f"Attached Policies: [darkroom-captioner] To User: {operator.names['CAPTIONER_ACCESS_KEY']}" in attached
    # install, priority class, TLS, replicas: then the way back
    history = operator.output_of("helm history")
    assert [line.split()[0] for line in history.splitlines() if "\tdarkroom-" in line] == ["1", "2", "3", "4"]
    assert "Rollback was a success" in history
    pods = operator.output_of("kubectl logs --namespace")
    for service in SERVICES:
        assert f"darkroom-{service}-" in pods
    assert "trainer is ready" in pods
