"""Upgrade, rollback and removal of a release while a training runs; two releases side by side."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from artifacts.checkpoints import Checkpoints
from darkroom.trainer.v1 import session_pb2, training_pb2
from darkroom_cli.clients import connect
from darkroom_cli.connection import Connection

from images.build import version
from tests.cluster import chart_previous, chart_users
from tests.cluster.chart_previous import PREVIOUS
from tests.cluster.chart_release import SERVICES, Release, bring_all, is_ready, objects_in, room
from tests.cluster.chart_training import Running, fill_session, start_run
from tests.cluster.harness.client import Cluster, CommandError
from tests.cluster.harness.processes import NotReady, wait_until

pytestmark = pytest.mark.timeout(900)
STEPS = 500
"""Long enough for an upgrade and a rollback meanwhile."""


@pytest.fixture(scope="module", autouse=True)
def images(images_on_node: Callable[[str], str]) -> None:
    bring_all(images_on_node)
    chart_previous.tag_images()


@pytest.fixture
def release(cluster: Cluster) -> Iterator[Release]:
    """Room for a release; its bucket is removed at the end."""
    with room(cluster, "chart-upgrade") as made:
        yield made
        chart_users.remove_bucket(cluster, made.bucket)


def tags(release: Release) -> dict[str, set[str]]:
    """Tags of the images of each service's pods."""
    found: dict[str, set[str]] = {}
    for pod in release.pods():
        containers = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
        name = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        found.setdefault(name, set()).update(each["image"].rpartition(":")[2] for each in containers)
    return found


def identity(pod: dict[str, Any]) -> tuple[str, int, str]:
    """What changes when a pod is disturbed."""
    (status,) = pod["status"]["containerStatuses"]
    return pod["metadata"]["uid"], status["restartCount"], status.get("containerID", "")


def test_upgrade_rollback_uninstall_while_a_training_runs(release: Release) -> None:
    before = objects_in(release.cluster, release.namespace, release.training)
    release.install(chart=chart_previous.CHART)
    assert tags(release) == {name: {PREVIOUS} for name in SERVICES}
    with release.forwarded() as where, connect(where) as clients:
        token = where.token
        fill_session(clients, "pip")
        run = Running(release, start_run(clients, "pip", STEPS, batch_size=4))
    begun = run.wait("it trains", lambda seen: seen.progress.stage == training_pb2.STAGE_UNET)
    pod = identity(run.pod())

    release.upgrade()
    assert tags(release) == {name: {version()} for name in SERVICES}
    upgraded = goes_on(run, begun, pod)
    assert token_now(release) == token

    release.helm("rollback", "1", "--wait", "--timeout=8m")
    assert tags(release) == {name: {PREVIOUS} for name in SERVICES}
    goes_on(run, upgraded, pod)
    assert token_now(release) == token
    history = release.helm("history")
    assert [line.split()[0] for line in history.splitlines()[1:]] == ["1", "2", "3"]

    ended = run.wait(
        "it ends", lambda seen: seen.state not in (training_pb2.RUN_STATE_PENDING, training_pb2.RUN_STATE_RUNNING)
    )
    assert ended.state == training_pb2.RUN_STATE_SUCCEEDED, ended.error
    assert ended.num_attempts == 1
    assert identity(run.pod()) == pod

    release.helm("uninstall", "--wait", "--timeout=5m")
    check_what_is_left(release, before, ended)


def goes_on(run: Running, before: training_pb2.Run, pod: tuple[str, int, str]) -> training_pb2.Run:
    """The new trainer sees the same training make steps, in the same container; returns what it tells."""
    now = run.look()
    assert now.state == training_pb2.RUN_STATE_RUNNING, "too few steps for this machine, or disturbed"
    assert identity(run.pod()) == pod
    return run.wait("more steps", lambda seen: seen.progress.step > max(now.progress.step, before.progress.step))


def token_now(release: Release) -> str:
    """The token as the cluster has it now."""
    return Release(release.cluster, release.name, release.namespace, release.training, release.bucket).token


def check_what_is_left(release: Release, before: set[str], run: training_pb2.Run) -> None:
    """The finished Job stays until its time is over, and the data in the bucket; nothing else."""
    left: set[str] = set()

    def few_left() -> bool:
        left.clear()
        left.update(objects_in(release.cluster, release.namespace, release.training) - before)
        return len(left) == 2

    try:
        wait_until("the last pods of the services have ended", few_left, 120)
    except NotReady as error:
        error.add_note(f"left: {sorted(left)}")
        raise
    jobs = release.cluster.get("jobs", "--namespace", release.training)["items"]
    assert [job["metadata"]["labels"]["darkroom.dev/session"] for job in jobs] == ["pip"]
    assert jobs[0]["spec"]["ttlSecondsAfterFinished"] == 86400
    assert sorted(name.split("/")[1] for name in left) == ["job.batch", "pod"]
    store = chart_users.store_as(release.cluster, release.bucket)
    Checkpoints(store).verify(run.checkpoint.partition("/")[2])
    assert list(store.list_folders("models/")) == ["sd15-tiny"]


def test_two_releases_of_one_name_in_two_namespaces(cluster: Cluster) -> None:
    """One by Helm 4, one by Helm 3. Each has its own token and bucket; removing one does not touch the other."""
    with room(cluster, "chart-one") as one, room(cluster, "chart-two", major=3) as two:
        try:
            one.install()
            two.install()
            with one.forwarded() as where, connect(where) as clients:
                fill_session(clients, "of-one")
            with two.forwarded() as other, connect(other) as clients:
                assert not clients.sessions.ListSessions(session_pb2.ListSessionsRequest()).sessions
            with one.forwarded() as where, connect(Connection(**{**vars(where), "token": two.token})) as clients:
                with pytest.raises(grpc.RpcError) as refused:
                    clients.sessions.ListSessions(session_pb2.ListSessionsRequest())
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            two.helm("uninstall", "--wait")
            with pytest.raises(CommandError, match="not found"):
                two.helm("status")
            assert all(map(is_ready, one.pods()))
            assert len(one.pods()) == len(SERVICES)
            with one.forwarded() as where, connect(where) as clients:
                assert len(clients.sessions.ListSessions(session_pb2.ListSessionsRequest()).sessions) == 1
        finally:
            chart_users.remove_bucket(cluster, one.bucket)
            chart_users.remove_bucket(cluster, two.bucket)
