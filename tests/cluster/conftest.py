"""The cluster for the tests of this folder. They are collected only where DARKROOM_E2E=1, which `make e2e` sets.

A cluster that is up already (`make cluster`) is used and left up; otherwise one is started and removed at the end.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from tests.cluster import node_images
from tests.cluster.harness import store
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.cluster import is_up, keep_logs

if os.environ.get("DARKROOM_E2E") != "1":
    collect_ignore_glob = ["*"]

_FAILED = pytest.StashKey[bool]()
_OUR_PYTHON = (sys.executable, "-m", "tests.cluster.harness")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts and removes clusters comes before the cluster that the other tests share."""
    items.sort(key=lambda item: "test_lifecycle" not in item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Remember whether a test failed, for `namespace`."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


def harness(*command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run a command of the harness as a person does."""
    done = subprocess.run([*_OUR_PYTHON, *command], capture_output=True, text=True, timeout=280)
    if check and done.returncode:
        pytest.fail(f"`{' '.join(command)}` of the harness ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The real cluster."""
    found = is_up()
    if not found:
        harness("up")
    yield Cluster()
    if request.session.testsfailed:
        print(f"\nLogs of the cluster: {keep_logs()}", file=sys.stderr)
    if not found:
        harness("down")


@pytest.fixture(scope="session")
def images_on_node(cluster: Cluster) -> Callable[[str], str]:
    """Call it with "trainer": `darkroom-trainer` is on the node then, as its sources are; returns the image's full name."""
    return cache(node_images.bring)


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own that enforces Pod Security `restricted`."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    with cluster.namespace(name) as made:
        yield made
        if request.node.stash.get(_FAILED, False):
            print(cluster.kubectl("get", "all,events", "--namespace", made, "--output", "wide"))
            print(cluster.kubectl("describe", "pods", "--namespace", made))


@pytest.fixture
def minio_port(cluster: Cluster) -> Iterator[int]:
    """A port of this machine that leads to the cluster's MinIO."""
    with cluster.port_forward(f"svc/{store.SERVICE}", store.PORT, store.NAMESPACE) as port:
        yield port
