"""Requests of many clients in shared batches, as the clients see them: the same answers, and nobody waits for the gone."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from captioner.blip2 import GenerationModel
from captioner.config import CaptionerConfig
from captioner.server import build
from chassis.client import channel
from chassis.testing import running
from darkroom.captioner.v1 import messages_pb2 as pb
from darkroom.captioner.v1.service_pb2_grpc import CaptionerServiceStub
from prometheus_client import CollectorRegistry

from tests.captioner.conftest import TOKEN, png, scene


@dataclass
class Held:
    """A served captioner whose model can be held, so that requests meet in its queue."""

    stub: CaptionerServiceStub
    registry: CollectorRegistry
    hold: Callable[[], threading.Event]

    def count(self, name: str) -> float:
        return self.registry.get_sample_value(f"darkroom_caption_{name}") or 0.0

    async def until(self, name: str, value: float) -> None:
        """Wait for a metric; it changes when a request arrives, is batched, or leaves."""
        async with asyncio.timeout(60):
            while self.count(name) != value:
                await asyncio.sleep(0.01)


@pytest.fixture
def serve_held(config: CaptionerConfig, generation_model: GenerationModel) -> Callable[[], Any]:
    """`async with serve_held() as held`. A batch waits for every image that has arrived."""

    @asynccontextmanager
    async def serve() -> AsyncIterator[Held]:
        registry, released = CollectorRegistry(), threading.Event()
        server, captioner = build(replace(config, batch_window_milliseconds=60_000), registry)

        def hold() -> threading.Event:
            captioner._model_thread.submit(released.wait)
            return released

        async with running(server) as target, channel(target, TOKEN) as opened:
            await captioner.load(lambda: generation_model, None)
            try:
                yield Held(CaptionerServiceStub(opened), registry, hold)
            finally:
                released.set()
                await captioner.close()

    return serve


Ask = Callable[[CaptionerServiceStub], Awaitable[Any]]


def asks(num_beams: int) -> list[Ask]:
    """Requests of different pictures, prompts and lengths that may share a batch."""
    settings = pb.GenerationSettings(num_beams=num_beams)
    images = [pb.Image(data=png(scene(colour))) for colour in ("red", "blue", "green", "yellow")]
    captions = [
        pb.CaptionRequest(images=images[:1], settings=settings),
        pb.CaptionRequest(images=images[1:], prompt="", settings=settings),
        pb.CaptionRequest(images=images[3:], prompt="a photo of a large", settings=settings),
    ]
    answers = [
        pb.AnswerRequest(questions=[pb.Question(image=image, text=text)], settings=settings)
        for image, text in zip(
            images, ("what color is the object?", "what shape is the object?", "how big?"), strict=False
        )
    ]
    return [lambda stub, request=request: stub.Caption(request) for request in captions] + [  # type: ignore[misc]
        lambda stub, request=request: stub.Answer(request) for request in answers
    ]


@pytest.mark.parametrize("num_beams", [1, 5])
async def test_shared_batches_answer_what_single_requests_answer(serve_held: Callable[[], Any], num_beams: int) -> None:
    async with serve_held() as held:
        alone = [await ask(held.stub) for ask in asks(num_beams)]
        num_batches, num_rows = held.count("batch_images_count"), held.count("batch_images_sum")
        assert num_batches == len(alone)
        released = held.hold()
        calls = [asyncio.ensure_future(ask(held.stub)) for ask in asks(num_beams)]
        await held.until("images_admitted", num_rows)
        released.set()
        together = await asyncio.gather(*calls)
        # The first to arrive is taken by the held model; everything else is one batch.
        assert held.count("batch_images_count") - num_batches <= 2
        assert held.count("batch_images_sum") == 2 * num_rows
    assert together == alone


async def test_rows_of_a_client_that_goes_away_are_never_run(serve_held: Callable[[], Any]) -> None:
    request = pb.CaptionRequest(images=[pb.Image(data=png(scene("red")))], settings=pb.GenerationSettings(num_beams=1))
    async with serve_held() as held:
        released = held.hold()
        first = asyncio.ensure_future(held.stub.Caption(request))
        await held.until("batch_images_count", 1)
        gone = held.stub.Caption(pb.CaptionRequest(images=[*request.images] * 8, settings=request.settings))
        await held.until("images_admitted", 9)
        gone.cancel()
        await held.until("images_admitted", 1)
        released.set()
        assert "red" in (await first).captions[0].text
        assert await held.stub.Caption(request) == await first
        assert held.count("batch_images_sum") == 2
