"""The chart on the real cluster, as an operator installs it: two `restricted` namespaces, each service with credentials of
its own that allow what it does and nothing else, NetworkPolicies that are enforced. Photos to pictures: the training is a
Job that asks for a GPU.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from darkroom.trainer.v1 import session_pb2
from darkroom_cli.clients import connect
from darkroom_cli.connection import Connection
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from images.build import version
from tests.cluster import chart_dashboards, chart_network, chart_users
from tests.cluster.chart_demo import JobWatcher, demo
from tests.cluster.chart_prometheus import Prometheus, scraping
from tests.cluster.chart_release import SERVICES, Release, bring_all, is_ready, logs, room
from tests.cluster.chart_rights import as_account, rights
from tests.cluster.harness import policies
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.layout import NODE
from tests.helm.test_operators_page import table

pytestmark = pytest.mark.timeout(900)
KEPT: Final = Path(__file__).parents[2] / "out" / "cluster"
"""Pictures for a person to look at."""
POLICY_SECONDS: Final = 30
"""Until the policies of new pods are in force."""
EMPTY: Final = {
    # Nothing fails, and nobody goes away.
    "Failed calls by reason",
    "Images whose caller went away",
}


@pytest.fixture(scope="module")
def monitoring(cluster: Cluster) -> Iterator[str]:
    """The namespace that may scrape the metrics."""
    with cluster.namespace("monitoring") as made:
        yield made


@pytest.fixture(scope="module")
def release(
    cluster: Cluster, images_on_node: Callable[[str], str], monitoring: str, request: pytest.FixtureRequest
) -> Iterator[Release]:
    """One release for all tests of this file."""
    bring_all(images_on_node)
    with (
        policies.enforced(),
        room(cluster, "chart") as made,
        chart_users.restricted_users(cluster, made.bucket) as users,
    ):
        here = [user.secret for name, user in users.items() if name != "dreambooth"]
        cluster.apply(*here, namespace=made.namespace)
        cluster.apply(users["dreambooth"].secret, namespace=made.training)
        try:
            # There is no common Secret: a service that uses it by mistake does not start.
            cluster.kubectl("delete", "secret", "darkroom-store", "--namespace", made.namespace)
            cluster.kubectl("delete", "secret", "darkroom-store", "--namespace", made.training)
            made.install(*chart_users.settings(users), *chart_network.settings(monitoring))
            yield made
        finally:
            if request.session.testsfailed:
                print(made.kubectl("get", "all,events", "--output=wide"))
                print(cluster.kubectl("get", "all,events", "--namespace", made.training, "--output=wide"))


@pytest.fixture
def where(release: Release) -> Iterator[Connection]:
    """The services through `kubectl port-forward`."""
    with release.forwarded() as connection:
        yield connection


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Init containers first."""
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def test_all_pods_are_ready_from_our_images(release: Release) -> None:
    for namespace in (release.namespace, release.training):
        labels = release.cluster.get("namespace", namespace)["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = {pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod for pod in release.pods()}
    assert set(pods) == set(SERVICES)
    for name, pod in pods.items():
        assert is_ready(pod)
        assert pod["spec"]["nodeName"] == NODE
        images = [container["image"] for container in containers(pod)]
        with_models = name in ("captioner", "webui-engine", "webui-gateway")
        wanted = [f"localhost/darkroom-{each}:{version()}" for each in (["tools"] if with_models else []) + [name]]
        assert images == wanted
        statuses = [*pod["status"].get("initContainerStatuses", ()), *pod["status"]["containerStatuses"]]
        assert [status["restartCount"] for status in statuses] == [0] * len(images)


def test_processes_are_nobody_and_write_nowhere(release: Release) -> None:
    program = "import os; print(os.getuid(), os.getgid()); open('/opt/file', 'w')"
    for name in SERVICES:
        target = (
            f"statefulset/{release.fullname}-{name}"
            if name == "webui-engine"
            else f"deployment/{release.fullname}-{name}"
        )
        tried = f'python -c "{program}" 2>&1 || true; touch /tmp/file && ls /var/run/secrets/kubernetes.io 2>&1 || true'
        printed = release.kubectl("exec", target, f"--container={name}", "--", "sh", "-c", tried)
        assert printed.startswith("10001 10001\n")
        assert "Read-only file system: '/opt/file'" in printed
        assert printed.endswith("serviceaccount\n" if name == "trainer" else "No such file or directory\n")


def test_connections_come_about_along_the_documented_edges_and_no_others(release: Release, monitoring: str) -> None:
    with chart_network.scene(release, monitoring) as scene:
        wanted = scene.documented()
        assert {target for _, target, _ in wanted} == {*SERVICES, "dreambooth", "store", "dns", "api-server"}
        assert _in_the_end(scene.unreachable, []) == []
        assert _in_the_end(scene.edges, wanted) == wanted


def _in_the_end(look: Callable[[], Any], wanted: Any) -> Any:
    """What is there, once it is what is wanted: new pods are protected, and listen, some time after they have started."""
    deadline = time.monotonic() + POLICY_SECONDS
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(1)
    return found


def test_the_bucket_is_ready(release: Release) -> None:
    store = chart_users.store_as(release.cluster, release.bucket)
    assert list(store.list_folders("models/")) == ["sd15-tiny"]
    assert list(store.list_folders("controlnets/")) == ["controlnet-canny-tiny"]
    # The hook is gone; what it did is not done again.
    assert release.cluster.get("jobs", "--namespace", release.namespace)["items"] == []


@pytest.mark.parametrize("major", [3, 4])
def test_helm_test_gets_a_caption_and_a_picture(release: Release, major: int) -> None:
    here = ("--namespace", release.namespace, "--timeout=5m")
    # Helm 3 looks for the log of a test only after it has removed the pod.
    printed = release.cluster.helm("test", release.name, *here, *(["--logs"] if major == 4 else []), major=major)
    assert "Phase:          Succeeded" in printed
    if major == 4:
        assert "a large red circle" in printed
        assert "64 x 64 pixels" in printed


def test_calls_need_the_token(release: Release, where: Connection) -> None:
    request = session_pb2.ListSessionsRequest()
    with connect(where) as clients:
        assert list(clients.sessions.ListSessions(request).sessions) == []
    nobody = Connection(**{**vars(where), "token": "of somebody else"})
    with connect(nobody) as clients, pytest.raises(grpc.RpcError) as refused:
        clients.sessions.ListSessions(request)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    for target in (where.captioner, where.trainer, where.converter, where.webui):
        with grpc.insecure_channel(target) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_metrics_are_where_prometheus_looks(release: Release) -> None:
    for name in SERVICES:
        with release.cluster.port_forward(f"service/{release.fullname}-{name}", 9090, release.namespace) as port:
            page = subprocess.run(
                ["curl", "--fail", "--silent", f"http://127.0.0.1:{port}/metrics"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        assert "darkroom_" in page


def test_each_account_may_do_what_the_page_says_and_nothing_else(release: Release) -> None:
    documented = {row[0].strip("`"): set(row[1].split(", ")) for row in table("| resource | verbs |")}
    here, training = release.namespace, release.training
    accounts = [(here, f"{release.fullname}-{service}") for service in SERVICES]
    accounts += [(training, f"{release.fullname}-dreambooth"), (here, "default"), (training, "default")]
    for home, account in accounts:
        release.cluster.get("serviceaccount", account, "--namespace", home)
        for namespace in (here, training, "default", "kube-system"):
            trains = account == f"{release.fullname}-trainer" and namespace == training
            found = rights(release.cluster, account, home, namespace)
            assert found == (documented if trains else {}), f"{account} in {namespace}"


def test_the_account_of_training_reads_nothing(release: Release) -> None:
    account = f"{release.fullname}-dreambooth"
    for what in ("jobs", "pods", "secrets", "configmaps", "events", "serviceaccounts", "namespaces", "nodes"):
        for namespace in (release.training, release.namespace):
            asked = as_account(release.cluster, account, release.training, "get", what, "--namespace", namespace)
            assert asked.returncode == 1
            assert (
                f'User "system:serviceaccount:{release.training}:{account}" cannot list resource "{what}"'
                in asked.stderr
            )


def test_the_trainers_account_reads_jobs_but_no_secrets(release: Release) -> None:
    account, there = f"{release.fullname}-trainer", ("--namespace", release.training)
    assert as_account(release.cluster, account, release.namespace, "get", "jobs", *there).returncode == 0
    for verb, what in (("get", "secrets"), ("get", "configmaps"), ("delete", "pods"), ("get", "roles")):
        named = ["any"] if verb == "delete" else []
        asked = as_account(release.cluster, account, release.namespace, verb, what, *named, *there)
        assert "(Forbidden)" in asked.stderr
    elsewhere = as_account(release.cluster, account, release.namespace, "get", "jobs", "--namespace", release.namespace)
    assert "(Forbidden)" in elsewhere.stderr


@dataclass(frozen=True)
class Shown:
    """What the demo left behind."""

    report: dict[str, Any]
    jobs: JobWatcher
    prometheus: Prometheus
    sheet: Path


@pytest.fixture(scope="module")
def shown(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """The demo, once, with Prometheus looking on."""
    out = tmp_path_factory.mktemp("demo")
    with scraping(release, out) as prometheus, release.forwarded() as where:
        with JobWatcher(release) as jobs:
            try:
                report = demo(where, out)
            except AssertionError:
                print(logs(release, "trainer"))
                raise
        print(json.dumps(report, indent=1))
        yield Shown(report, jobs, prometheus, out / "contact-sheet.png")


def test_photos_become_pictures(shown: Shown) -> None:
    KEPT.mkdir(parents=True, exist_ok=True)
    shutil.copy(shown.sheet, KEPT)
    with Image.open(shown.sheet) as sheet:
        assert sheet.width > 900
        assert sheet.height > 600
    report = shown.report
    assert report["caption_accuracy"] >= 0.8
    assert report["conversion_digests_equal"] is True
    assert report["loss_last"] < report["loss_first"]
    assert report["subject_fidelity_after"] > report["subject_fidelity_before"] + 0.2


def test_the_training_was_a_job_that_asked_for_a_gpu(release: Release, shown: Shown) -> None:
    (job,), (pod,) = shown.jobs.jobs.values(), shown.jobs.pods.values()
    assert job["metadata"]["labels"]["darkroom.dev/session"] == shown.report["session"]
    (container,) = pod["spec"]["containers"]
    assert container["image"] == f"localhost/darkroom-dreambooth:{version()}"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "DARKROOM_DEVICE", "value": "cpu"} in container["env"]
    assert pod["spec"]["nodeName"] == NODE
    assert pod["spec"]["serviceAccountName"] == f"{release.fullname}-dreambooth"
    assert "No such file or directory" in shown.jobs.place_of_tokens


@pytest.mark.parametrize("name", chart_dashboards.names())
def test_every_panel_of_the_dashboards_shows_the_demo(release: Release, shown: Shown, name: str) -> None:
    assert shown.prometheus.targets() == [(service, "up") for service in sorted(SERVICES)]
    panels = chart_dashboards.panels(name, shown.prometheus, release.namespace)
    chart_dashboards.draw(f"Darkroom {name}, during the demo", panels, KEPT / f"dashboard-{name}.png")
    assert {panel.title for panel in panels if not panel.series} <= EMPTY
    memory = [panel for panel in panels if panel.title == "Memory of the processes"]
    assert [len(panel.series) for panel in memory] == ([len(SERVICES)] if name == "services" else [])
