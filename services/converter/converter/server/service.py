"""ConverterService over gRPC: the servicer, the error table, and how the service is put together.

`__main__` runs what `build` makes; tests start the same in-process. Everything that blocks runs in threads.
"""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from artifacts.checkpoints import Checkpoints
from artifacts.errors import (
    AccessDenied,
    AlreadyExists,
    DigestMismatch,
    InvalidName,
    ManifestInvalid,
    NotFound,
    StoreError,
    StoreUnavailable,
)
from artifacts.store import ObjectStore
from chassis.errors import ErrorRule, ErrorTable
from chassis.metrics import process_registry
from chassis.server import Binding, Server
from darkroom.converter.v1 import converter_pb2 as pb
from darkroom.converter.v1 import converter_pb2_grpc as pb_grpc

from converter import errors, inspection, sources
from converter.config import ConverterConfig
from converter.jobs import Jobs
from converter.metrics import ConversionMetrics
from converter.server import messages

logger = logging.getLogger("converter.server")

SERVICE: Final = "darkroom.converter.v1.ConverterService"
_RETRY_SECONDS: Final = 2.0
# Watchers get changes together that follow each other faster than this.
_WATCH_SECONDS: Final = 0.1
# Conversions of another service are not announced here, so they are looked at.
_POLL_SECONDS: Final = 1.0

_S: Final = grpc.StatusCode
ERRORS: Final[ErrorTable] = {
    StoreUnavailable: ErrorRule(_S.UNAVAILABLE, "STORE_UNAVAILABLE", retry_seconds=_RETRY_SECONDS),
    AccessDenied: ErrorRule(_S.FAILED_PRECONDITION, "STORE_ACCESS_DENIED"),
    StoreError: ErrorRule(_S.FAILED_PRECONDITION, "STORE_REJECTED"),
    NotFound: ErrorRule(_S.NOT_FOUND, "NOT_FOUND"),
    AlreadyExists: ErrorRule(_S.ALREADY_EXISTS, "ALREADY_EXISTS"),
    InvalidName: ErrorRule(_S.INVALID_ARGUMENT, "INVALID_NAME"),
    DigestMismatch: ErrorRule(_S.DATA_LOSS, "DIGEST_MISMATCH"),
    ManifestInvalid: ErrorRule(_S.DATA_LOSS, "MANIFEST_INVALID"),
    errors.UnsafePickle: ErrorRule(_S.INVALID_ARGUMENT, "UNSAFE_PICKLE"),
    errors.CheckpointMalformed: ErrorRule(_S.INVALID_ARGUMENT, "CHECKPOINT_MALFORMED"),
    errors.AncestorMissing: ErrorRule(_S.FAILED_PRECONDITION, "ANCESTOR_MISSING"),
    errors.NotConvertible: ErrorRule(_S.FAILED_PRECONDITION, "NOT_CONVERTIBLE"),
    errors.ConversionExists: ErrorRule(_S.ALREADY_EXISTS, "CONVERSION_EXISTS"),
    errors.ConversionFinished: ErrorRule(_S.FAILED_PRECONDITION, "CONVERSION_FINISHED"),
}


class ConverterService(pb_grpc.ConverterServiceServicer):
    """The servicer, with the worker threads behind it."""

    def __init__(self, store: ObjectStore, metrics: ConversionMetrics, num_workers: int) -> None:
        self._store = store
        self._checkpoints = Checkpoints(store)
        self._jobs = Jobs(self._checkpoints, metrics, num_workers)

    async def load(self) -> None:
        """Make the bucket and take up unfinished conversions, waiting for the store as long as it takes."""
        while True:
            try:
                await asyncio.to_thread(self._store.ensure_bucket)
                await asyncio.to_thread(self._jobs.start)
            except StoreUnavailable as error:
                logger.warning("waiting for the store: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    async def close(self) -> None:
        """Interrupt conversions; the next service takes them up."""
        await asyncio.to_thread(self._jobs.stop)

    async def Inspect(self, request: pb.InspectRequest, context: object) -> pb.Inspection:
        """Read headers and say what the checkpoint is."""
        return messages.inspection(await asyncio.to_thread(self._inspect, request))

    def _inspect(self, request: pb.InspectRequest) -> inspection.Inspection:
        if request.WhichOneof("source") == "object":
            return inspection.inspect(sources.open_key(self._store, request.object))
        manifest = self._checkpoints.get(_id(request.checkpoint))
        return inspection.inspect(sources.open_checkpoint(self._checkpoints, manifest), manifest)

    async def CreateConversion(self, request: pb.CreateConversionRequest, context: object) -> pb.Conversion:
        """Check that the conversion can work, and begin it."""
        return messages.conversion(
            await asyncio.to_thread(
                self._jobs.create,
                _id(request.source),
                messages.FORMAT_NAMES[request.format],
                messages.PRECISION_NAMES[request.precision],
                request.checkpoint_id,
                request.request_id,
            )
        )

    async def GetConversion(self, request: pb.GetConversionRequest, context: object) -> pb.Conversion:
        """One conversion as it stands."""
        return messages.conversion(await asyncio.to_thread(self._jobs.get, _id(request.name)))

    async def ListConversions(self, request: pb.ListConversionsRequest, context: object) -> pb.ListConversionsResponse:
        """A page of conversions, newest first."""
        found = await asyncio.to_thread(self._jobs.list)
        return messages.page(found, request.page_size, request.page_token)

    async def CancelConversion(self, request: pb.CancelConversionRequest, context: object) -> pb.Conversion:
        """Ask it to stop."""
        return messages.conversion(await asyncio.to_thread(self._jobs.cancel, _id(request.name)))

    async def WatchConversion(
        self, request: pb.WatchConversionRequest, context: object
    ) -> AsyncIterator[pb.Conversion]:
        """Its state now and after each change, until it ends."""
        conversion_id = _id(request.name)
        changed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_change() -> None:
            loop.call_soon_threadsafe(changed.set)

        end = self._jobs.listen(on_change)
        last: Any = None
        try:
            while True:
                changed.clear()
                state = await asyncio.to_thread(self._jobs.get, conversion_id)
                if state != last:
                    yield messages.conversion(state)
                    last = state
                if state.is_final:
                    return
                await asyncio.sleep(_WATCH_SECONDS)
                if not self._jobs.is_live(conversion_id):
                    await asyncio.sleep(_POLL_SECONDS)
                else:
                    await changed.wait()
        finally:
            end()


def build(config: ConverterConfig) -> tuple[Server, ConverterService]:
    """The server, and the service whose `load` and `close` surround its life."""
    registry = process_registry()
    service = ConverterService(ObjectStore(config.store), ConversionMetrics(registry), config.num_workers)
    register = functools.partial(pb_grpc.add_ConverterServiceServicer_to_server, service)
    return Server("converter", config.server, [Binding(SERVICE, register)], ERRORS, registry), service


def _id(name: str) -> str:
    """The last part of a resource name, whose form the proto's rules have checked."""
    return name.partition("/")[2]
