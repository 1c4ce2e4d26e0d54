"""The captioner as its clients see it."""

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore
from captioner.blip2 import GenerationModel
from captioner.config import CaptionerConfig
from captioner.errors import QueueFull
from captioner.server import build
from chassis.client import channel
from chassis.testing import running
from darkroom.captioner.v1 import messages_pb2 as pb
from darkroom.captioner.v1.service_pb2_grpc import CaptionerServiceStub
from google.rpc import error_details_pb2
from grpc import StatusCode
from grpc_status import rpc_status
from PIL import Image

from tests.captioner.conftest import TOKEN, jpeg_header, png, png_header, scene

GREEDY = pb.GenerationSettings(num_beams=1)


def reason(error: grpc.aio.AioRpcError) -> str:
    """ErrorInfo.reason of a failed call."""
    status = rpc_status.from_call(error)
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    raise AssertionError(f"no ErrorInfo in {status}")


async def test_model_card(stub: CaptionerServiceStub) -> None:
    model = await stub.GetModel(pb.GetModelRequest())
    assert (model.name, model.retrieval_name) == ("blip2-tiny", "blip2-itm-tiny")
    assert model.num_query_tokens > 0
    assert len(model.digest) == 64


async def test_captions_name_what_is_there(stub: CaptionerServiceStub) -> None:
    images = [pb.Image(data=png(scene(colour))) for colour in ("red", "blue")]
    answer = await stub.Caption(pb.CaptionRequest(images=images))
    assert ["red" in answer.captions[0].text, "blue" in answer.captions[1].text] == [True, True]


async def test_questions_are_answered(stub: CaptionerServiceStub, red_disc: pb.Image) -> None:
    questions = [
        pb.Question(image=red_disc, text=text) for text in ("what color is the object?", "what shape is the object?")
    ]
    answer = await stub.Answer(pb.AnswerRequest(questions=questions))
    assert [text.text for text in answer.answers] == ["red", "circle"]


async def test_the_right_text_matches_best(stub: CaptionerServiceStub, red_disc: pb.Image) -> None:
    texts = ["a large red circle on a gray background", "a large blue star on a gray background"]
    rows = (await stub.Match(pb.MatchRequest(images=[red_disc], texts=texts, with_itm=True))).rows
    right, wrong = rows[0].scores
    assert right.itc_similarity > wrong.itc_similarity
    assert right.itm_probability > 0.5 > wrong.itm_probability


async def test_embeddings(stub: CaptionerServiceStub, red_disc: pb.Image) -> None:
    answer = await stub.Embed(pb.EmbedRequest(images=[red_disc], texts=["a red circle"]))
    model = await stub.GetModel(pb.GetModelRequest())
    assert len(answer.images[0].values) == model.num_query_tokens * model.embedding_dim
    assert len(answer.texts[0].values) == model.embedding_dim


async def test_object_reference(stub: CaptionerServiceStub, store: ObjectStore) -> None:
    data = png(scene("red"))
    store.put("sessions/x/instance_images/1.png", data)
    images = [pb.Image(data=data), pb.Image(object="sessions/x/instance_images/1.png")]
    inline, referred = (await stub.Caption(pb.CaptionRequest(images=images))).captions
    assert inline == referred


@pytest.mark.parametrize(
    ("request_", "status", "why"),
    [
        (pb.CaptionRequest(images=[pb.Image(data=b"no picture")]), StatusCode.INVALID_ARGUMENT, "IMAGE_UNREADABLE"),
        (pb.CaptionRequest(images=[pb.Image(object="sessions/none/1.png")]), StatusCode.NOT_FOUND, "NOT_FOUND"),
        (
            pb.CaptionRequest(images=[pb.Image(data=b"x")], settings=pb.GenerationSettings(num_beams=2, temperature=1)),
            StatusCode.INVALID_ARGUMENT,
            "SETTINGS_CONTRADICT",
        ),
        (
            pb.CaptionRequest(images=[], settings=pb.GenerationSettings(num_beams=99, top_p=1.5)),
            StatusCode.INVALID_ARGUMENT,
            "INVALID_REQUEST",
        ),
        (
            pb.CaptionRequest(images=[pb.Image(object="checkpoints/x/unet")]),
            StatusCode.INVALID_ARGUMENT,
            "INVALID_REQUEST",
        ),
    ],
    ids=["not an image", "no such object", "contradiction", "out of range", "object outside sessions"],
)
async def test_refusals(stub: CaptionerServiceStub, request_: pb.CaptionRequest, status: StatusCode, why: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Caption(request_)
    assert (caught.value.code(), reason(caught.value)) == (status, why)


async def test_calls_before_the_model_is_there_say_so(config: CaptionerConfig) -> None:
    server, _ = build(config)
    async with running(server, serving=False) as target, channel(target, TOKEN) as opened:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await CaptionerServiceStub(opened).GetModel(pb.GetModelRequest())
    assert (caught.value.code(), reason(caught.value)) == (StatusCode.UNAVAILABLE, "MODEL_LOADING")


def encoded(image: Image.Image, kind: str, **options: Any) -> pb.Image:
    return pb.Image(data=png(image, kind, **options))


def first_red(kind: str) -> pb.Image:
    """An animation that begins with a red disc and goes on with a blue one."""
    return encoded(scene("red"), kind, save_all=True, append_images=[scene("blue")])


CUT = png(scene("red"))[:-200], png(scene("red"), "JPEG")[:-200]


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (encoded(Image.new("RGB", (1, 1), "red"), "PNG"), ""),
        (encoded(scene("red").convert("CMYK"), "JPEG", quality=95), "red"),
        (encoded(scene("red").convert("CMYK"), "TIFF"), "red"),
        (encoded(scene("red").convert("P"), "PNG"), "red"),
        (encoded(scene("red").convert("RGBA"), "WEBP", lossless=True), "red"),
        (first_red("GIF"), "red"),
        (first_red("PNG"), "red"),
        (first_red("WEBP"), "red"),
    ],
    ids=[
        "1 pixel",
        "CMYK JPEG",
        "CMYK TIFF",
        "palette",
        "alpha",
        "GIF",
        "APNG",
        "animated WEBP",
    ],
)
async def test_unusual_images_are_described(stub: CaptionerServiceStub, image: pb.Image, text: str) -> None:
    caption = (await stub.Caption(pb.CaptionRequest(images=[image], settings=GREEDY))).captions[0]
    assert caption.num_tokens > 0
    assert text in caption.text


async def test_sixteen_bits_are_seen_as_eight(stub: CaptionerServiceStub) -> None:
    gray = scene("red").convert("L")
    wide = Image.fromarray(np.asarray(gray, np.uint16) * 257)
    images = [encoded(gray, "PNG"), encoded(wide, "PNG"), encoded(wide, "TIFF")]
    eight, *sixteen = (await stub.Caption(pb.CaptionRequest(images=images, settings=GREEDY))).captions
    assert sixteen == [eight, eight]


@pytest.mark.parametrize(
    ("data", "why", "words"),
    [
        (b"no picture", "IMAGE_UNREADABLE", "10 bytes that are none of PNG, JPEG"),
        (CUT[0], "IMAGE_UNREADABLE", "damaged or truncated"),
        (CUT[1], "IMAGE_UNREADABLE", "damaged or truncated"),
        (png(Image.new("F", (4, 4)), "TIFF"), "IMAGE_UNREADABLE", "expected 8 or 16 bits"),
        (png_header(30_000, 30_000), "IMAGE_TOO_LARGE", "30000x30000 pixels; at most 64 megapixels"),
        (jpeg_header(30_000, 30_000), "IMAGE_TOO_LARGE", "30000x30000 pixels; at most 64 megapixels"),
        (png_header(8_001, 8_000), "IMAGE_TOO_LARGE", "8001x8000 pixels; at most 64 megapixels"),
    ],
    ids=["no image", "cut PNG", "cut JPEG", "float TIFF", "900 MP PNG", "900 MP JPEG", "over the limit"],
)
async def test_bad_images_are_refused_by_index_and_the_service_lives(
    stub: CaptionerServiceStub, red_disc: pb.Image, data: bytes, why: str, words: str
) -> None:
    images = [red_disc, pb.Image(data=data)]
    questions = [pb.Question(image=image, text="what color is the object?") for image in images]
    for call in (
        stub.Caption(pb.CaptionRequest(images=images, settings=GREEDY)),
        stub.Answer(pb.AnswerRequest(questions=questions)),
        stub.Embed(pb.EmbedRequest(images=images)),
        stub.Match(pb.MatchRequest(images=images, texts=["a red circle"])),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert (caught.value.code(), reason(caught.value)) == (StatusCode.INVALID_ARGUMENT, why)
        assert "image 1 " in (caught.value.details() or "")
        assert words in (caught.value.details() or "")
    answer = await stub.Caption(pb.CaptionRequest(images=[red_disc], settings=GREEDY))
    assert "red" in answer.captions[0].text


async def test_files_over_the_limit_are_refused_before_they_are_read(
    stub: CaptionerServiceStub, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Caption(pb.CaptionRequest(images=[pb.Image(data=bytes(16 * 1024**2 + 1))]))
    assert (caught.value.code(), reason(caught.value)) == (StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert "images[0].data" in (caught.value.details() or "")
    monkeypatch.setattr("captioner.images.MAX_FILE_BYTES", 100)
    store.put("sessions/x/instance_images/1.png", bytes(101))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Caption(pb.CaptionRequest(images=[pb.Image(object="sessions/x/instance_images/1.png")]))
    assert (caught.value.code(), reason(caught.value)) == (StatusCode.INVALID_ARGUMENT, "IMAGE_TOO_LARGE")
    assert "101 bytes; at most 100" in (caught.value.details() or "")


@pytest.mark.parametrize(
    "fields",
    [{"prompt": "<image>"}, {"settings": pb.GenerationSettings(num_beams=1, max_new_tokens=256)}],
    ids=["image token", "too long"],
)
async def test_prompts_that_the_model_cannot_take(
    stub: CaptionerServiceStub, red_disc: pb.Image, fields: dict[str, Any]
) -> None:
    for call in (
        stub.Caption(pb.CaptionRequest(images=[red_disc], **fields)),
        stub.CaptionSession(pb.CaptionSessionRequest(session="sessions/x", **fields)).read(),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert (caught.value.code(), reason(caught.value)) == (StatusCode.INVALID_ARGUMENT, "PROMPT_UNUSABLE")


async def test_the_image_token_is_no_word(stub: CaptionerServiceStub, red_disc: pb.Image) -> None:
    for call in (
        stub.Answer(pb.AnswerRequest(questions=[pb.Question(image=red_disc, text="what is <image>?")])),
        stub.Embed(pb.EmbedRequest(texts=["<image>"])),
        stub.Match(pb.MatchRequest(images=[red_disc], texts=["a <image>"])),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert (caught.value.code(), reason(caught.value)) == (StatusCode.INVALID_ARGUMENT, "PROMPT_UNUSABLE")


class TestCaptionSession:
    """CaptionSession over a session in the store."""

    @pytest.fixture
    def sessions(self, store: ObjectStore) -> Sessions:
        sessions = Sessions(store)
        sessions.create("discs")
        for colour in ("red", "blue"):
            sessions.put_image("discs", f"{colour}.png", png(scene(colour)), 64, 64)
        return sessions

    async def outcomes(self, stub: CaptionerServiceStub, **fields: object) -> dict[str, pb.CaptionSessionResponse]:
        request = pb.CaptionSessionRequest(session="sessions/discs", **fields)
        return {message.image.rsplit("/", 1)[1]: message async for message in stub.CaptionSession(request)}

    async def test_writes_captions_with_progress(self, stub: CaptionerServiceStub, sessions: Sessions) -> None:
        outcomes = await self.outcomes(stub, prefix="sks, ")
        assert sorted(outcome.num_done for outcome in outcomes.values()) == [1, 2]
        assert sessions.caption("discs", "red.png") == outcomes["red.png"].caption
        assert outcomes["red.png"].caption.startswith("sks, ")
        assert "red" in outcomes["red.png"].caption

    async def test_keeps_captions_unless_told_to_replace(self, stub: CaptionerServiceStub, sessions: Sessions) -> None:
        sessions.set_caption("discs", "red.png", "by hand")
        assert (await self.outcomes(stub))["red.png"].skipped
        assert sessions.caption("discs", "red.png") == "by hand"
        await self.outcomes(stub, existing=pb.EXISTING_CAPTIONS_REPLACE)
        assert "red" in (sessions.caption("discs", "red.png") or "")

    async def test_a_bad_image_is_its_own_error(
        self, stub: CaptionerServiceStub, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("captioner.images.MAX_FILE_BYTES", 100_000)
        sessions.put_image("discs", "bad.png", b"no picture")
        sessions.put_image("discs", "huge.png", bytes(100_001))
        sessions.put_image("discs", "wide.png", png_header(30_000, 30_000))
        outcomes = await self.outcomes(stub)
        for name, words in (("bad.png", "none of PNG"), ("huge.png", "100001 bytes"), ("wide.png", "30000x30000")):
            assert name in outcomes[name].error
            assert words in outcomes[name].error
            assert sessions.caption("discs", name) is None
        assert not outcomes["red.png"].error

    async def test_a_damaged_caption_is_an_error_of_its_image(
        self, stub: CaptionerServiceStub, sessions: Sessions
    ) -> None:
        sessions.store.put("sessions/discs/captions/red.txt", b"caf\xe9")
        outcomes = await self.outcomes(stub)
        assert "sessions/discs/captions/red.txt" in outcomes["red.png"].error
        assert "not UTF-8" in outcomes["red.png"].error
        assert "blue" in outcomes["blue.png"].caption
        replaced = await self.outcomes(stub, existing=pb.EXISTING_CAPTIONS_REPLACE)
        assert not replaced["red.png"].error
        assert "red" in (sessions.caption("discs", "red.png") or "")

    async def test_an_image_that_is_deleted_meanwhile_is_its_own_error(
        self, stub: CaptionerServiceStub, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = Sessions.read_image

        def read_then_delete(self: Sessions, session: str, filename: str) -> bytes:
            data = read(self, session, filename)
            if filename == "red.png":
                sessions.delete_image(session, filename)
            return data

        monkeypatch.setattr(Sessions, "read_image", read_then_delete)
        outcomes = await self.outcomes(stub)
        assert "'red.png' does not exist" in outcomes["red.png"].error
        assert sessions.caption("discs", "red.png") is None
        assert "blue" in (sessions.caption("discs", "blue.png") or "")

    async def test_a_session_that_is_deleted_meanwhile_ends_the_call(
        self, stub: CaptionerServiceStub, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def delete_session(self: Sessions, session: str, filename: str) -> None:
            sessions.delete(session)

        monkeypatch.setattr(Sessions, "caption", delete_session)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.outcomes(stub)
        assert (caught.value.code(), "session 'discs'" in (caught.value.details() or "")) == (
            StatusCode.NOT_FOUND,
            True,
        )

    async def test_unknown_and_empty_sessions(self, stub: CaptionerServiceStub, store: ObjectStore) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.outcomes(stub)
        assert caught.value.code() == StatusCode.NOT_FOUND
        Sessions(store).create("discs")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.outcomes(stub)
        assert reason(caught.value) == "SESSION_EMPTY"


async def test_a_session_waits_while_the_queue_is_full(
    config: CaptionerConfig, generation_model: GenerationModel, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions(store)
    sessions.create("discs")
    for number in range(4):
        sessions.put_image("discs", f"{number}.png", png(scene("red")))
    refused: list[QueueFull] = []
    create = QueueFull.__init__

    def noted(self: QueueFull, num_waiting: int, limit: int) -> None:
        refused.append(self)
        create(self, num_waiting, limit)

    monkeypatch.setattr(QueueFull, "__init__", noted)
    server, captioner = build(replace(config, retrieval_model="", max_queue_images=1))
    async with running(server) as target, channel(target, TOKEN) as opened:
        await captioner.load(lambda: generation_model, None)
        request = pb.CaptionSessionRequest(session="sessions/discs")
        outcomes = [message async for message in CaptionerServiceStub(opened).CaptionSession(request)]
        await captioner.close()
    assert refused  # four images in flight, one place
    assert ["red" in outcome.caption for outcome in outcomes] == [True] * 4
    assert [outcome.error for outcome in outcomes] == [""] * 4


async def test_a_session_that_outlasts_the_drain_goes_on_at_the_next_server(
    config: CaptionerConfig, generation_model: GenerationModel, store: ObjectStore
) -> None:
    sessions = Sessions(store)
    sessions.create("discs")
    names = [f"{number:02}.png" for number in range(60)]
    for name in names:
        sessions.put_image("discs", name, png(scene("red")))
    request = pb.CaptionSessionRequest(session="sessions/discs")
    config = replace(config, retrieval_model="", max_batch_images=1)
    server, captioner = build(config)
    async with running(server) as target, channel(target, TOKEN) as opened:
        await captioner.load(lambda: generation_model, None)
        call = CaptionerServiceStub(opened).CaptionSession(request)
        told = [(await call.read()).image]
        stopping = asyncio.ensure_future(server.stop(0.1))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            told += [message.image async for message in call]
        await stopping
        await captioner.close()
    assert (caught.value.code(), reason(caught.value)) == (StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    server, captioner = build(config)
    async with running(server) as target, channel(target, TOKEN) as opened:
        await captioner.load(lambda: generation_model, None)
        outcomes = [message async for message in CaptionerServiceStub(opened).CaptionSession(request)]
        await captioner.close()
    assert len(told) < len(names) == len(outcomes)
    assert set(told) <= {outcome.image for outcome in outcomes if outcome.skipped}
    assert all("red" in outcome.caption for outcome in outcomes)
