"""The trainer as a process of its own: killed or stopped, and started again."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path

import grpc
import pytest
from artifacts.store import ObjectStore
from chassis.client import channel
from darkroom.trainer.v1 import session_pb2 as session_pb
from darkroom.trainer.v1 import training_pb2 as pb
from darkroom.trainer.v1.session_pb2_grpc import SessionServiceStub
from darkroom.trainer.v1.training_pb2_grpc import TrainingServiceStub
from trainer.config import TrainerConfig
from trainer.run_folder import started

from tests.trainer.conftest import TOKEN, Client, filled, order, reason, steps, until_message, watched


@asynccontextmanager
async def process(config: TrainerConfig, folder: Path) -> AsyncIterator[tuple[Client, "subprocess.Popen[bytes]"]]:
    """`python -m trainer`, ready; killed at the end if it still runs."""
    endpoint = folder / "endpoint.json"
    endpoint.unlink(missing_ok=True)
    settings = {
        field.metadata["env"]: str(getattr(part, field.name))
        for part in (config.store, config.local, config)
        for field in fields(part)
        if "env" in field.metadata
    }
    environment = {**os.environ, **settings, "DARKROOM_TOKEN": TOKEN, "DARKROOM_ENDPOINT_FILE": str(endpoint)}
    service = subprocess.Popen([sys.executable, "-m", "trainer"], env=environment)
    try:
        while not endpoint.exists():
            assert service.poll() is None
            await asyncio.sleep(0.02)
        async with channel(json.loads(endpoint.read_text())["grpc"], TOKEN) as opened:
            sessions, training = SessionServiceStub(opened), TrainingServiceStub(opened)
            yield Client(sessions, training, None, 0, config), service
    finally:
        service.kill()
        service.wait()


async def test_a_run_survives_kill_9_of_the_service(config: TrainerConfig, photo: bytes, tmp_path: Path) -> None:
    async with process(config, tmp_path) as (client, service):
        run = await client.training.CreateRun(order(await filled(client, photo), "steps 3, hold", "steps 5"))
        pid = int((await until_message(client, run.name, "holding as")).rsplit(" ", 1)[1])
        service.send_signal(signal.SIGKILL)
        service.wait()
    assert started(pid)
    async with process(config, tmp_path) as (client, service):
        listed = await client.training.ListRuns(pb.ListRunsRequest(parent="sessions/-"))
        assert [(found.name, found.num_attempts) for found in listed.runs] == [(run.name, 1)]
        os.kill(pid, signal.SIGKILL)
        events = await watched(client, run.name)
        assert steps(events) == [1, 2, 3, 4, 5]
        assert (events[-1].run.state, events[-1].run.num_attempts) == (pb.RUN_STATE_SUCCEEDED, 2)
        second = await client.training.CreateRun(order("sessions/robot", "hold"))
        pid = int((await until_message(client, second.name, "holding as")).rsplit(" ", 1)[1])
        service.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(service.wait) == 0
    assert not started(pid)


async def receive(exporting: AsyncIterable[session_pb.ExportSessionResponse], tar: bytearray) -> None:
    """Add to the tar what comes."""
    async for answer in exporting:
        tar += answer.data


async def test_archives_that_outlast_the_drain_go_on_at_the_next_service(
    config: TrainerConfig, photo: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_DRAIN_SECONDS", "0.5")
    tar = bytearray()
    async with process(config, tmp_path) as (client, service):
        request = session_pb.ExportSessionRequest(name=await filled(client, photo))
        ObjectStore(config.store).put("sessions/robot/instance_images/big.png", os.urandom(24 << 20))
        exporting = client.sessions.ExportSession(request)
        header = (await exporting.read()).header
        tar += (await exporting.read()).data
        importing = client.sessions.ImportSession()
        await importing.write(
            session_pb.ImportSessionRequest(header=session_pb.ImportHeader(session_id="copy", index_bytes=9))
        )
        service.send_signal(signal.SIGTERM)
        await asyncio.sleep(1)  # a slow reader
        with pytest.raises(grpc.aio.AioRpcError) as export_ended:
            await receive(exporting, tar)
        with pytest.raises(grpc.aio.AioRpcError) as import_ended:
            await importing.read()
        assert await asyncio.to_thread(service.wait) == 0
    for ended in (export_ended.value, import_ended.value):
        assert (ended.code(), reason(ended)) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert 0 < len(tar) < header.size_bytes
    async with process(config, tmp_path) as (client, _):
        rest = session_pb.ExportSessionRequest(name=request.name, offset=len(tar), etag=header.etag)
        await receive(client.sessions.ExportSession(rest), tar)
    assert len(tar) == header.size_bytes
