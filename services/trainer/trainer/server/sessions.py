"""SessionService on the wire: messages to calls of `session_store`, `uploads` and `cropping`, and back."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeAlias

import grpc
from artifacts.sessions import InstanceImage
from artifacts.store import ObjectStore
from darkroom.trainer.v1 import session_pb2 as pb
from darkroom.trainer.v1 import session_pb2_grpc

from trainer.cropping import Cropper, Outcome
from trainer.errors import UploadMalformed
from trainer.runs import Runs
from trainer.server import archives
from trainer.server.training import to_timestamp
from trainer.session_store import Counted, SessionStore, image_key
from trainer.uploads import Upload

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

# A picture of 64 megapixels is 256 MiB while it is decoded.
_CHECKS_AT_ONCE = 2


class SessionServicer(session_pb2_grpc.SessionServiceServicer):
    """The calls of SessionService."""

    def __init__(self, store: ObjectStore, runs: Runs, cropper: Cropper) -> None:
        self._objects = store
        self._store = SessionStore(store, runs)
        self._cropper = cropper
        self._checks = asyncio.Semaphore(_CHECKS_AT_ONCE)

    async def CreateSession(self, request: pb.CreateSessionRequest, context: Context) -> pb.Session:
        wanted = request.session
        return to_session(
            await asyncio.to_thread(
                self._store.create, request.session_id, wanted.base_model, wanted.description, request.request_id
            )
        )

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.Session:
        return to_session(await asyncio.to_thread(self._store.get, _session_of(request.name)))

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        found, token = await asyncio.to_thread(self._store.page, request.page_size, request.page_token)
        return pb.ListSessionsResponse(sessions=map(to_session, found), next_page_token=token)

    async def DeleteSession(self, request: pb.DeleteSessionRequest, context: Context) -> pb.DeleteSessionResponse:
        count = await asyncio.to_thread(self._store.delete, _session_of(request.name))
        return pb.DeleteSessionResponse(num_objects=count)

    async def UploadImage(
        self, request_iterator: AsyncIterator[pb.UploadImageRequest], context: Context
    ) -> pb.InstanceImage:
        upload = None
        async for request in request_iterator:
            if (request.WhichOneof("part") == "header") == (upload is not None):
                raise UploadMalformed("an upload is one header first, then chunks")
            if upload is None:
                upload = await self._begin(request.header)
            else:
                upload.add(request.chunk)
        if upload is None:
            raise UploadMalformed("the upload ended without a header")
        async with self._checks:
            size = await asyncio.to_thread(upload.check)
        # A client that goes away ends the stream like one that is done; by now the call of the former is cancelled.
        image = await asyncio.to_thread(upload.store, self._store.sessions, size)
        return to_image(upload.session, image)

    async def _begin(self, header: pb.UploadImageHeader) -> Upload:
        session = _session_of(header.session)
        upload = Upload(session, header.filename, header.size_bytes, header.sha256)
        await asyncio.to_thread(self._store.sessions.get, session)  # before the client sends all of it
        return upload

    async def ListImages(self, request: pb.ListImagesRequest, context: Context) -> pb.ListImagesResponse:
        session = _session_of(request.parent)
        found, token = await asyncio.to_thread(self._store.image_page, session, request.page_size, request.page_token)
        return pb.ListImagesResponse(images=[to_image(session, image) for image in found], next_page_token=token)

    async def DeleteImage(self, request: pb.DeleteImageRequest, context: Context) -> pb.DeleteImageResponse:
        await asyncio.to_thread(self._store.sessions.delete_image, *_image_of(request.name))
        return pb.DeleteImageResponse()

    async def GetCaption(self, request: pb.GetCaptionRequest, context: Context) -> pb.ImageCaption:
        text = await asyncio.to_thread(self._store.caption, *_image_of(request.image))
        return pb.ImageCaption(image=request.image, text=text)

    async def SetCaption(self, request: pb.SetCaptionRequest, context: Context) -> pb.ImageCaption:
        text = await asyncio.to_thread(self._store.set_caption, *_image_of(request.image), request.text)
        return pb.ImageCaption(image=request.image, text=text)

    async def PreviewCrop(self, request: pb.PreviewCropRequest, context: Context) -> AsyncIterator[pb.CropResult]:
        session, filenames = _session_of(request.session), _filenames(request.session, request.images)
        async for outcome in self._cropper.preview(session, request.size_px, filenames):
            yield to_crop_result(session, outcome, with_data=True)

    async def ApplyCrop(self, request: pb.ApplyCropRequest, context: Context) -> AsyncIterator[pb.CropResult]:
        session, filenames = _session_of(request.session), _filenames(request.session, request.images)
        async for outcome in self._cropper.apply(session, request.size_px, filenames):
            yield to_crop_result(session, outcome, with_data=False)

    def ExportSession(
        self, request: pb.ExportSessionRequest, context: Context
    ) -> AsyncIterator[pb.ExportSessionResponse]:
        return archives.export_session(self._objects, request)

    def ImportSession(
        self, request_iterator: AsyncIterator[pb.ImportSessionRequest], context: Context
    ) -> AsyncIterator[pb.ImportSessionResponse]:
        return archives.import_session(self._objects, request_iterator, lambda name: to_session(self._store.get(name)))


def to_session(found: Counted) -> pb.Session:
    """The wire form of a session."""
    return pb.Session(
        name=f"sessions/{found.session.name}",
        base_model=found.session.base_model,
        description=found.session.description,
        create_time=to_timestamp(found.session.create_time),
        num_images=found.num_images,
        num_captions=found.num_captions,
    )


def to_image(session: str, image: InstanceImage) -> pb.InstanceImage:
    """The wire form of an image."""
    return pb.InstanceImage(
        name=f"sessions/{session}/images/{image.filename}",
        size_bytes=image.size_bytes,
        width_px=image.width,
        height_px=image.height,
        sha256=image.sha256,
        caption=image.caption or "",
        object=image_key(session, image.filename),
    )


def to_crop_result(session: str, outcome: Outcome, with_data: bool) -> pb.CropResult:
    """The wire form of a crop."""
    message = pb.CropResult(
        image=f"sessions/{session}/images/{outcome.filename}",
        error=outcome.error,
        num_done=outcome.num_done,
        num_total=outcome.num_total,
    )
    if outcome.cropped:
        message.method = pb.CropMethod.Value(f"CROP_METHOD_{outcome.cropped.method}")
        message.left_px, message.top_px = outcome.cropped.square.left, outcome.cropped.square.top
        message.edge_px = outcome.cropped.square.edge
        message.data = outcome.cropped.data if with_data else b""
    return message


def _session_of(name: str) -> str:
    return name.removeprefix("sessions/")


def _image_of(name: str) -> tuple[str, str]:
    """Session and file name of "sessions/{session}/images/{image}"."""
    _, session, _, filename = name.split("/")
    return session, filename


def _filenames(session: str, images: Iterable[str]) -> list[str]:
    # A name of another session keeps its slashes and is then found in none.
    return [name.removeprefix(f"{session}/images/") for name in images]
