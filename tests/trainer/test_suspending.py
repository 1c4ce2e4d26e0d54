"""Runs of one machine that are paused: they stay stopped, also over a restart of the service, until they are resumed."""

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from darkroom.trainer.v1 import training_pb2 as pb
from grpc import StatusCode
from trainer.config import TrainerConfig
from trainer.run_folder import RunFolder, started

from tests.trainer.conftest import Client, filled, order, reason, serving, steps, until_message, watched


async def suspended(client: Client, name: str) -> pb.Run:
    """The run once it has stopped."""
    await client.training.SuspendRun(pb.SuspendRunRequest(name=name))
    async for event in client.training.WatchRun(pb.WatchRunRequest(name=name)):
        if event.run.state == pb.RUN_STATE_SUSPENDED:
            return event.run
    raise AssertionError(f"{name} is over and never was suspended")


async def held(client: Client, name: str) -> int:
    """Process id of a program that holds."""
    return int((await until_message(client, name, "holding as")).rsplit(" ", 1)[1])


async def test_a_suspended_run_stays_stopped_until_it_is_resumed(config: TrainerConfig, photo: bytes) -> None:
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "steps 2, hold", "steps 5"))
        pid = await held(client, run.name)
        stopped = await suspended(client, run.name)
        assert (stopped.num_attempts, stopped.exit_code, started(pid)) == (1, 143, "")
        again = await client.training.SuspendRun(pb.SuspendRunRequest(name=run.name))
        assert again.state == pb.RUN_STATE_SUSPENDED
    async with serving(config) as client:
        folder = RunFolder.of(config.local.state_dir, run.name)
        for _ in range(10):
            assert not folder.locked()
            await asyncio.sleep(0.05)
        assert (await client.training.GetRun(pb.GetRunRequest(name=run.name))).state == pb.RUN_STATE_SUSPENDED
        resumed = await client.training.ResumeRun(pb.ResumeRunRequest(name=run.name))
        assert resumed.state == pb.RUN_STATE_RUNNING
        events = await watched(client, run.name)
    assert (events[-1].run.state, events[-1].run.num_attempts) == (pb.RUN_STATE_SUCCEEDED, 2)
    assert steps(events) == [1, 2, 3, 4, 5]


async def test_resumed_before_it_has_stopped_it_goes_on(client: Client, session: str) -> None:
    run = await client.training.CreateRun(order(session, "steps 2, hold", "steps 5"))
    await held(client, run.name)
    await client.training.SuspendRun(pb.SuspendRunRequest(name=run.name))
    await client.training.ResumeRun(pb.ResumeRunRequest(name=run.name))
    assert (await client.training.GetRun(pb.GetRunRequest(name=run.name))).state == pb.RUN_STATE_RUNNING
    await client.training.CancelRun(pb.CancelRunRequest(name=run.name))
    assert (await watched(client, run.name))[-1].run.state == pb.RUN_STATE_CANCELLED


async def test_a_suspended_run_keeps_its_session_and_can_be_cancelled(client: Client, session: str) -> None:
    run = await client.training.CreateRun(order(session, "hold"))
    await held(client, run.name)
    await suspended(client, run.name)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.training.CreateRun(order(session, "exit 0"))
    assert reason(caught.value) == "RUN_ACTIVE"
    await client.training.CancelRun(pb.CancelRunRequest(name=run.name))
    done = (await watched(client, run.name))[-1].run
    assert (done.state, done.num_attempts) == (pb.RUN_STATE_CANCELLED, 1)
    for call in (
        client.training.SuspendRun(pb.SuspendRunRequest(name=run.name)),
        client.training.SuspendRun(pb.SuspendRunRequest(name=f"{session}/runs/nothing")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() in (StatusCode.FAILED_PRECONDITION, StatusCode.NOT_FOUND)


async def test_suspending_counts_no_failure(config: TrainerConfig, photo: bytes) -> None:
    plan = ("hold", "hold", "steps 5")
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), *plan))
        for number in (1, 2):
            await until_message(client, run.name, "holding as", number)
            await suspended(client, run.name)
            await client.training.ResumeRun(pb.ResumeRunRequest(name=run.name))
        done = (await watched(client, run.name))[-1].run
    assert (done.state, done.num_attempts) == (pb.RUN_STATE_SUCCEEDED, 3)


async def test_a_run_of_another_machine_is_not_suspended(config: TrainerConfig, photo: bytes, tmp_path: Path) -> None:
    other = replace(config, local=replace(config.local, state_dir=tmp_path / "other"))
    async with serving(config) as client, serving(other) as stranger:
        run = await client.training.CreateRun(order(await filled(client, photo), "hold"))
        for call in ("SuspendRun", "ResumeRun"):
            request = getattr(pb, f"{call}Request")(name=run.name)
            if call == "ResumeRun":
                await held(client, run.name)
                await suspended(client, run.name)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await getattr(stranger.training, call)(request)
            assert reason(caught.value) == "RUN_ELSEWHERE"
