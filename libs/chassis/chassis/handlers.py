"""Servicer methods of all four kinds as one kind of gRPC handler, each inside the life of a `Call`.

`interceptor.py` asks for them. To grpc every method looks like a stream of bytes in both directions, because then the
call begins before its first message: it is counted while it uploads, refused without reading, and what goes wrong with
parsing, validating and serializing is an error like any other.
"""

import contextlib
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any, Never, Self, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message

from chassis import errors, validation
from chassis.calls import Call, Context, Metadata

Begin: TypeAlias = Callable[[Context], Call]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def serve(handler: Handler, begin: Begin, max_response_bytes: int) -> Handler:
    """The handler's method inside a call, with requests parsed and validated."""
    unary_request = (handler.unary_unary, handler.unary_stream)
    stream_request = (handler.stream_unary, handler.stream_stream)
    behavior: Any = (stream_request if handler.request_streaming else unary_request)[handler.response_streaming]

    async def answer(_: AsyncIterator[bytes], context: Context) -> None:
        async with begin(context) as call:
            messages = _Messages(call, handler, max_response_bytes)
            request = messages if handler.request_streaming else await messages.only()
            result = behavior(request, _ServicerContext(call, messages))
            if not handler.response_streaming:
                await messages.write(await result, is_last=True)
            elif inspect.isawaitable(result):  # The servicer writes by itself, with context.write.
                await result
            else:
                # Closed here and now, so that a servicer's `finally` runs when its client goes, not at some collection.
                async with contextlib.aclosing(result):
                    async for response in result:
                        await messages.write(response)

    return grpc.stream_stream_rpc_method_handler(answer)


def refuse(refusal: Exception, begin: Begin) -> Handler:
    """A method that answers with the refusal before any message has been received."""

    async def answer(_: AsyncIterator[bytes], context: Context) -> None:
        async with begin(context):
            raise refusal

    return grpc.stream_stream_rpc_method_handler(answer)


class _Messages:
    """The requests of one call as an async iterator of valid messages, and the way back for its responses."""

    def __init__(self, call: Call, handler: Handler, max_response_bytes: int) -> None:
        self._call = call
        self._parse = handler.request_deserializer
        self._serialize = handler.response_serializer
        self._max_response_bytes = max_response_bytes

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        message = await self.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message

    async def read(self) -> Any:
        """The next request, grpc.aio.EOF after the last. Raises RequestMalformed or InvalidFields.

        A client that goes away, or sends a message over the limit, looks to grpc.aio like one that has said everything:
        the cancellation comes a little later. A servicer would take half an upload for a whole one. Asking once more
        makes the difference: the second answer comes after the cancellation, if there is one.
        """
        data: Any = await self._call.context.read()
        if data is grpc.aio.EOF:
            return await self._call.context.read()
        message = self._parsed(data)
        if isinstance(message, Message):
            validation.check(message)
        return message

    async def only(self) -> Any:
        """The request of a method that takes one."""
        message = await self.read()
        if message is grpc.aio.EOF:
            raise errors.RequestMalformed("the call ended without a request message")
        return message

    async def write(self, response: Any, is_last: bool = False) -> None:
        """Send a response. Raises ResponseTooLarge and what `Call.send` raises."""
        data = self._serialize(response) if self._serialize else response
        if len(data) > self._max_response_bytes:
            raise errors.ResponseTooLarge(num_bytes=len(data), max_bytes=self._max_response_bytes)
        await self._call.send(data, is_last)

    def _parsed(self, data: bytes) -> Any:
        if self._parse is None:
            return data
        try:
            return self._parse(data)
        except DecodeError as error:
            message = "the request's bytes are not a message of this method's request type"
            raise errors.RequestMalformed(message) from error


class _ServicerContext:
    """grpc's context as servicers see it: with messages instead of bytes, and the request id kept in the trailer."""

    def __init__(self, call: Call, messages: _Messages) -> None:
        self._call = call
        self.read = messages.read
        self.write = messages.write
        self.set_trailing_metadata = call.set_trailing_metadata

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call.context, name)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> Never:
        await self._call.abort(code, details, trailing_metadata)

    async def abort_with_status(self, status: grpc.Status) -> Never:
        await self._call.abort(status.code, status.details, tuple(status.trailing_metadata or ()))
