"""Channels to Darkroom's services, for other services, the command line and tests.

They carry the token and the request id of the call being served, and allow messages as large as the servers do.
Stubs, deadlines and retries are left to the caller.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import grpc

from chassis import logs

DEFAULT_MAX_MESSAGE_BYTES: Final = 64 * 1024**2
KEEPALIVE_MILLISECONDS: Final = 60_000
MAX_RECONNECT_MILLISECONDS: Final = 5_000

Metadata = list[tuple[str, str | bytes]]


def channel(
    target: str,
    token: str = "",
    *,
    root_certificate_file: str = "",
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
) -> grpc.aio.Channel:
    """An asyncio channel to "host:port".

    token: sent with every call if given. root_certificate_file: PEM of the authority that signed the server's
    certificate; given, the channel speaks TLS, else plaintext.
    """
    interceptors = [cls(token) for cls in (_UnaryUnary, _UnaryStream, _StreamUnary, _StreamStream)]
    options = _options(max_message_bytes)
    if root_certificate_file:
        return grpc.aio.secure_channel(target, _tls(root_certificate_file), options, interceptors=interceptors)
    return grpc.aio.insecure_channel(target, options, interceptors=interceptors)


def blocking_channel(
    target: str,
    token: str = "",
    *,
    root_certificate_file: str = "",
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
) -> grpc.Channel:
    """The same as `channel` for code without an event loop."""
    options = _options(max_message_bytes)
    if root_certificate_file:
        plain = grpc.secure_channel(target, _tls(root_certificate_file), options)
    else:
        plain = grpc.insecure_channel(target, options)
    return grpc.intercept_channel(plain, _Blocking(token))


def _options(max_message_bytes: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # A restarted server is found again in seconds; gRPC's own pauses between attempts grow to two minutes.
        ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MILLISECONDS),
        ("grpc.keepalive_time_ms", KEEPALIVE_MILLISECONDS),  # Notice a server that vanished while a stream is quiet.
    ]


def _tls(root_certificate_file: str) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(Path(root_certificate_file).read_bytes())


def _with_own_metadata(given: Any, token: str) -> Metadata:
    """The caller's metadata and, where the caller has not set them, the token and the request id."""
    metadata: Metadata = list(given or ())
    names = {name for name, _ in metadata}
    if token and "authorization" not in names:
        metadata.append(("authorization", f"Bearer {token}"))
    if (identifier := logs.request_id.get()) and "x-request-id" not in names:
        metadata.append(("x-request-id", identifier))
    return metadata


class _Asynchronous:
    """What the four asynchronous interceptors share; grpc.aio takes each object for one kind of RPC only."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def _call(
        self, proceed: Callable[..., Awaitable[Any]], details: grpc.aio.ClientCallDetails, sent: Any
    ) -> Any:
        metadata = grpc.aio.Metadata(*_with_own_metadata(details.metadata, self._token))
        own = grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )
        return await proceed(own, sent)


class _UnaryUnary(_Asynchronous, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._call(continuation, client_call_details, request)


class _UnaryStream(_Asynchronous, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._call(continuation, client_call_details, request)


class _StreamUnary(_Asynchronous, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._call(continuation, client_call_details, request_iterator)


class _StreamStream(_Asynchronous, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._call(continuation, client_call_details, request_iterator)


class _BlockingDetails(grpc.ClientCallDetails):
    """Overrides the metadata; grpc takes what is missing here from the call's own details."""

    def __init__(self, metadata: Metadata) -> None:
        self.metadata = tuple(metadata)


class _Blocking(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def __init__(self, token: str) -> None:
        self._token = token

    def _call(self, proceed: Callable[..., Any], details: Any, sent: Any) -> Any:
        return proceed(_BlockingDetails(_with_own_metadata(details.metadata, self._token)), sent)

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._call(continuation, client_call_details, request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._call(continuation, client_call_details, request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return self._call(continuation, client_call_details, request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return self._call(continuation, client_call_details, request_iterator)
