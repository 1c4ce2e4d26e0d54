"""The trainer is killed, answers get lost, and several trainers work at once: never a lost, never a doubled Job."""

import asyncio
import signal
from pathlib import Path

import grpc
import pytest
from darkroom.trainer.v1 import training_pb2 as pb
from google.rpc import error_details_pb2
from grpc import StatusCode
from jobs.names import job_name
from trainer.config import TrainerConfig

from tests.cluster.control_plane.kubelet import Kubelet
from tests.cluster.control_plane.plane import Plane, until
from tests.cluster.control_plane.trainers import Counted, jobs, process, run_until
from tests.trainer.conftest import Client, detail, filled, order, reason, serving, watched


@pytest.fixture
def counted(plane: Plane, namespace: str):  # type: ignore[no-untyped-def]
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
