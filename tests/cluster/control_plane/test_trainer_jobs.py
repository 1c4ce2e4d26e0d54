"""Runs as Jobs against a real API server and the real Job controller; the test plays the node."""

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from artifacts.store import ObjectStore
from darkroom.trainer.v1 import training_pb2 as pb
from google.rpc import error_details_pb2
from grpc import StatusCode
from jobs.names import job_name
from trainer.config import TrainerConfig

from tests.cluster.control_plane.kubelet import Kubelet
from tests.cluster.control_plane.plane import Plane, until
from tests.cluster.control_plane.trainers import job, jobs, run_until
from tests.trainer.conftest import detail, filled, order, reason, serving, watched


async def test_a_run_from_its_order_to_its_end(
    config: TrainerConfig, photo: bytes, plane: Plane, namespace: str, kubelet: Kubelet, store: ObjectStore
) -> None:
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold", run_id="first"))
        assert run.state == pb.RUN_STATE_PENDING
        made = job(plane, namespace, run.name)
        assert made["spec"]["template"]["spec"]["containers"][0]["image"].endswith("dreambooth:0.1.0")
        pod = await asyncio.to_thread(kubelet.placed, job_name(run.name))
        kubelet.run(pod)
        running = await run_until(client, run.name, "RUNNING")
        assert (running.num_attempts, running.pending_reason) == (1, "")
        kubelet.end(pod, 0)
        done = (await watched(client, run.name))[-1].run
    assert (done.state, done.num_attempts, done.exit_code, done.error) == (pb.RUN_STATE_SUCCEEDED, 1, 0, "")
    status = json.loads(store.get(f"{run.name}/status.json"))
    assert (status["jobUid"], status["attempts"][0]["pod"]) == (made["metadata"]["uid"], pod)
    assert status["conditions"][0]["type"] == "Complete"


async def test_wrong_input_ends_the_run_at_once_and_says_why(
    config: TrainerConfig, photo: bytes, kubelet: Kubelet
) -> None:
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        pod = await asyncio.to_thread(kubelet.placed, job_name(run.name))
        kubelet.run(pod)
        kubelet.end(pod, 65, "Traceback ...\nthe image one.png is no picture\n")
        done = (await watched(client, run.name))[-1].run
    assert (done.state, done.num_attempts, done.exit_code) == (pb.RUN_STATE_FAILED, 1, 65)
    assert done.error == "the image one.png is no picture (exit code 65: the input is wrong)"


async def test_out_of_memory_and_eviction_are_told_apart(
    config: TrainerConfig, execution: dict[str, Any], photo: bytes, kubelet: Kubelet, store: ObjectStore
) -> None:
    execution["backoffLimit"] = 0
    Path(config.execution).write_text(yaml.safe_dump(execution))
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        first = await asyncio.to_thread(kubelet.placed, job_name(run.name))
        kubelet.run(first)
        await run_until(client, run.name, "RUNNING")
        kubelet.disrupt(first)
        kubelet.end(first, 143)
        second = await asyncio.to_thread(kubelet.placed, job_name(run.name), 2)
        kubelet.run(second)
        kubelet.end(second, 137, reason="OOMKilled")
        done = (await watched(client, run.name))[-1].run
    assert (done.state, done.num_attempts, done.exit_code) == (pb.RUN_STATE_FAILED, 2, 137)
    assert "attempt 1 of at most 1 failed" in done.error
    assert "OOMKilled, it needed more memory than its limit of 1Gi" in done.error
    attempts = json.loads(store.get(f"{run.name}/status.json"))["attempts"]
    assert [attempt["counted"] for attempt in attempts] == [False, True]
    assert "EvictionByEvictionAPI" in attempts[0]["error"]


async def test_cancel_deletes_the_job_and_its_pods(
    config: TrainerConfig, photo: bytes, plane: Plane, namespace: str, kubelet: Kubelet
) -> None:
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        pod = await asyncio.to_thread(kubelet.placed, job_name(run.name))
        kubelet.run(pod)
        await run_until(client, run.name, "RUNNING")
        cancelling = await client.training.CancelRun(pb.CancelRunRequest(name=run.name))
        assert cancelling.state in (pb.RUN_STATE_CANCELLING, pb.RUN_STATE_CANCELLED)
        done = (await watched(client, run.name))[-1].run
        assert (done.state, done.num_attempts) == (pb.RUN_STATE_CANCELLED, 1)
        assert (jobs(plane, namespace), kubelet.pods(job_name(run.name))) == ([], [])
        again = await client.training.ResumeRun(pb.ResumeRunRequest(name=run.name, accept_inexact=True))
        assert again.state in (pb.RUN_STATE_PENDING, pb.RUN_STATE_RUNNING)
        pod = await asyncio.to_thread(kubelet.placed, job_name(run.name))
        environment = job(plane, namespace, run.name)["spec"]["template"]["spec"]["containers"][0]["env"]
        assert {"name": "DARKROOM_ACCEPT_INEXACT", "value": "true"} in environment
        kubelet.run(pod)
        kubelet.end(pod, 0)
        done = (await watched(client, run.name))[-1].run
        assert (done.state, done.num_attempts, len(jobs(plane, namespace))) == (pb.RUN_STATE_SUCCEEDED, 2, 1)


async def test_a_failed_run_is_resumed_by_a_new_job_of_the_same_name(
    config: TrainerConfig, photo: bytes, plane: Plane, namespace: str, kubelet: Kubelet
) -> None:
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        old = job(plane, namespace, run.name)["metadata"]["uid"]
        pod = await asyncio.to_thread(kubelet.placed, job_name(run.name))
        kubelet.run(pod)
        kubelet.end(pod, 69)
        assert (await watched(client, run.name))[-1].run.state == pb.RUN_STATE_FAILED
        await client.training.ResumeRun(pb.ResumeRunRequest(name=run.name))

        def is_new() -> bool:
            return [each["metadata"]["uid"] for each in jobs(plane, namespace)] not in ([], [old])

        await asyncio.to_thread(until, "the new Job is there", is_new)
        pod = await asyncio.to_thread(kubelet.placed, job_name(run.name))
        kubelet.run(pod)
        kubelet.end(pod, 0)
        done = (await watched(client, run.name))[-1].run
    assert (done.state, done.num_attempts, len(jobs(plane, namespace))) == (pb.RUN_STATE_SUCCEEDED, 2, 1)


async def test_what_somebody_wrote_into_the_bucket_makes_no_pod(
    config: TrainerConfig, photo: bytes, plane: Plane, namespace: str, kubelet: Kubelet, store: ObjectStore
) -> None:
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        image = job(plane, namespace, run.name)["spec"]["template"]["spec"]["containers"][0]["image"]
        pod = await asyncio.to_thread(kubelet.placed, job_name(run.name))
        kubelet.run(pod)
        kubelet.end(pod, 69)
        await watched(client, run.name)
        await asyncio.to_thread(plane.kubectl, "delete", "job", "--namespace", namespace, job_name(run.name))
        record = json.loads(store.get(f"{run.name}/job.json"))
        record["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example/other:1"
        store.put(f"{run.name}/job.json", json.dumps(record).encode())
        await client.training.ResumeRun(pb.ResumeRunRequest(name=run.name))
        pod = await asyncio.to_thread(kubelet.placed, job_name(run.name))
        assert job(plane, namespace, run.name)["spec"]["template"]["spec"]["containers"][0]["image"] == image
        kubelet.run(pod)
        kubelet.end(pod, 69)
        await watched(client, run.name)
        await asyncio.to_thread(plane.kubectl, "delete", "job", "--namespace", namespace, job_name(run.name))
        record["spec"]["template"]["spec"]["hostNetwork"] = True
        store.put(f"{run.name}/job.json", json.dumps(record).encode())
        await client.training.ResumeRun(pb.ResumeRunRequest(name=run.name))
        done = (await watched(client, run.name))[-1].run
        assert done.state == pb.RUN_STATE_FAILED
        assert "spec.template.spec.hostNetwork" in done.error
        assert jobs(plane, namespace) == []


async def test_suspend_and_resume(
    config: TrainerConfig, photo: bytes, plane: Plane, namespace: str, kubelet: Kubelet
) -> None:
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        uid = job(plane, namespace, run.name)["metadata"]["uid"]
        pod = await asyncio.to_thread(kubelet.placed, job_name(run.name))
        kubelet.run(pod)
        await run_until(client, run.name, "RUNNING")
        await client.training.SuspendRun(pb.SuspendRunRequest(name=run.name))
        suspended = await run_until(client, run.name, "SUSPENDED")
        assert suspended.num_attempts == 1
        assert job(plane, namespace, run.name)["spec"]["suspend"] is True
        await asyncio.to_thread(until, "the pod is gone", lambda: not kubelet.pods(job_name(run.name)))
        await client.training.ResumeRun(pb.ResumeRunRequest(name=run.name))
        pod = await asyncio.to_thread(kubelet.placed, job_name(run.name))
        kubelet.run(pod)
        kubelet.end(pod, 0)
        done = (await watched(client, run.name))[-1].run
        assert (done.state, done.num_attempts) == (pb.RUN_STATE_SUCCEEDED, 2)
        assert job(plane, namespace, run.name)["metadata"]["uid"] == uid
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.training.SuspendRun(pb.SuspendRunRequest(name=run.name))
        assert reason(caught.value) == "RUN_FINISHED"


async def test_a_job_deleted_by_hand_ends_the_run_with_a_sentence(
    config: TrainerConfig, photo: bytes, plane: Plane, namespace: str, kubelet: Kubelet
) -> None:
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        kubelet.run(await asyncio.to_thread(kubelet.placed, job_name(run.name)))
        await run_until(client, run.name, "RUNNING")
        await asyncio.to_thread(plane.kubectl, "delete", "job", "--namespace", namespace, job_name(run.name))
        done = (await watched(client, run.name))[-1].run
        assert done.state == pb.RUN_STATE_FAILED
        assert f"its Job {job_name(run.name)} was deleted" in done.error
        await asyncio.sleep(1)
        assert jobs(plane, namespace) == []


class TestRefusals:
    """What the API server would refuse, CreateRun says before the run is accepted."""

    async def test_a_full_quota(
        self, config: TrainerConfig, photo: bytes, plane: Plane, namespace: str, store: ObjectStore
    ) -> None:
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
        plane.apply({**quota, "spec": {"hard": {"count/jobs.batch": "0"}}}, namespace=namespace)
        path = f"/api/v1/namespaces/{namespace}/resourcequotas/none"
        until("the quota is counted", lambda: plane.ask("GET", path)["status"].get("used"))
        async with serving(config) as client:
            session = await filled(client, photo)
            code, why, text = await refused(client, session)
            assert (code, why) == (StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
            assert "count/jobs.batch=1" in text
            assert not list(store.list(f"{session}/runs/"))
            plane.kubectl("delete", "resourcequota", "none", "--namespace", namespace)
            assert (await client.training.CreateRun(order(session))).state == pb.RUN_STATE_PENDING

    async def test_a_missing_permission(
        self, config: TrainerConfig, photo: bytes, plane: Plane, namespace: str
    ) -> None:
        async with serving(config) as client:
            session = await filled(client, photo)
            plane.kubectl("delete", "rolebinding", "t", "--namespace", namespace)
            code, why, text = await refused(client, session)
        assert (code, why) == (StatusCode.PERMISSION_DENIED, "CLUSTER_FORBIDDEN")
        assert "cannot create resource" in text

    async def test_a_field_that_the_cluster_does_not_accept(
        self, config: TrainerConfig, execution: dict[str, Any], photo: bytes
    ) -> None:
        execution["tolerations"] = [{"key": "x", "operator": "Exists", "value": "must not be here"}]
        Path(config.execution).write_text(yaml.safe_dump(execution))
        async with serving(config) as client:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.training.CreateRun(order(await filled(client, photo)))
        assert caught.value.code() == StatusCode.INVALID_ARGUMENT
        (violation,) = detail(caught.value, error_details_pb2.BadRequest).field_violations
        assert violation.field.startswith("job.spec.template.spec.tolerations[")

    async def test_a_policy(
        self, config: TrainerConfig, photo: bytes, plane: Plane, namespace: str, kubelet: Kubelet
    ) -> None:
        rules = [{"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}]
        policy = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": namespace},
            "spec": {
                "matchConstraints": {
                    "resourceRules": rules,
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                },
                "validations": [{"expression": "'cost-center' in object.metadata.labels", "message": "no cost center"}],
            },
        }
        binding = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": namespace},
            "spec": {"policyName": namespace, "validationActions": ["Deny"]},
        }
        plane.apply(policy, binding, namespace=namespace)
        async with serving(config) as client:
            session = await filled(client, photo)
            for _ in range(100):  # the API server needs a moment to know its new policy
                code, why, text = await refused(client, session)
                if why == "JOB_REFUSED":
                    break
                await asyncio.sleep(0.2)
        assert (code, why) == (StatusCode.FAILED_PRECONDITION, "JOB_REFUSED")
        assert "no cost center" in text

    async def test_a_name_that_another_job_has(
        self, config: TrainerConfig, photo: bytes, plane: Plane, namespace: str
    ) -> None:
        name = job_name("sessions/robot/runs/first")
        container = {"name": "c", "image": "i"}
        spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
        plane.apply(
            {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}, namespace=namespace
        )
        async with serving(config) as client:
            code, why, text = await refused(client, await filled(client, photo), run_id="first")
        assert (code, why) == (StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
        assert name in text


async def refused(client: Any, session: str, **fields: str) -> tuple[StatusCode, str, str]:
    """How CreateRun is refused; what was created by mistake is cancelled."""
    try:
        run = await client.training.CreateRun(order(session, **fields))
    except grpc.aio.AioRpcError as error:
        return error.code(), reason(error), error.details() or ""
    await client.training.CancelRun(pb.CancelRunRequest(name=run.name))
    await watched(client, run.name)
    return StatusCode.OK, "", ""
