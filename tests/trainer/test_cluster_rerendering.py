"""What is created for a run is what this service renders, whatever lies in the bucket."""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from artifacts.records import encode
from artifacts.store import ObjectStore
from jobs.execution import Execution, Gpu
from jobs.execution_file import read_execution
from jobs.render import render
from kubernetes.client import Configuration
from trainer.cluster.api import ClusterApi
from trainer.cluster.errors import RecordRefused
from trainer.cluster.keeper import Keeper
from trainer.cluster.live import DIGEST
from trainer.cluster.manifests import digest
from trainer.cluster.mirror import Mirror
from trainer.cluster.rerendering import differences, rendered_anew
from trainer.runs import Runs, RunState

from tests.jobs.test_execution_file import EVERYTHING
from tests.jobs.test_render import CLUSTER, SPEC

OURS = replace(CLUSTER, namespace="t", service_account_name="dreambooth")
FULL = read_execution(EVERYTHING, "e.yaml")


def pod(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["template"]["spec"]
    return found


def container(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod(job)["containers"][0]
    return found


def changed(path: str, value: Any) -> dict[str, Any]:
    """A record with one field of the pod, or of the container after "container.", set by somebody."""
    record = copy.deepcopy(render(SPEC, OURS))
    *parts, last = path.split(".")
    where = pod(record)
    for part in parts:
        where = container(record) if part == "container" else where.setdefault(part, {})
    where[last] = value
    return record


@pytest.mark.parametrize("execution", [OURS, FULL, Execution()], ids=["ours", "full", "least"])
def test_the_record_of_a_new_run_is_rendered_again_as_it_is(execution: Execution) -> None:
    record = json.loads(encode(render(SPEC, execution)))
    assert rendered_anew(SPEC, record, execution) == record
    assert differences(record, record) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("container.image", "registry.evil/miner:1"),
        ("container.command", ["sh", "-c", "env"]),
        ("container.env", [{"name": "LD_PRELOAD", "value": "/tmp/x.so"}]),
        ("serviceAccountName", "cluster-admin"),
        ("imagePullSecrets", [{"name": "other"}]),
        ("volumes", [{"name": "store", "secret": {"secretName": "database-password"}}]),
        ("runtimeClassName", "unconfined"),
    ],
)
def test_what_an_upgrade_may_change_comes_from_the_execution_alone(path: str, value: Any) -> None:
    assert rendered_anew(SPEC, changed(path, value), OURS) == render(SPEC, OURS)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("initContainers", [{"name": "x", "image": "y"}], "spec.template.spec.initContainers"),
        ("ephemeralContainers", [{"name": "x"}], "spec.template.spec.ephemeralContainers"),
        ("hostNetwork", True, "spec.template.spec.hostNetwork"),
        ("hostPID", True, "spec.template.spec.hostPID"),
        ("nodeName", "worker", "spec.template.spec.nodeName"),
        ("automountServiceAccountToken", True, "automountServiceAccountToken"),
        ("volumes", [{"name": "root", "hostPath": {"path": "/"}}], "volumes[root]"),
        ("volumes", [{"name": "tmp", "hostPath": {"path": "/"}}], "volumes[tmp]"),
        ("volumes", [{"name": "more", "secret": {"secretName": "database-password"}}], "volumes[more]"),
        ("securityContext.runAsUser", 0, "spec.template.spec.securityContext.runAsUser"),
        ("securityContext.runAsNonRoot", False, "securityContext.runAsNonRoot"),
        ("securityContext.seccompProfile", {"type": "Unconfined"}, "securityContext.seccompProfile"),
        ("container.envFrom", [{"secretRef": {"name": "s"}}], "containers[dreambooth].envFrom"),
        ("container.args", ["--evil"], "containers[dreambooth].args"),
        ("container.lifecycle", {"postStart": {"exec": {"command": ["x"]}}}, "containers[dreambooth].lifecycle"),
        ("container.securityContext", {"privileged": True}, "securityContext.privileged"),
        ("container.securityContext", {"capabilities": {"add": ["SYS_ADMIN"]}}, "securityContext.capabilities.add"),
    ],
)
def test_what_no_run_has_is_refused_by_its_path(path: str, value: Any, named: str) -> None:
    with pytest.raises(RecordRefused) as caught:
        rendered_anew(SPEC, changed(path, value), OURS)
    assert len(caught.value.fields) == 1
    assert caught.value.fields[0].endswith(named)
    assert caught.value.fields[0] in str(caught.value)


def test_every_field_that_no_run_has_is_named() -> None:
    record = changed("hostIPC", True)
    record["metadata"] |= {"namespace": "kube-system", "name": "run-other"}
    pod(record)["containers"].append({"name": "second", "image": "i"})
    container(record)["env"].append({"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}})
    with pytest.raises(RecordRefused) as caught:
        rendered_anew(SPEC, record, OURS)
    assert [each.rpartition(".")[2] for each in caught.value.fields] == [
        "name",
        "namespace",
        "hostIPC",
        "containers[second]",
        "valueFrom",
    ]


@pytest.mark.parametrize("value", [{"completions": 65}, {"completions": "many"}, {"template": None}])
def test_a_record_that_cannot_be_read_is_refused(value: dict[str, Any]) -> None:
    record = render(SPEC, replace(OURS, nodes=2))
    with pytest.raises(RecordRefused):
        rendered_anew(SPEC, {**record, "spec": {**record["spec"], **value}}, OURS)


def test_after_an_upgrade_the_run_has_the_new_image_and_its_own_number_of_processes() -> None:
    record = render(SPEC, replace(OURS, nodes=3, gpu=Gpu(enabled=True, count=2)))
    new = replace(OURS, image="registry.test/darkroom-dreambooth:2", nodes=1, gpu=Gpu(enabled=True, count=4))
    job = rendered_anew(SPEC, record, new)
    assert job == render(SPEC, replace(new, nodes=3, gpu=Gpu(enabled=True, count=2)))
    assert differences(record, job) == ["spec.template.spec.containers[dreambooth].image"]


class StandIn:
    """The part of a Kubernetes API that creating a Job asks for. made: what was posted."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if "/events" in self.path:
                    return self._answer(200, {"items": []})
                return self._answer(404, {"kind": "Status", "message": "not found"})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stand_in.made.append(body)
                about = {**body["metadata"], "uid": "u", "creationTimestamp": "2026-11-26T11:00:00Z"}
                self._answer(201, {**body, "metadata": about})

            def _answer(self, code: int, value: dict[str, Any]) -> None:
                data = json.dumps(value).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                """Nothing to print."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def cluster() -> Iterator[StandIn]:
    made = StandIn()
    yield made
    made.server.shutdown()
    made.server.server_close()


def keeper(runs: Runs, cluster: StandIn) -> Keeper:
    configuration = Configuration(host=f"http://127.0.0.1:{cluster.server.server_port}")
    configuration.retries = False
    api = ClusterApi(configuration, "t")
    return Keeper(runs, api, Mirror(api, "jobs", ""), Mirror(api, "pods", ""), OURS)


def test_the_keeper_creates_what_is_rendered_and_marks_it_as_that_of_the_record(
    store: ObjectStore, cluster: StandIn
) -> None:
    runs, record = Runs(store), changed("container.image", "registry.evil/miner:1")
    runs.create(SPEC, record)
    keeper(runs, cluster).tend(runs.state(SPEC))
    (made,) = cluster.made
    assert made["spec"] == render(SPEC, OURS)["spec"]
    assert made["metadata"]["annotations"][DIGEST] == digest(record)


def test_the_keeper_ends_a_run_whose_record_was_tampered_with(store: ObjectStore, cluster: StandIn) -> None:
    runs = Runs(store)
    runs.create(SPEC, changed("hostNetwork", True))
    keeper(runs, cluster).tend(runs.state(SPEC))
    run = runs.get(SPEC.name)
    assert cluster.made == []
    assert run.state == RunState.FAILED
    assert "spec.template.spec.hostNetwork" in run.error
    assert "no Job was created" in run.error
