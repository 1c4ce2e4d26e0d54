"""ExportSession and ImportSession on the wire: `session_export` and `session_import` as streams."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, TypeAlias

from artifacts.store import ObjectStore
from darkroom.trainer.v1 import session_pb2 as pb

from trainer import archive_index
from trainer.archive_staging import Arrival
from trainer.errors import UploadMalformed
from trainer.session_export import SessionExport
from trainer.session_import import SessionImport

_Part: TypeAlias = Literal["index", "entry", "data"]


async def export_session(
    store: ObjectStore, request: pb.ExportSessionRequest
) -> AsyncIterator[pb.ExportSessionResponse]:
    """The answers of ExportSession."""
    name = request.name.removeprefix("sessions/")
    export = await asyncio.to_thread(SessionExport, store, name, request.include_checkpoints)
    export.check(request.offset, request.etag)
    yield pb.ExportSessionResponse(
        header=pb.ExportHeader(
            size_bytes=export.size_bytes,
            etag=export.etag,
            num_entries=len(export.index.entries),
            num_checkpoints=len(export.index.checkpoints),
        )
    )
    data = export.read(request.offset)
    while block := await asyncio.to_thread(next, data, b""):
        yield pb.ExportSessionResponse(data=block)


async def import_session(
    store: ObjectStore, requests: AsyncIterator[pb.ImportSessionRequest], to_session: Callable[[str], pb.Session]
) -> AsyncIterator[pb.ImportSessionResponse]:
    """The answers of ImportSession. to_session: the session of this name as a message; blocking."""
    session_id, index = await _opening(requests)
    started = await asyncio.to_thread(SessionImport, store, index, session_id)
    yield pb.ImportSessionResponse(
        missing=pb.MissingEntries(
            paths=[entry.path for entry in started.missing],
            size_bytes=sum(entry.size_bytes for entry in started.missing),
            total_bytes=started.total_bytes,
        )
    )
    for _ in range(len(started.missing)):
        yield pb.ImportSessionResponse(stored=await _receive(started, requests))
    async for request in requests:
        raise UploadMalformed(f"{request.WhichOneof('part')} came after the last entry")
    # A client that goes away ends the stream like one that is done; by now the call of the former is cancelled.
    done = await asyncio.to_thread(started.publish)
    yield pb.ImportSessionResponse(
        result=pb.ImportResult(
            session=await asyncio.to_thread(to_session, done.session),
            unchanged=done.unchanged,
            checkpoints=[f"checkpoints/{checkpoint}" for checkpoint in done.checkpoints],
        )
    )


async def _opening(requests: AsyncIterator[pb.ImportSessionRequest]) -> tuple[str, bytes]:
    """The header's session id and the whole index. Raises UploadMalformed."""
    first = await anext(requests, None)
    if first is None or first.WhichOneof("part") != "header":
        raise UploadMalformed("an import is one header first, then the index")
    index = bytearray()
    while len(index) < first.header.index_bytes:
        index += await _next(requests, "index", archive_index.NAME)
    if len(index) != first.header.index_bytes:
        raise UploadMalformed(f"the header promised {first.header.index_bytes} bytes of index, {len(index)} came")
    return first.header.session_id, bytes(index)


async def _receive(started: SessionImport, requests: AsyncIterator[pb.ImportSessionRequest]) -> str:
    """Take one entry in; its path."""
    path = str(await _next(requests, "entry", "the archive"))
    arrival: Arrival = await asyncio.to_thread(started.receive, path)
    try:
        while not arrival.is_complete:
            await asyncio.to_thread(arrival.write, await _next(requests, "data", path))
        await asyncio.to_thread(started.finish, arrival)
    except BaseException:
        await asyncio.shield(asyncio.to_thread(arrival.abort))
        raise
    return path


async def _next(requests: AsyncIterator[pb.ImportSessionRequest], part: _Part, of: str) -> Any:
    """That part of the next message, which must be of this kind. Raises UploadMalformed."""
    request = await anext(requests, None)
    found = request.WhichOneof("part") if request else "the end of the stream"
    if request is None or found != part:
        raise UploadMalformed(f"{part} of {of} was expected, {found} came")
    return getattr(request, part)
