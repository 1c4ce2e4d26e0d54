"""Jobs that somebody applied by hand, and Jobs that are gone before anybody looked."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import grpc
import pytest
from artifacts.checkpoints import Checkpoints
from artifacts.store import ObjectStore
from darkroom.trainer.v1 import training_pb2 as pb
from jobs.names import job_name
from jobs.render import render_all
from jobs.run_file import read_run
from trainer.config import TrainerConfig

from tests.cluster.control_plane.kubelet import Kubelet
from tests.cluster.control_plane.plane import Plane, until
from tests.cluster.control_plane.trainers import job, jobs, run_until
from tests.trainer.conftest import Client, filled, order, reason, serving, watched

RUN = "sessions/robot/runs/byhand"


@pytest.fixture
def applied(execution: dict[str, Any]) -> dict[str, Any]:
    """What `darkroom render` makes of a run file."""
    spec = {"session": "robot", "runId": "byhand", "baseModel": "sd15-tiny", "recipe": {"resolutionPx": 64}}
    file = {"apiVersion": "darkroom.dev/v1", "kind": "TrainingRun", "spec": {**spec, "execution": execution}}
    (rendered,) = render_all(*read_run(json.dumps(file), "run.yaml"))
    return rendered


async def listed(client: Client) -> list[str]:
    """Names of all runs."""
    answer = await client.training.ListRuns(pb.ListRunsRequest(parent="sessions/-"))
    return [run.name for run in answer.runs]


async def until_listed(client: Client, name: str) -> None:
    """Wait for an adoption."""
    while name not in await listed(client):
        await asyncio.sleep(0.1)


async def test_a_job_applied_by_hand_is_a_run_like_any_other(
    config: TrainerConfig,
    photo: bytes,
    plane: Plane,
    namespace: str,
    kubelet: Kubelet,
    applied: dict[str, Any],
    store: ObjectStore,
) -> None:
    async with serving(config) as one:
        await filled(one, photo)
        plane.apply(applied, namespace=namespace)
        await until_listed(one, RUN)
        pod = await asyncio.to_thread(kubelet.placed, job_name(RUN))
        kubelet.run(pod)
        run = await run_until(one, RUN, "RUNNING")
        created = job(plane, namespace, RUN)["metadata"]["creationTimestamp"]
        assert run.create_time.ToJsonString() == created
        record = json.loads(store.get(f"{RUN}/job.json"))
        assert record["metadata"]["annotations"]["darkroom.dev/owner"] == f"kubernetes/{namespace}"
        assert "selector" not in record["spec"]
    async with serving(config) as two:  # and after a restart it is still one
        assert await listed(two) == [RUN]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await two.training.CreateRun(order("sessions/robot", "hold"))
        assert reason(caught.value) == "RUN_ACTIVE"
        await two.training.CancelRun(pb.CancelRunRequest(name=RUN))
        done = (await watched(two, RUN))[-1].run
        assert (done.state, done.num_attempts, jobs(plane, namespace)) == (pb.RUN_STATE_CANCELLED, 1, [])
        await two.training.ResumeRun(pb.ResumeRunRequest(name=RUN))
        pod = await asyncio.to_thread(kubelet.placed, job_name(RUN))
        kubelet.run(pod)
        kubelet.end(pod, 65, "no picture")
        assert (await watched(two, RUN))[-1].run.state == pb.RUN_STATE_FAILED


async def test_applied_again_after_its_end_the_run_goes_on(
    config: TrainerConfig, photo: bytes, plane: Plane, namespace: str, kubelet: Kubelet, applied: dict[str, Any]
) -> None:
    async with serving(config) as client:
        await filled(client, photo)
        plane.apply(applied, namespace=namespace)
        pod = await asyncio.to_thread(kubelet.placed, job_name(RUN))
        kubelet.run(pod)
        kubelet.end(pod, 69)
        await until_listed(client, RUN)
        assert (await watched(client, RUN))[-1].run.state == pb.RUN_STATE_FAILED
        await asyncio.to_thread(plane.kubectl, "delete", "job", "--namespace", namespace, job_name(RUN))
        plane.apply(applied, namespace=namespace)
        pod = await asyncio.to_thread(kubelet.placed, job_name(RUN))
        kubelet.run(pod)
        await run_until(client, RUN, "RUNNING")
        kubelet.end(pod, 0)
        done = (await watched(client, RUN))[-1].run
    assert (done.state, done.num_attempts) == (pb.RUN_STATE_SUCCEEDED, 2)


async def test_a_job_that_ran_while_no_trainer_was_there(
    config: TrainerConfig, photo: bytes, plane: Plane, namespace: str, kubelet: Kubelet, applied: dict[str, Any]
) -> None:
    plane.apply(applied, namespace=namespace)
    pod = kubelet.placed(job_name(RUN))
    kubelet.run(pod)
    kubelet.end(pod, 0)
    async with serving(config) as client:
        await until_listed(client, RUN)
        done = (await watched(client, RUN))[-1].run
    assert (done.state, done.num_attempts) == (pb.RUN_STATE_SUCCEEDED, 1)


async def test_what_only_looks_like_a_run_is_left_alone(
    config: TrainerConfig, photo: bytes, plane: Plane, namespace: str, applied: dict[str, Any]
) -> None:
    empty = json.loads(json.dumps(applied))
    empty["metadata"]["name"] = "empty"
    empty["spec"]["template"]["spec"]["containers"][0]["env"] = []
    strange = json.loads(json.dumps(applied))
    strange["metadata"] |= {"name": "strange", "labels": {**applied["metadata"]["labels"], "darkroom.dev/run": "Up"}}
    plane.apply(empty, strange, namespace=namespace)
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold", run_id="first"))
        await asyncio.sleep(1)
        assert await listed(client) == [run.name]
    assert {each["metadata"]["name"] for each in jobs(plane, namespace)} == {"empty", "strange", job_name(run.name)}


@pytest.mark.parametrize("poll_seconds", [0.05, 10.0], ids=["looks often", "looks when the Job is gone"])
async def test_the_end_of_a_job_that_its_ttl_removes_at_once(
    config: TrainerConfig,
    photo: bytes,
    plane: Plane,
    namespace: str,
    kubelet: Kubelet,
    applied: dict[str, Any],
    poll_seconds: float,
) -> None:
    applied["spec"]["ttlSecondsAfterFinished"] = 1
    async with serving(replace(config, local=replace(config.local, poll_seconds=poll_seconds))) as client:
        await filled(client, photo)
        plane.apply(applied, namespace=namespace)
        pod = await asyncio.to_thread(kubelet.placed, job_name(RUN))
        kubelet.run(pod)
        await until_listed(client, RUN)
        kubelet.end(pod, 0)
        await asyncio.to_thread(until, "the Job is gone", lambda: not jobs(plane, namespace))
        done = await run_until(client, RUN, "SUCCEEDED", "FAILED")
        assert (done.state, done.num_attempts, done.exit_code) == (pb.RUN_STATE_SUCCEEDED, 1, 0)


@pytest.mark.parametrize("published", [True, False])
async def test_a_job_that_ended_and_went_while_no_trainer_was_there(
    config: TrainerConfig,
    photo: bytes,
    plane: Plane,
    namespace: str,
    kubelet: Kubelet,
    store: ObjectStore,
    published: bool,
) -> None:
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        pod = await asyncio.to_thread(kubelet.placed, job_name(run.name))
        kubelet.run(pod)
        await run_until(client, run.name, "RUNNING")
    if published:
        facts = {"format": "diffusers", "architecture": "sd15", "kind": "dreambooth", "precision": "fp32"}
        facts |= {"prediction_type": "epsilon", "resolution": 64, "base_model": "sd15-tiny"}
        with Checkpoints(store).begin(run.checkpoint.removeprefix("checkpoints/"), **facts) as writer:
            writer.add_bytes("unet.safetensors", b"unet")
            writer.publish({})
    plane.kubectl("delete", "job", "--namespace", namespace, job_name(run.name))
    async with serving(config) as client:
        done = (await watched(client, run.name))[-1].run
    assert done.state == (pb.RUN_STATE_SUCCEEDED if published else pb.RUN_STATE_FAILED)
    assert jobs(plane, namespace) == []
