"""The control plane with the real training program: what is put by hand, what is the same twice, and going on after a cancel."""

import io
from dataclasses import replace

import numpy as np
import pytest
from artifacts.checkpoints import Checkpoints
from artifacts.store import ObjectStore
from darkroom.trainer.v1 import session_pb2 as session_pb
from darkroom.trainer.v1 import training_pb2 as pb
from PIL import Image, ImageDraw
from trainer.config import TrainerConfig

from tests.trainer.conftest import Client, encoded, filled, serving, steps, upload, watched

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def real(config: TrainerConfig) -> TrainerConfig:
    """The trainer as it is by default."""
    return replace(config, local=replace(config.local, run_command="python -m dreambooth"), grace_seconds=60)


def toy(tilt: int) -> bytes:
    """A drawn thing on grass."""
    image = Image.fromarray(np.full((64, 64, 3), (90, 160, 70), np.uint8))
    ImageDraw.Draw(image).regular_polygon((32, 32, 20), 5, rotation=tilt, fill=(200, 40, 160))
    return encoded(image)


async def created(
    client: Client, session: str, num_steps: int, text_encoder_steps: int = 0, **settings: object
) -> pb.Run:
    unet = pb.StageSettings(steps=num_steps, learning_rate=1e-4)
    recipe = pb.Recipe(text_encoder=pb.StageSettings(steps=text_encoder_steps), unet=unet, **settings)
    return await client.training.CreateRun(pb.CreateRunRequest(parent=session, recipe=recipe))


def messages(events: list[pb.RunEvent]) -> str:
    return "\n".join(event.message for event in events if event.message)


@pytest.mark.long
async def test_a_damaged_image_is_named_and_a_repeated_one_is_reported(
    real: TrainerConfig, store: ObjectStore, photo: bytes
) -> None:
    async with serving(real) as client:
        session = await filled(client, photo)
        await upload(client, session, "same.png", photo)
        cut = f"{session}/instance_images/cut.png"
        store.put(cut, photo[:-40])
        store.put(f"{session}/instance_images/.DS_Store", b"Bud1")
        store.put(f"{session}/instance_images/.thumbs/small.png", b"Bud1")
        failed = (await watched(client, (await created(client, session, 1)).name))[-1].run
        assert (failed.state, failed.exit_code, failed.num_attempts) == (pb.RUN_STATE_FAILED, 65, 1)
        assert "cut.png: is damaged or cut off" in failed.error
        store.delete(cut)
        run = await created(client, session, 2, text_encoder_steps=1, sample_prompts=["a toy on grass"])
        events = await watched(client, run.name)
    assert (events[-1].run.state, events[-1].run.error) == (pb.RUN_STATE_SUCCEEDED, "")
    assert "warning: same.png is the same picture as one.png" in messages(events)
    progress = next(event.progress for event in events if event.WhichOneof("event") == "progress")
    assert progress.step_time.ToTimedelta() >= progress.data_wait.ToTimedelta()
    assert progress.step_time.ToTimedelta().total_seconds() > 0
    assert steps(events) == [1, 1, 2]
    sample = next(event.sample for event in events if event.WhichOneof("event") == "sample")
    assert Image.open(io.BytesIO(sample.data)).size == (64, 64)
    manifest = Checkpoints(store).get(events[-1].run.checkpoint.removeprefix("checkpoints/"))
    assert (manifest.session, manifest.run) == (session.split("/")[1], run.name.split("/")[3])
    assert manifest.base_model == "sd15-tiny"


@pytest.mark.long
async def test_a_cancelled_run_goes_on_from_its_resume_point(real: TrainerConfig, store: ObjectStore) -> None:
    async with serving(real) as client:
        wanted = session_pb.Session(base_model="sd15-tiny")
        made = await client.sessions.CreateSession(session_pb.CreateSessionRequest(session_id="toy", session=wanted))
        await upload(client, made.name, "toy-1.png", toy(20))
        run = await created(client, made.name, 60)
        async for event in client.training.WatchRun(pb.WatchRunRequest(name=run.name)):
            if event.progress.step >= 2:
                break
        await client.training.CancelRun(pb.CancelRunRequest(name=run.name))
        events = await watched(client, run.name)
        assert events[-1].run.state == pb.RUN_STATE_CANCELLED
        listed = await client.training.ListResumePoints(pb.ListResumePointsRequest(parent=run.name))
        newest = listed.resume_points[0]
        assert (newest.step, newest.stage) == (max(steps(events)), pb.STAGE_UNET)
        assert newest.size_bytes == sum(
            stat.size_bytes for stat in store.list(newest.object) if not stat.key.endswith("manifest.json")
        )
        await upload(client, made.name, "toy-1.png", toy(40))
        await client.training.ResumeRun(pb.ResumeRunRequest(name=run.name))
        failed = (await watched(client, run.name))[-1].run
        assert (failed.state, failed.exit_code) == (pb.RUN_STATE_FAILED, 69)
        assert "toy-1.png" in failed.error
        await client.training.ResumeRun(pb.ResumeRunRequest(name=run.name, accept_inexact=True))
        events = await watched(client, run.name)
    done = events[-1].run
    assert (done.state, done.error, done.inexact) == (pb.RUN_STATE_SUCCEEDED, "", True), messages(events)
    assert steps(events) == list(range(1, 61))
    assert f"going on from the resume point at step {newest.step}" in messages(events)
    assert Checkpoints(store).get(done.checkpoint.removeprefix("checkpoints/")).metrics["inexact"] is True
