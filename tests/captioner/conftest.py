"""A captioner on the tiny models, in this process, reached through real gRPC."""

import io
import struct
import zlib
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


def png_header(width: int, height: int) -> bytes:
    """A PNG of this size that holds no pixels; decoding it would take width * height bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def jpeg_header(width: int, height: int) -> bytes:
    """A JPEG whose header says this size."""
    data = png(Image.new("RGB", (8, 8)), "JPEG")
    at = data.index(b"\xff\xc0") + 5  # start of frame: marker, length, precision, height, width
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


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
