"""The echo service of the tests, in-process and as a program of its own. Needs the stubs that conftest generates."""

import asyncio
import functools
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import echo_pb2
import echo_pb2_grpc
import grpc
from chassis.config import ServerConfig
from chassis.errors import ErrorRule
from chassis.program import read_config
from chassis.server import Binding, Server, run

SERVICE = "chassis.echo.v1.EchoService"
OTHER_SERVICE = "chassis.echo.v1.OtherService"
Act = Callable[[echo_pb2.EchoRequest, Any], Awaitable[None]]


@dataclass(frozen=True)
class Busy(Exception):
    """A domain error with fields."""

    queue_length: int
    retry_seconds: float = 1.5
    _private: str = "not for callers"

    def __str__(self) -> str:
        return f"{self.queue_length} requests are waiting, at most 3 may"


class LookupFailed(Exception):
    """A base class with an entry in the table; its subclasses have none."""


class TextUnknown(LookupFailed):
    """Found by its base class."""


ERRORS = {
    Busy: ErrorRule(grpc.StatusCode.RESOURCE_EXHAUSTED, "BUSY", retry_seconds=9.0),
    LookupFailed: ErrorRule(grpc.StatusCode.NOT_FOUND, "TEXT_NOT_FOUND"),
}


async def do_nothing(request: echo_pb2.EchoRequest, context: Any) -> None:
    """What the service does before it answers, unless a test says otherwise."""


@dataclass
class EchoServicer(echo_pb2_grpc.EchoServiceServicer):
    """Runs `act` on every request before answering it; `closed` is set when a streaming handler has ended."""

    act: Act = do_nothing
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def Say(self, request: echo_pb2.EchoRequest, context: Any) -> echo_pb2.EchoResponse:
        try:
            await self.act(request, context)
            return echo_pb2.EchoResponse(text=request.text)
        finally:
            self.closed.set()

    async def Repeat(self, request: echo_pb2.EchoRequest, context: Any) -> AsyncIterator[echo_pb2.EchoResponse]:
        try:
            for _ in range(request.times):
                yield echo_pb2.EchoResponse(text=request.text)
                await self.act(request, context)
        finally:
            self.closed.set()

    async def Join(self, request_iterator: AsyncIterator[Any], context: Any) -> echo_pb2.EchoResponse:
        texts = []
        async for request in request_iterator:
            await self.act(request, context)
            texts.append(request.text)
        return echo_pb2.EchoResponse(text="".join(texts))

    async def Chat(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[echo_pb2.EchoResponse]:
        async for request in request_iterator:
            await self.act(request, context)
            yield echo_pb2.EchoResponse(text=request.text)

    async def WatchText(self, request: echo_pb2.EchoRequest, context: Any) -> AsyncIterator[echo_pb2.EchoResponse]:
        try:
            yield echo_pb2.EchoResponse(text=request.text)
            await asyncio.Event().wait()
        finally:
            self.closed.set()


class ReaderWriterServicer(EchoServicer):
    """The same streams written with grpc's other interface: context.read and context.write."""

    async def Repeat(self, request: echo_pb2.EchoRequest, context: Any) -> None:
        for _ in range(request.times):
            await context.write(echo_pb2.EchoResponse(text=request.text))

    async def Join(self, request_iterator: AsyncIterator[Any], context: Any) -> echo_pb2.EchoResponse:
        texts = []
        while (request := await context.read()) is not grpc.aio.EOF:
            await self.act(request, context)
            texts.append(request.text)
        return echo_pb2.EchoResponse(text="".join(texts))

    async def Chat(self, request_iterator: AsyncIterator[Any], context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            await self.act(request, context)
            await context.write(echo_pb2.EchoResponse(text=request.text))

    async def WatchText(self, request: echo_pb2.EchoRequest, context: Any) -> None:
        try:
            await context.write(echo_pb2.EchoResponse(text=request.text))
            await asyncio.Event().wait()
        finally:
            self.closed.set()


def start(stub: Any, method: str, *requests: Any, **arguments: Any) -> Any:
    """Call the method with one request or with a stream of them, as its kind wants."""
    is_stream = method in ("Join", "Chat")
    return getattr(stub, method)(iter(requests) if is_stream else requests[0], **arguments)


async def texts(call: Any) -> list[str]:
    """The texts of all responses."""
    if hasattr(call, "__aiter__"):
        return [response.text async for response in call]
    return [(await call).text]


def make_server(servicer: EchoServicer, config: ServerConfig) -> Server:
    """A server of the echo service."""
    bindings = [
        Binding(SERVICE, functools.partial(echo_pb2_grpc.add_EchoServiceServicer_to_server, servicer)),
        Binding(OTHER_SERVICE, functools.partial(echo_pb2_grpc.add_OtherServiceServicer_to_server, servicer)),
    ]
    return Server("echo", config, bindings, ERRORS)


def main() -> int:
    """The echo service as a process. ECHO_LOAD names a FIFO that its loading reads until its writer closes it."""

    async def load() -> None:
        path = os.environ.get("ECHO_LOAD")
        if path and await asyncio.to_thread(Path(path).read_text) == "fail":
            raise RuntimeError("the model is broken")

    async def close() -> None:
        print("closed", flush=True)

    config = read_config(ServerConfig, "Says again what it is told.")
    return asyncio.run(run(make_server(EchoServicer(), config), load, close))


if __name__ == "__main__":
    sys.exit(main())
