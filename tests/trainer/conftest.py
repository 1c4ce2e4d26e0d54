"""A trainer in this process, reached through real gRPC, whose runs are real processes of a stand-in program."""

import io
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
import pytest_asyncio
from artifacts.store import ObjectStore
from chassis.client import channel
from chassis.config import ServerConfig
from chassis.testing import running
from darkroom.trainer.v1 import session_pb2 as session_pb
from darkroom.trainer.v1 import training_pb2 as pb
from darkroom.trainer.v1.session_pb2_grpc import SessionServiceStub
from darkroom.trainer.v1.training_pb2_grpc import TrainingServiceStub
from google.rpc import error_details_pb2, status_pb2
from PIL import Image
from trainer.config import LocalConfig, TrainerConfig
from trainer.server import Trainer, build

TOKEN = "trainer-test-token"
T = TypeVar("T")
STAND_IN = Path(__file__).with_name("stand_in.py")


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The file of a picture."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def reason(error: grpc.aio.AioRpcError) -> str:
    """ErrorInfo.reason of a failed call."""
    return detail(error, error_details_pb2.ErrorInfo).reason


def detail(error: grpc.aio.AioRpcError, kind: type[T]) -> T:
    """The detail of this kind."""
    packed = dict(error.trailing_metadata())["grpc-status-details-bin"]
    for item in status_pb2.Status.FromString(packed).details:
        message = kind()
        if item.Unpack(message):
            return message
    raise AssertionError(f"the error has no {kind.__name__}: {error}")


@dataclass(frozen=True)
class Client:
    """What a caller of the trainer holds, and the trainer itself."""

    sessions: SessionServiceStub
    training: TrainingServiceStub
    trainer: Trainer
    metrics_port: int
    config: TrainerConfig


@asynccontextmanager
async def serving(config: TrainerConfig) -> AsyncIterator[Client]:
    """A trainer from start to stop, as `python -m trainer` runs it."""
    server, trainer = build(config)
    async with running(server) as target, channel(target, TOKEN) as opened:
        await trainer.load()
        try:
            yield Client(SessionServiceStub(opened), TrainingServiceStub(opened), trainer, server.metrics_port, config)
        finally:
            await trainer.close()


@pytest.fixture
def config(store: ObjectStore, tiny_models: Path, tmp_path: Path) -> TrainerConfig:
    return TrainerConfig(
        server=ServerConfig(token=TOKEN),
        store=replace(store.config, retries=1),
        local=LocalConfig(
            tmp_path / "state", backoff_seconds=0.01, poll_seconds=0.05, run_command=f"{sys.executable} {STAND_IN}"
        ),
        models=str(tiny_models),
        grace_seconds=2,
        stop_runs=True,
    )


@pytest_asyncio.fixture
async def client(config: TrainerConfig) -> AsyncIterator[Client]:
    async with serving(config) as client:
        yield client


@pytest.fixture
def photo() -> bytes:
    return encoded(Image.radial_gradient("L").resize((96, 64)).convert("RGB"))


async def upload(
    client: Client, session: str, filename: str, data: bytes, **header: object
) -> session_pb.InstanceImage:
    """Stream one file in chunks."""

    async def parts() -> AsyncIterator[session_pb.UploadImageRequest]:
        head = session_pb.UploadImageHeader(session=session, filename=filename, **header)
        yield session_pb.UploadImageRequest(header=head)
        for start in range(0, len(data), 100_000):
            yield session_pb.UploadImageRequest(chunk=data[start : start + 100_000])

    return await client.sessions.UploadImage(parts())


async def filled(client: Client, photo: bytes, name: str = "robot") -> str:
    """A new session with one photo; its name."""
    wanted = session_pb.Session(base_model="sd15-tiny")
    made = await client.sessions.CreateSession(session_pb.CreateSessionRequest(session_id=name, session=wanted))
    await upload(client, made.name, "one.png", photo)
    return str(made.name)


@pytest_asyncio.fixture
async def session(client: Client, photo: bytes) -> str:
    """Name of a session with one photo."""
    return await filled(client, photo)


def order(session: str, *plan: str, **fields: object) -> pb.CreateRunRequest:
    """A run whose stand-in program does what the plan says, one item for each attempt."""
    recipe = pb.Recipe(
        sample_prompts=plan,
        text_encoder=pb.StageSettings(steps=0, learning_rate=1e-6),
        unet=pb.StageSettings(steps=5, learning_rate=1e-3),
    )
    return pb.CreateRunRequest(parent=session, recipe=recipe, **fields)


async def watched(client: Client, name: str) -> list[pb.RunEvent]:
    """Everything that happens in a run until it ends."""
    return [event async for event in client.training.WatchRun(pb.WatchRunRequest(name=name))]


async def until_message(client: Client, name: str, text: str, times: int = 1) -> str:
    """The first message of a run that holds the text, or the one after so many."""
    async for event in client.training.WatchRun(pb.WatchRunRequest(name=name)):
        times -= text in event.message
        if not times:
            return event.message
    raise AssertionError(f"{name} ended without a message that holds {text!r}")


def steps(events: list[pb.RunEvent]) -> list[int]:
    """Steps in the order they were shown."""
    return [event.progress.step for event in events if event.WhichOneof("event") == "progress"]


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs inherit the environment; one compute thread is enough for each."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
