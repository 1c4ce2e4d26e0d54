"""SessionService as its clients see it: sessions, uploads, captions and crops, and every kind of bad upload."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from artifacts.embedded import EmbeddedStore
from artifacts.store import ObjectStore
from darkroom.trainer.v1 import session_pb2 as pb
from google.rpc import error_details_pb2
from grpc import StatusCode
from PIL import Image
from trainer.config import TrainerConfig

from tests.trainer.conftest import Client, detail, encoded, reason, serving, upload
from tests.trainer.test_images import png_header


async def create(client: Client, name: str, **fields: object) -> pb.Session:
    return await client.sessions.CreateSession(pb.CreateSessionRequest(session_id=name, **fields))


async def refused(call: object) -> tuple[StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), reason(caught.value)


class TestSessions:
    """Create, get, list, delete."""

    async def test_counts_follow_what_is_in_it(self, client: Client, photo: bytes) -> None:
        made = await create(client, "robot", session=pb.Session(base_model="sd15-tiny", description="a toy"))
        assert (made.name, made.base_model, made.description) == ("sessions/robot", "sd15-tiny", "a toy")
        for name in ("a.png", "b.png"):
            await upload(client, made.name, name, photo)
        caption = pb.SetCaptionRequest(image="sessions/robot/images/a.png", text="a robot")
        await client.sessions.SetCaption(caption)
        found = await client.sessions.GetSession(pb.GetSessionRequest(name=made.name))
        assert (found.num_images, found.num_captions, found.create_time) == (2, 1, made.create_time)

    async def test_repeats(self, client: Client) -> None:
        made = await create(client, "robot", request_id="once")
        assert await create(client, "robot", request_id="once") == made
        assert (await refused(create(client, "robot")))[0] == StatusCode.ALREADY_EXISTS
        assert (await refused(create(client, "robot", request_id="other")))[0] == StatusCode.ALREADY_EXISTS
        other = create(client, "robot", request_id="once", session=pb.Session(description="another"))
        assert await refused(other) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")

    async def test_pages(self, client: Client) -> None:
        for name in ("c", "a", "b"):
            await create(client, name)
        first = await client.sessions.ListSessions(pb.ListSessionsRequest(page_size=2))
        rest = await client.sessions.ListSessions(pb.ListSessionsRequest(page_token=first.next_page_token))
        assert [found.name for found in (*first.sessions, *rest.sessions)] == ["sessions/a", "sessions/b", "sessions/c"]
        assert rest.next_page_token == ""

    async def test_delete_removes_everything(self, client: Client, photo: bytes, store: ObjectStore) -> None:
        made = await create(client, "robot")
        await upload(client, made.name, "a.png", photo)
        removed = await client.sessions.DeleteSession(pb.DeleteSessionRequest(name=made.name))
        assert removed.num_objects == 2
        assert list(store.list("sessions/robot/")) == []
        missing = client.sessions.GetSession(pb.GetSessionRequest(name=made.name))
        assert (await refused(missing))[0] == StatusCode.NOT_FOUND
        again = client.sessions.DeleteSession(pb.DeleteSessionRequest(name=made.name))
        assert (await refused(again))[0] == StatusCode.NOT_FOUND


class TestUpload:
    """One file in a stream."""

    async def test_the_stored_file_is_the_file(self, client: Client, store: ObjectStore) -> None:
        made = await create(client, "robot")
        exif = Image.Exif()
        exif[0x0112] = 6
        data = encoded(Image.effect_noise((400, 300), 80).convert("RGB"), "JPEG", quality=95, exif=exif)
        digest = hashlib.sha256(data).hexdigest()
        image = await upload(client, made.name, "my photo.jpg", data, size_bytes=len(data), sha256=digest)
        assert (image.name, image.width_px, image.height_px) == ("sessions/robot/images/my_photo.jpg", 300, 400)
        assert (image.sha256, image.size_bytes) == (digest, len(data))
        assert store.get(image.object) == data
        listed = await client.sessions.ListImages(pb.ListImagesRequest(parent=made.name))
        assert list(listed.images) == [image]

    async def test_a_repeated_upload_replaces(self, client: Client, photo: bytes) -> None:
        made = await create(client, "robot")
        await upload(client, made.name, "a.png", photo)
        other = encoded(Image.new("RGB", (32, 48)))
        assert (await upload(client, made.name, "a.png", other)).height_px == 48
        listed = await client.sessions.ListImages(pb.ListImagesRequest(parent=made.name))
        assert [image.height_px for image in listed.images] == [48]

    @pytest.mark.parametrize(
        ("filename", "data", "why"),
        [
            ("a.png", b"this is no picture", "IMAGE_UNREADABLE"),
            ("a.png", b"", "IMAGE_UNREADABLE"),
            ("a.png", encoded(Image.effect_noise((64, 64), 9))[:900], "IMAGE_UNREADABLE"),
            ("a.png", encoded(Image.new("RGB", (1, 1))), "IMAGE_TOO_SMALL"),
            ("a.png", png_header(30_000, 30_000), "IMAGE_TOO_LARGE"),
            ("a.gif", b"GIF89a", "FILE_NAME_UNSUPPORTED"),
            ("noending", b"", "FILE_NAME_UNSUPPORTED"),
            ("../a.png", b"", "INVALID_NAME"),
            (".a.png", b"", "INVALID_NAME"),
        ],
        ids=["text", "nothing", "truncated", "one pixel", "900 megapixels", "gif", "no ending", "path", "hidden"],
    )
    async def test_refusals_leave_nothing(
        self, client: Client, store: ObjectStore, filename: str, data: bytes, why: str
    ) -> None:
        made = await create(client, "robot")
        assert await refused(upload(client, made.name, filename, data)) == (StatusCode.INVALID_ARGUMENT, why)
        assert [stat.key for stat in store.list("sessions/")] == ["sessions/robot/session.json"]

    async def test_animations_are_refused_clearly(self, client: Client) -> None:
        made = await create(client, "robot")
        frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green")]
        data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
        assert (await refused(upload(client, made.name, "a.webp", data)))[1] == "IMAGE_ANIMATED"

    @pytest.mark.parametrize(("kind", "mode"), [("JPEG", "CMYK"), ("PNG", "I;16"), ("PNG", "P"), ("WEBP", "RGBA")])
    async def test_unusual_modes_are_taken(self, client: Client, kind: str, mode: str) -> None:
        made = await create(client, "robot")
        source = Image.new("I;16", (20, 30)) if mode == "I;16" else Image.new("RGB", (20, 30), "red").convert(mode)
        ending = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[kind]
        assert (await upload(client, made.name, f"a.{ending}", encoded(source, kind))).height_px == 30

    async def test_promises_are_kept_to(self, client: Client, photo: bytes, store: ObjectStore) -> None:
        made = await create(client, "robot")
        for header in ({"size_bytes": len(photo) + 1}, {"size_bytes": len(photo) - 1}, {"sha256": "0" * 64}):
            call = upload(client, made.name, "a.png", photo, **header)
            assert await refused(call) == (StatusCode.INVALID_ARGUMENT, "UPLOAD_MISMATCH")
        promised = upload(client, made.name, "a.png", photo, size_bytes=65 << 20)
        assert (await refused(promised))[1] == "UPLOAD_TOO_LARGE"
        assert not store.exists("sessions/robot/instance_images/a.png")

    async def test_more_bytes_than_allowed(self, client: Client) -> None:
        made = await create(client, "robot")
        assert (await refused(upload(client, made.name, "a.png", bytes(64 << 20) + b"1")))[1] == "UPLOAD_TOO_LARGE"

    async def test_unknown_session(self, client: Client, photo: bytes) -> None:
        assert (await refused(upload(client, "sessions/nobody", "a.png", photo)))[0] == StatusCode.NOT_FOUND

    @pytest.mark.parametrize(
        "parts", [[], ["chunk"], ["header", "header"]], ids=["nothing", "no header", "two headers"]
    )
    async def test_streams_in_the_wrong_order(self, client: Client, parts: list[str]) -> None:
        made = await create(client, "robot")
        kinds = {
            "header": pb.UploadImageRequest(header=pb.UploadImageHeader(session=made.name, filename="a.png")),
            "chunk": pb.UploadImageRequest(chunk=b"1"),
        }
        call = client.sessions.UploadImage(iter([kinds[part] for part in parts]))
        assert await refused(call) == (StatusCode.INVALID_ARGUMENT, "UPLOAD_MALFORMED")

    async def test_a_client_that_goes_away_leaves_nothing(
        self, client: Client, photo: bytes, store: ObjectStore
    ) -> None:
        made = await create(client, "robot")
        sent = asyncio.Event()

        async def half() -> AsyncIterator[pb.UploadImageRequest]:
            header = pb.UploadImageHeader(session=made.name, filename="a.png")
            yield pb.UploadImageRequest(header=header)
            yield pb.UploadImageRequest(chunk=photo)
            sent.set()
            await asyncio.Event().wait()

        call = client.sessions.UploadImage(half())
        waiting = asyncio.ensure_future(_answer(call))
        await sent.wait()
        call.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await upload(client, made.name, "b.png", photo)
        names = [stat.key.rsplit("/", 1)[1] for stat in store.list("sessions/robot/instance_images/")]
        assert names == ["b.png"]

    async def test_a_store_that_goes_down_in_the_middle(
        self, config: TrainerConfig, photo: bytes, tmp_path: Path
    ) -> None:
        server = EmbeddedStore(tmp_path / "own")
        own = replace(server.start(), retries=0, connect_timeout_seconds=0.5)
        try:
            async with serving(replace(config, store=own)) as client:
                made = await create(client, "robot")
                await upload(client, made.name, "a.png", photo)

                async def parts() -> AsyncIterator[pb.UploadImageRequest]:
                    header = pb.UploadImageHeader(session=made.name, filename="b.png")
                    yield pb.UploadImageRequest(header=header)
                    yield pb.UploadImageRequest(chunk=photo[:100])
                    await asyncio.to_thread(server.stop, kill=True)
                    yield pb.UploadImageRequest(chunk=photo[100:])

                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await client.sessions.UploadImage(parts())
                assert (caught.value.code(), reason(caught.value)) == (StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
                assert detail(caught.value, error_details_pb2.RetryInfo).retry_delay.seconds > 0
                await asyncio.to_thread(server.start)
                listed = await client.sessions.ListImages(pb.ListImagesRequest(parent=made.name))
                assert [image.name for image in listed.images] == ["sessions/robot/images/a.png"]
                await upload(client, made.name, "b.png", photo)
        finally:
            server.stop(kill=True)


async def _answer(call: "grpc.aio.StreamUnaryCall") -> object:
    return await call


class TestImagesAndCaptions:
    """List, delete, get and set."""

    async def test_pages_read_no_image(
        self, client: Client, photo: bytes, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = await create(client, "robot")
        for name in ("c.png", "a.png"):
            await upload(client, made.name, name, photo)
        store.put("sessions/robot/instance_images/b.png", photo)
        read: list[str] = []
        reader = ObjectStore.reader
        monkeypatch.setattr(
            ObjectStore, "reader", lambda store, key, *rest: read.append(key) or reader(store, key, *rest)
        )
        first = await client.sessions.ListImages(pb.ListImagesRequest(parent=made.name, page_size=2))
        assert [image.name[-5:] for image in first.images] == ["a.png", "b.png"]
        token = first.next_page_token
        await client.sessions.DeleteImage(pb.DeleteImageRequest(name="sessions/robot/images/b.png"))
        rest = await client.sessions.ListImages(pb.ListImagesRequest(parent=made.name, page_token=token))
        assert [image.name[-5:] for image in rest.images] == ["c.png"]
        assert [key for key in read if "/instance_images/" in key] == []

    async def test_a_caption_comes_and_goes_with_its_image(
        self, client: Client, photo: bytes, store: ObjectStore
    ) -> None:
        made = await create(client, "robot")
        image = (await upload(client, made.name, "a.png", photo)).name
        get = pb.GetCaptionRequest(image=image)
        assert (await client.sessions.GetCaption(get)).text == ""
        await client.sessions.SetCaption(pb.SetCaptionRequest(image=image, text=" ein Röboter "))
        assert (await client.sessions.GetCaption(get)).text == "ein Röboter"
        assert store.get("sessions/robot/captions/a.txt").decode() == "ein Röboter\n"
        await client.sessions.SetCaption(pb.SetCaptionRequest(image=image, text=""))
        assert not store.exists("sessions/robot/captions/a.txt")
        await client.sessions.SetCaption(pb.SetCaptionRequest(image=image, text="again"))
        await client.sessions.DeleteImage(pb.DeleteImageRequest(name=image))
        assert not store.exists("sessions/robot/captions/a.txt")

    async def test_unknown_images(self, client: Client) -> None:
        made = await create(client, "robot")
        name = f"{made.name}/images/none.png"
        for call in (
            client.sessions.GetCaption(pb.GetCaptionRequest(image=name)),
            client.sessions.SetCaption(pb.SetCaptionRequest(image=name, text="x")),
            client.sessions.DeleteImage(pb.DeleteImageRequest(name=name)),
            client.sessions.PreviewCrop(pb.PreviewCropRequest(session=made.name, images=[name])).read(),
            client.sessions.PreviewCrop(pb.PreviewCropRequest(session="sessions/nobody")).read(),
        ):
            assert (await refused(call))[0] == StatusCode.NOT_FOUND


class TestCrops:
    """PreviewCrop and ApplyCrop."""

    async def test_preview_stores_nothing(self, client: Client, photo: bytes, store: ObjectStore) -> None:
        made = await create(client, "robot")
        for name in ("a.png", "b.png"):
            await upload(client, made.name, name, photo)
        request = pb.PreviewCropRequest(session=made.name, images=[f"{made.name}/images/b.png"])
        (result,) = [found async for found in client.sessions.PreviewCrop(request)]
        assert (result.image, result.num_done, result.num_total) == (f"{made.name}/images/b.png", 1, 1)
        assert Image.open(io.BytesIO(result.data)).size == (512, 512)
        assert store.get("sessions/robot/instance_images/b.png") == photo

    async def test_apply_replaces_and_a_repeat_changes_nothing(self, client: Client, photo: bytes) -> None:
        made = await create(client, "robot")
        await upload(client, made.name, "a.png", photo)
        await client.sessions.SetCaption(pb.SetCaptionRequest(image=f"{made.name}/images/a.png", text="a robot"))
        request = pb.ApplyCropRequest(session=made.name, size_px=64)
        (result,) = [found async for found in client.sessions.ApplyCrop(request)]
        assert (result.method, result.edge_px, result.data) == (pb.CROP_METHOD_SALIENCY, 64, b"")
        before = await client.sessions.ListImages(pb.ListImagesRequest(parent=made.name))
        assert [(image.width_px, image.height_px, image.caption) for image in before.images] == [(64, 64, "a robot")]
        (again,) = [found async for found in client.sessions.ApplyCrop(request)]
        assert again.method == pb.CROP_METHOD_UNCHANGED
        assert await client.sessions.ListImages(pb.ListImagesRequest(parent=made.name)) == before

    async def test_a_bad_image_does_not_end_the_call(self, client: Client, photo: bytes, store: ObjectStore) -> None:
        made = await create(client, "robot")
        for name in ("a.png", f"{'b' * 201}.png", ".DS_Store"):
            store.put(f"sessions/robot/instance_images/{name}", b"put here by hand")
        await upload(client, made.name, "c.png", photo)
        request = pb.ApplyCropRequest(session=made.name, size_px=64)
        bad, long, good = [found async for found in client.sessions.ApplyCrop(request)]
        assert "a.png: is none of PNG" in bad.error
        assert "1 to 200 bytes" in long.error
        assert (good.error, good.num_done, good.num_total) == ("", 3, 3)
