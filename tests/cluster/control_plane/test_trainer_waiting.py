"""Why a run does not work yet, queues, several pods, and what the trainer asks of the API in all this."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from darkroom.trainer.v1 import training_pb2 as pb
from jobs.names import job_name
from trainer.config import TrainerConfig

from tests.cluster.control_plane.conftest import RULES
from tests.cluster.control_plane.kubelet import Kubelet
from tests.cluster.control_plane.plane import Plane, until
from tests.cluster.control_plane.trainers import job, run_until
from tests.trainer.conftest import Client, filled, order, reason, serving, until_message, watched


def executed(config: TrainerConfig, execution: dict[str, Any], **fields: Any) -> TrainerConfig:
    """The trainer with other fields in its execution.yaml."""
    Path(config.execution).write_text(yaml.safe_dump({**execution, **fields}))
    return config


async def pending(client: Client, name: str, words: str) -> pb.Run:
    """The run as soon as it says that it waits for this."""
    while True:
        run = await client.training.GetRun(pb.GetRunRequest(name=name))
        if words in run.pending_reason:
            return run
        await asyncio.sleep(0.1)


async def test_more_gpus_than_there_are(
    config: TrainerConfig, execution: dict[str, Any], photo: bytes, kubelet: Kubelet
) -> None:
    async with serving(executed(config, execution, gpu={"enabled": True, "count": 3})) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        waiting = await pending(client, run.name, "Insufficient nvidia.com/gpu")
        assert waiting.state == pb.RUN_STATE_PENDING
        assert "0/1 nodes are available" in waiting.pending_reason
        message = await until_message(client, run.name, "waiting:")
        # The scheduler tells it twice, in an event and in the pod's condition; either may be heard first.
        assert message.startswith("warning: waiting: ")
        assert "Insufficient nvidia.com/gpu" in message
        await client.training.CancelRun(pb.CancelRunRequest(name=run.name))
        done = (await watched(client, run.name))[-1].run
    assert (done.state, done.num_attempts, done.pending_reason) == (pb.RUN_STATE_CANCELLED, 0, "")


async def test_of_two_pods_one_finds_no_gpu(
    config: TrainerConfig, execution: dict[str, Any], photo: bytes, kubelet: Kubelet
) -> None:
    def placed() -> str:
        on_node = [pod["metadata"]["name"] for pod in kubelet.pods(name) if pod["spec"].get("nodeName")]
        return on_node[0] if on_node else ""

    async with serving(executed(config, execution, nodes=2, gpu={"enabled": True, "count": 2})) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        name = job_name(run.name)
        kubelet.run(str(await asyncio.to_thread(until, "one pod is on the node", placed)))
        # The scheduler tells it twice, in an event and in the pod's condition, which is what counts in the end.
        waiting = await pending(client, run.name, "no node for its pod: ")
        assert "Insufficient nvidia.com/gpu" in waiting.pending_reason
        await client.training.CancelRun(pb.CancelRunRequest(name=run.name))
        await watched(client, run.name)


async def test_an_image_that_cannot_be_pulled_until_the_deadline(
    config: TrainerConfig, execution: dict[str, Any], photo: bytes, kubelet: Kubelet
) -> None:
    async with serving(executed(config, execution, deadlineSeconds=6)) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        pod = await asyncio.to_thread(kubelet.placed, job_name(run.name))
        kubelet.wait(pod, "ImagePullBackOff", 'Back-off pulling image "nowhere"')
        waiting = await pending(client, run.name, "ImagePullBackOff")
        assert (
            waiting.pending_reason == 'its container cannot start: ImagePullBackOff: Back-off pulling image "nowhere"'
        )
        done = (await watched(client, run.name))[-1].run
    assert (done.state, done.num_attempts) == (pb.RUN_STATE_FAILED, 0)
    assert "not over within 6 s" in done.error
    assert 'Back-off pulling image "nowhere"' in done.error


async def test_a_quota_that_only_the_pods_meet(
    config: TrainerConfig, photo: bytes, plane: Plane, namespace: str, kubelet: Kubelet
) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    plane.apply(quota, namespace=namespace)
    path = f"/api/v1/namespaces/{namespace}/resourcequotas/none"
    until("the quota is counted", lambda: plane.ask("GET", path)["status"].get("used"))
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        waiting = await pending(client, run.name, "exceeded quota")
    assert waiting.pending_reason.startswith("FailedCreate: ")


async def test_a_queue_decides_when_a_run_works(
    config: TrainerConfig, execution: dict[str, Any], photo: bytes, plane: Plane, namespace: str, kubelet: Kubelet
) -> None:
    async with serving(executed(config, execution, queueName="gpus")) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs/{job_name(run.name)}"
        merge = "application/merge-patch+json"
        plane.ask("PATCH", path, {"spec": {"suspend": True}}, merge)  # as Kueue does
        waiting = await pending(client, run.name, "queue 'gpus'")
        assert waiting.state == pb.RUN_STATE_PENDING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.training.SuspendRun(pb.SuspendRunRequest(name=run.name))
        assert reason(caught.value) == "QUEUE_DECIDES"
        await client.training.ResumeRun(pb.ResumeRunRequest(name=run.name))
        assert job(plane, namespace, run.name)["spec"]["suspend"] is True
        plane.ask("PATCH", path, {"spec": {"suspend": False}}, merge)
        kubelet.run(await asyncio.to_thread(kubelet.placed, job_name(run.name)))
        assert (await run_until(client, run.name, "RUNNING")).pending_reason == ""


async def test_suspended_by_hand_and_resumed_by_the_service(
    config: TrainerConfig, photo: bytes, plane: Plane, namespace: str, kubelet: Kubelet
) -> None:
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs/{job_name(run.name)}"
        plane.ask("PATCH", path, {"spec": {"suspend": True}}, "application/merge-patch+json")
        assert (await run_until(client, run.name, "SUSPENDED")).pending_reason == ""
        await client.training.ResumeRun(pb.ResumeRunRequest(name=run.name))
        assert not job(plane, namespace, run.name)["spec"]["suspend"]
        await run_until(client, run.name, "PENDING")


async def test_everything_that_the_role_allows_is_needed_and_nothing_else(
    config: TrainerConfig, execution: dict[str, Any], photo: bytes, plane: Plane, namespace: str, kubelet: Kubelet
) -> None:
    async with serving(executed(config, execution, nodes=2)) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        name = job_name(run.name)
        service = plane.ask("GET", f"/api/v1/namespaces/{namespace}/services/{name}")
        assert service["metadata"]["ownerReferences"][0]["uid"] == job(plane, namespace, run.name)["metadata"]["uid"]
        await asyncio.to_thread(kubelet.placed, name, 2)
        for pod in kubelet.pods(name):
            kubelet.run(pod["metadata"]["name"])
        await run_until(client, run.name, "RUNNING")
        await client.training.SuspendRun(pb.SuspendRunRequest(name=run.name))
        await run_until(client, run.name, "SUSPENDED")
        await client.training.ResumeRun(pb.ResumeRunRequest(name=run.name))
        await asyncio.to_thread(kubelet.placed, name, 2)
        first, second = kubelet.pods(name)
        for pod in (first, second):
            kubelet.run(pod["metadata"]["name"])
        kubelet.end(second["metadata"]["name"], 66, "no base model")
        kubelet.end(first["metadata"]["name"], 76)
        done = (await watched(client, run.name))[-1].run
        assert (done.state, done.num_attempts) == (pb.RUN_STATE_FAILED, 2)
        assert "no base model" in done.error
        await client.training.ResumeRun(pb.ResumeRunRequest(name=run.name))
        await pending(client, run.name, "")
        await client.training.CancelRun(pb.CancelRunRequest(name=run.name))
        await watched(client, run.name)
    allowed = {(resource, verb) for rule in RULES for resource in rule["resources"] for verb in rule["verbs"]}
    assert plane.asked_by_trainers(namespace) == allowed
