"""A captioner on the tiny models, in this process, reached through real gRPC."""

import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from artifacts.store import ObjectStore
from captioner.blip2 import GenerationModel
from captioner.config import CaptionerConfig
from captioner.retrieval import RetrievalModel
from captioner.server import build
from chassis.client import channel
from chassis.config import ServerConfig
from chassis.testing import running
from darkroom.captioner.v1 import messages_pb2 as pb
from darkroom.captioner.v1.service_pb2_grpc import CaptionerServiceStub
from drawing.scenes import Scene, draw
from PIL import Image

TOKEN = "captioner-test-token"


def png(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The encoded file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def scene(colour: str) -> Image.Image:
    """A large circle on a gray ground, drawn as the pictures that the tiny models know."""
    return draw(Scene("circle", colour, "large", "middle", "gray"))


@pytest.fixture(scope="session")
def generation_model(tiny_models: Path) -> GenerationModel:
    return GenerationModel(tiny_models / "blip2-tiny", "cpu", "fp32")


@pytest.fixture(scope="session")
def retrieval_model(tiny_models: Path) -> RetrievalModel:
    return RetrievalModel(tiny_models / "blip2-itm-tiny", "cpu", "fp32")


@pytest.fixture
def config(store: ObjectStore, tiny_models: Path) -> CaptionerConfig:
    return CaptionerConfig(
        server=ServerConfig(token=TOKEN),
        store=store.config,
        model=str(tiny_models / "blip2-tiny"),
        retrieval_model=str(tiny_models / "blip2-itm-tiny"),
        device="cpu",
    )


@pytest_asyncio.fixture
async def stub(
    config: CaptionerConfig, generation_model: GenerationModel, retrieval_model: RetrievalModel
) -> AsyncIterator[CaptionerServiceStub]:
    server, captioner = build(config)
    async with running(server) as target, channel(target, TOKEN) as opened:
        await captioner.load(lambda: generation_model, lambda: retrieval_model)
        yield CaptionerServiceStub(opened)
        await captioner.close()


@pytest.fixture
def red_disc() -> Iterator[pb.Image]:
    return pb.Image(data=png(scene("red")))
