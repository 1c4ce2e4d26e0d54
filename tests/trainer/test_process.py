"""The trainer as a process of its own: killed and started again, and with the real training program."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from artifacts.checkpoints import Checkpoints
from artifacts.store import ObjectStore
from chassis.client import channel
from darkroom.trainer.v1 import session_pb2 as session_pb
from darkroom.trainer.v1 import training_pb2 as pb
from darkroom.trainer.v1.session_pb2_grpc import SessionServiceStub
from darkroom.trainer.v1.training_pb2_grpc import TrainingServiceStub
from PIL import Image, ImageDraw
from trainer.config import TrainerConfig
from trainer.run_folder import started

from tests.trainer.conftest import TOKEN, Client, encoded, filled, order, serving, steps, until_message, upload, watched


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


def toy(tilt: int) -> bytes:
    """A drawn thing on grass."""
    image = Image.fromarray(np.full((64, 64, 3), (90, 160, 70), np.uint8))
    ImageDraw.Draw(image).regular_polygon((32, 32, 20), 5, rotation=tilt, fill=(200, 40, 160))
    return encoded(image)


async def test_the_real_program_trains_and_publishes(config: TrainerConfig, store: ObjectStore, tmp_path: Path) -> None:
    async with serving(
        replace(config, local=replace(config.local, run_command="python -m dreambooth"), grace_seconds=30)
    ) as client:
        wanted = session_pb.Session(base_model="sd15-tiny")
        made = await client.sessions.CreateSession(session_pb.CreateSessionRequest(session_id="toy", session=wanted))
        for number in (1, 2):
            await upload(client, made.name, f"toy-{number}.png", toy(number * 20))
        recipe = pb.Recipe(
            text_encoder=pb.StageSettings(steps=1, learning_rate=1e-6),
            unet=pb.StageSettings(steps=2, learning_rate=1e-4),
            sample_prompts=["a toy on grass"],
        )
        run = await client.training.CreateRun(pb.CreateRunRequest(parent=made.name, recipe=recipe))
        events = await watched(client, run.name)
    done = events[-1].run
    assert (done.state, done.exit_code, done.error) == (pb.RUN_STATE_SUCCEEDED, 0, "")
    assert steps(events) == [1, 1, 2]
    sample = next(event.sample for event in events if event.WhichOneof("event") == "sample")
    assert Image.open(io.BytesIO(sample.data)).size == (64, 64)
    manifest = Checkpoints(store).get(done.checkpoint.removeprefix("checkpoints/"))
    assert (manifest.session, manifest.run, manifest.base_model) == ("toy", run.name.split("/")[3], "sd15-tiny")
