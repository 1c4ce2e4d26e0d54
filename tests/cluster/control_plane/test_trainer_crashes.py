"""The trainer is killed, answers get lost, and several trainers work at once: never a lost, never a doubled Job."""

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from artifacts.store import ObjectStore
from chassis.client import channel
from chassis.testing import running
from darkroom.trainer.v1 import session_pb2 as session_pb
from darkroom.trainer.v1 import training_pb2 as pb
from darkroom.trainer.v1.session_pb2_grpc import SessionServiceStub
from darkroom.trainer.v1.training_pb2_grpc import TrainingServiceStub
from google.rpc import error_details_pb2
from grpc import StatusCode
from jobs.names import job_name
from trainer.cluster.api import ClusterApi
from trainer.cluster.manifests import to_create
from trainer.config import TrainerConfig
from trainer.server import build

from tests.cluster.control_plane.kubelet import Kubelet
from tests.cluster.control_plane.plane import Plane, until
from tests.cluster.control_plane.trainers import Counted, jobs, process, run_until
from tests.trainer.conftest import TOKEN, Client, detail, filled, order, reason, serving, until_message, watched


@pytest.fixture
def counted(plane: Plane, namespace: str) -> Iterator[Counted]:
    """All Jobs of the test."""
    with Counted(plane, namespace) as made:
        yield made


async def finished(client: Client, run: str, kubelet: Kubelet) -> pb.Run:
    """The run after its newest pod has done its work."""
    pod = await asyncio.to_thread(kubelet.placed, job_name(run))
    kubelet.run(pod)
    kubelet.end(pod, 0)
    return (await watched(client, run))[-1].run


@pytest.mark.parametrize("point", ["before-record", "before-create", "after-create"])
async def test_killed_while_creating(
    config: TrainerConfig, photo: bytes, kubelet: Kubelet, tmp_path: Path, counted: Counted, point: str
) -> None:
    async with process(config, tmp_path / "one", crash_at=point) as (client, service):
        request = order(await filled(client, photo), "hold", request_id="once")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.training.CreateRun(request)
        assert caught.value.code() == StatusCode.UNAVAILABLE
        assert await asyncio.to_thread(service.wait) == -signal.SIGKILL
    async with process(config, tmp_path / "two") as (client, _):
        if point != "before-record":  # accepted; goes on although nobody asks again
            await asyncio.to_thread(until, "there is a Job", lambda: counted.uids)
        run = await client.training.CreateRun(request)
        done = await finished(client, run.name, kubelet)
    assert (done.state, done.num_attempts) == (pb.RUN_STATE_SUCCEEDED, 1)
    assert len(counted.uids) == 1


async def test_killed_while_watching(
    config: TrainerConfig, photo: bytes, kubelet: Kubelet, tmp_path: Path, counted: Counted
) -> None:
    async with process(config, tmp_path / "one") as (client, service):
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        pod = await asyncio.to_thread(kubelet.placed, job_name(run.name))
        kubelet.run(pod)
        await run_until(client, run.name, "RUNNING")
        stream = client.training.WatchRun(pb.WatchRunRequest(name=run.name))
        assert (await anext(aiter(stream))).run.state == pb.RUN_STATE_RUNNING
        service.kill()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            _ = [event async for event in stream]
        assert caught.value.code() == StatusCode.UNAVAILABLE
    kubelet.end(pod, 0)
    async with process(config, tmp_path / "two") as (client, _):
        done = (await watched(client, run.name))[-1].run
    assert (done.state, done.num_attempts, len(counted.uids)) == (pb.RUN_STATE_SUCCEEDED, 1, 1)


async def test_killed_between_the_end_and_its_record(
    config: TrainerConfig, photo: bytes, kubelet: Kubelet, tmp_path: Path, counted: Counted
) -> None:
    async with process(config, tmp_path / "one", crash_at="before-recording") as (client, service):
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        pod = await asyncio.to_thread(kubelet.placed, job_name(run.name))
        kubelet.run(pod)
        await run_until(client, run.name, "RUNNING")
        kubelet.end(pod, 66, "there is no base model")
        assert await asyncio.to_thread(service.wait) == -signal.SIGKILL
    async with process(config, tmp_path / "two") as (client, _):
        done = (await watched(client, run.name))[-1].run
    assert (done.state, done.num_attempts, len(counted.uids)) == (pb.RUN_STATE_FAILED, 1, 1)
    assert done.error.startswith("there is no base model (exit code 66")


async def test_a_lost_reply_is_repeated(
    config: TrainerConfig, photo: bytes, kubelet: Kubelet, counted: Counted
) -> None:
    async with serving(config) as client:
        request = order(await filled(client, photo), "hold", request_id="once")
        names = {(await client.training.CreateRun(request)).name for _ in range(3)}
        assert len(names) == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.training.CreateRun(order("sessions/robot", "exit 0", request_id="once"))
        assert reason(caught.value) == "REQUEST_ID_REUSED"
        done = await finished(client, names.pop(), kubelet)
        assert (await client.training.CreateRun(request)).state == pb.RUN_STATE_SUCCEEDED
    assert (done.state, len(counted.uids)) == (pb.RUN_STATE_SUCCEEDED, 1)


async def test_two_trainers_get_the_same_request_at_once(
    config: TrainerConfig, photo: bytes, kubelet: Kubelet, counted: Counted
) -> None:
    async with serving(config) as one, serving(config) as two:
        request = order(await filled(one, photo), "hold", request_id="once")
        calls = [client.training.CreateRun(request) for client in (one, two) * 3]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        names = {answer.name for answer in answers if isinstance(answer, pb.Run)}
        assert len(names) == 1, answers
        name = names.pop()
        assert (await two.training.CreateRun(request)).name == name
        ends = await asyncio.gather(finished(one, name, kubelet), watched(two, name))
        assert ends[0] == ends[1][-1].run
        listed = await two.training.ListRuns(pb.ListRunsRequest(parent="sessions/-"))
        assert [run.name for run in listed.runs] == [name]
    assert (ends[0].state, ends[0].num_attempts, len(counted.uids)) == (pb.RUN_STATE_SUCCEEDED, 1, 1)


async def test_one_trainer_cancels_what_another_created(
    config: TrainerConfig, photo: bytes, kubelet: Kubelet, plane: Plane, namespace: str
) -> None:
    async with serving(config) as one, serving(config) as two:
        run = await one.training.CreateRun(order(await filled(one, photo), "hold"))
        kubelet.run(await asyncio.to_thread(kubelet.placed, job_name(run.name)))
        await two.training.CancelRun(pb.CancelRunRequest(name=run.name))
        assert (await watched(one, run.name))[-1].run.state == pb.RUN_STATE_CANCELLED
        await asyncio.sleep(1)
    assert jobs(plane, namespace) == []


async def test_the_api_server_is_away_for_a_while(
    config: TrainerConfig, photo: bytes, kubelet: Kubelet, plane: Plane
) -> None:
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        pod = await asyncio.to_thread(kubelet.placed, job_name(run.name))
        kubelet.run(pod)
        await run_until(client, run.name, "RUNNING")
        plane.stop_api_server()
        try:
            assert (await client.training.GetRun(pb.GetRunRequest(name=run.name))).state == pb.RUN_STATE_RUNNING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.training.CreateRun(order(await filled(client, photo, "other"), "hold"))
            assert (caught.value.code(), reason(caught.value)) == (StatusCode.UNAVAILABLE, "CLUSTER_UNAVAILABLE")
            assert detail(caught.value, error_details_pb2.RetryInfo).retry_delay.seconds == 2
            cancelling = await client.training.CancelRun(pb.CancelRunRequest(name=run.name))
            assert cancelling.state == pb.RUN_STATE_CANCELLING
            await asyncio.sleep(2)
        finally:
            await asyncio.to_thread(plane.start_api_server)
        assert (await watched(client, run.name))[-1].run.state == pb.RUN_STATE_CANCELLED
        again = await client.training.CreateRun(order("sessions/other", "hold"))
        done = await finished(client, again.name, kubelet)
    assert done.state == pb.RUN_STATE_SUCCEEDED


async def test_a_trainer_that_starts_while_the_api_server_is_away_waits_for_it(
    config: TrainerConfig, photo: bytes, kubelet: Kubelet, plane: Plane, tmp_path: Path
) -> None:
    plane.stop_api_server()
    try:
        server, trainer = build(config)
        async with running(server) as target, channel(target, TOKEN) as opened:
            loading = asyncio.create_task(trainer.load())
            await asyncio.sleep(1)
            assert not loading.done()
            await asyncio.to_thread(plane.start_api_server)
            await loading
            client = Client(SessionServiceStub(opened), TrainingServiceStub(opened), trainer, 0, config)
            run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
            assert (await finished(client, run.name, kubelet)).state == pb.RUN_STATE_SUCCEEDED
            await trainer.close()
    finally:
        if "kube-apiserver" not in plane.processes:
            await asyncio.to_thread(plane.start_api_server)


async def test_a_job_that_a_slow_trainer_creates_after_the_end_is_deleted(
    config: TrainerConfig, photo: bytes, kubelet: Kubelet, plane: Plane, namespace: str, store: ObjectStore
) -> None:
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        await client.training.CancelRun(pb.CancelRunRequest(name=run.name))
        assert (await watched(client, run.name))[-1].run.state == pb.RUN_STATE_CANCELLED
        manifest = json.loads(store.get(f"{run.name}/job.json"))
        late = ClusterApi.connect(namespace).create_job(to_create(manifest, manifest, 0, False))
        await asyncio.to_thread(until, "the late Job is gone", lambda: not jobs(plane, namespace))
        assert (await client.training.GetRun(pb.GetRunRequest(name=run.name))).state == pb.RUN_STATE_CANCELLED
        assert late["metadata"]["name"] == job_name(run.name)


async def test_a_strangers_job_of_the_same_name_is_waited_out(
    config: TrainerConfig, photo: bytes, kubelet: Kubelet, plane: Plane, namespace: str
) -> None:
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        await client.training.CancelRun(pb.CancelRunRequest(name=run.name))
        await watched(client, run.name)
        spec = {
            "suspend": True,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}},
        }
        stranger = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job_name(run.name)}, "spec": spec}
        plane.apply(stranger, namespace=namespace)
        await client.training.ResumeRun(pb.ResumeRunRequest(name=run.name))
        await until_message(client, run.name, "another Job is in the way")
        await asyncio.to_thread(plane.kubectl, "delete", "job", "--namespace", namespace, job_name(run.name))
        done = await finished(client, run.name, kubelet)
    assert (done.state, done.num_attempts) == (pb.RUN_STATE_SUCCEEDED, 1)


async def test_a_name_can_be_used_again_when_its_session_was_deleted(
    config: TrainerConfig, photo: bytes, kubelet: Kubelet, plane: Plane, namespace: str, counted: Counted
) -> None:
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold", run_id="first"))
        assert (await finished(client, run.name, kubelet)).state == pb.RUN_STATE_SUCCEEDED
        await client.sessions.DeleteSession(session_pb.DeleteSessionRequest(name="sessions/robot"))
    async with serving(config) as client:  # what is left of the Job does not bring the run back
        await asyncio.sleep(1)
        assert not (await client.training.ListRuns(pb.ListRunsRequest(parent="sessions/-"))).runs
        session = await filled(client, photo)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.training.CreateRun(order(session, "hold", run_id="first"))
        assert reason(caught.value) == "CLUSTER_UNAVAILABLE"
        await asyncio.to_thread(until, "the old Job is gone", lambda: not jobs(plane, namespace))
        again = await client.training.CreateRun(order(session, "hold", run_id="first"))
        assert again.checkpoint != run.checkpoint
        assert (await finished(client, again.name, kubelet)).state == pb.RUN_STATE_SUCCEEDED
    assert len(counted.uids) == 2
