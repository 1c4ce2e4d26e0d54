"""One interceptor around every call: request id, drain, token, validation, errors, metrics and access log.

`server.py` installs it. The four kinds of RPC differ only in how messages come and go, so each has a thin wrapper, and
the life of a call is written once, in `_Call`. Business rules and their exceptions belong to the servicers.
"""

import asyncio
import contextlib
import functools
import inspect
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Final, Never, Self, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status

from chassis import auth, errors, logs, validation
from chassis.metrics import CallMetrics

logger = logging.getLogger("chassis.calls")

REQUEST_ID_KEY: Final = "x-request-id"
HEALTH_SERVICE: Final = "grpc.health.v1.Health"
REFLECTION_SERVICE: Final = "grpc.reflection.v1alpha.ServerReflection"
_REQUEST_ID_PATTERN: Final = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every method of a server. An empty token switches auth off."""

    def __init__(self, table: errors.ErrorTable, token: str, metrics: CallMetrics) -> None:
        self.table = table
        self.metrics = metrics
        self._token = token
        self._draining = False
        self._num_active = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def num_active(self) -> int:
        """Calls that a drain waits for: all but health and reflection, whose streams may stay open for ever."""
        return self._num_active

    @property
    def is_draining(self) -> bool:
        """Whether new calls are refused."""
        return self._draining

    def start_draining(self) -> None:
        """Refuse new calls (except health) with UNAVAILABLE from now on."""
        self._draining = True

    async def wait_idle(self) -> None:
        """Return once no call is active."""
        await self._idle.wait()

    def count_active(self, change: int) -> None:
        """Note that a call has begun (+1) or ended (-1)."""
        self._num_active += change
        if self._num_active:
            self._idle.clear()
        else:
            self._idle.set()

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Called by grpc when a call arrives, before its first message is read."""
        path = handler_call_details.method
        handler = await continuation(handler_call_details)
        service, _, method = path.lstrip("/").rpartition("/")
        refusal = self._refusal(service, handler_call_details, known=handler is not None)
        if handler is None:  # Names chosen by callers must not become labels of metrics.
            service, method = "unknown", "unknown"
        begin = functools.partial(_Call, self, service, method)
        if handler is None or refusal is not None:
            return _refuse(refusal or errors.MethodUnknown(f"no method {path} on this server"), begin)
        return _wrap(handler, begin)

    def _refusal(self, service: str, details: grpc.HandlerCallDetails, known: bool) -> Exception | None:
        """Why this call is not let in, decided before a byte of its messages is read."""
        if service == HEALTH_SERVICE and known:
            return None
        if self._draining:
            return errors.ShuttingDown("the server is shutting down; try again, another one may answer")
        if self._token:
            try:
                auth.check_header(self._token, _metadata_value(details.invocation_metadata, "authorization"))
            except (auth.TokenMissing, auth.TokenWrong) as error:
                return error
        return None


class _Call:
    """The life of one call, from its arrival to its status: an async context manager around the servicer."""

    def __init__(self, owner: CallInterceptor, service: str, method: str, context: Context) -> None:
        self.request_id = _request_id_of(context)
        self.context = _CallContext(context, self.request_id)
        self._owner = owner
        self._inner = context
        self._service = service
        self._method = method
        self._is_infrastructure = service in (HEALTH_SERVICE, REFLECTION_SERVICE)

    async def __aenter__(self) -> Self:
        # The call runs in a task of its own, so nothing needs to reset the variable.
        logs.request_id.set(self.request_id)
        self._started = time.perf_counter()
        self._owner.metrics.in_flight.labels(self._service, self._method).inc()
        if not self._is_infrastructure:
            self._owner.count_active(+1)
        self.context.set_trailing_metadata(())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError) and not _cancelled_from_outside():
            error = RuntimeError("the handler cancelled itself")
        try:
            if isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
                await self._fail(error)
            else:
                self._record(self._code_of(error), reason="")
        finally:
            if not self._is_infrastructure:
                self._owner.count_active(-1)

    async def _fail(self, error: Exception) -> None:
        """Send the error's status. Raises grpc's AbortError, which tells grpc that the status is sent."""
        failure = errors.describe(error, self._owner.table, self.request_id)
        if not failure.known:
            logger.error("%s/%s failed", self._service, self._method, exc_info=error)
        self._record(failure.code, failure.reason)
        status = rpc_status.to_status(failure.status())
        metadata = tuple(status.trailing_metadata)
        if failure.retry_seconds is not None:
            metadata += (("grpc-retry-pushback-ms", str(round(failure.retry_seconds * 1000))),)
        await self.context.abort(status.code, status.details, metadata)

    def _code_of(self, error: BaseException | None) -> grpc.StatusCode:
        """The status of a call that ended by itself, by `context.abort` or by a cancellation."""
        if isinstance(error, asyncio.CancelledError):
            remaining = self._inner.time_remaining()
            is_late = remaining is not None and remaining <= 0
            return grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED
        code: Any = self._inner.code()  # None while nobody has set it, and a number after an abort.
        return code if isinstance(code, grpc.StatusCode) else _CODES[code or 0]

    def _record(self, code: grpc.StatusCode, reason: str) -> None:
        """Count and log the end of the call; before the status is sent, so that its receiver finds it counted."""
        labels = (self._service, self._method)
        seconds = time.perf_counter() - self._started
        metrics = self._owner.metrics
        metrics.in_flight.labels(*labels).dec()
        metrics.calls.labels(*labels, code.name).inc()
        metrics.seconds.labels(*labels).observe(seconds)
        if code not in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED):
            metrics.failures.labels(*labels, reason or code.name).inc()
        fields = {"code": code.name, "seconds": round(seconds, 6), "peer": self._inner.peer()}
        if reason:
            fields["reason"] = reason
        level = logging.DEBUG if self._is_infrastructure else logging.INFO
        logger.log(level, "%s/%s", self._service, self._method, extra=fields)


class _CallContext:
    """grpc's context as servicers see it: it keeps the request id in the trailer and validates what `read` returns."""

    def __init__(self, inner: Context, request_id: str) -> None:
        self._inner = inner
        self._own_metadata = ((REQUEST_ID_KEY, request_id),)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def read(self) -> Any:
        message = await self._inner.read()
        return message if message is grpc.aio.EOF else _check(message)

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        self._inner.set_trailing_metadata((*self._own_metadata, *trailing_metadata))

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> Never:
        earlier = tuple(self._inner.trailing_metadata() or self._own_metadata)
        await self._inner.abort(code, details, (*earlier, *trailing_metadata))

    async def abort_with_status(self, status: grpc.Status) -> Never:
        await self.abort(status.code, status.details, tuple(status.trailing_metadata or ()))


class _Malformed:
    """Stands for a request whose bytes could not be parsed, until `_check` may raise inside the call."""


def _wrap(handler: Handler, begin: Callable[[Context], _Call]) -> Handler:
    """The same method inside the life of a call."""
    kinds = (
        (grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler),
        (grpc.stream_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler),
    )
    behaviors = ((handler.unary_unary, handler.unary_stream), (handler.stream_unary, handler.stream_stream))
    behavior: Any = behaviors[handler.request_streaming][handler.response_streaming]
    check = _check_each if handler.request_streaming else _check

    async def answer_once(request: Any, context: Context) -> Any:
        async with begin(context) as call:
            return await behavior(check(request), call.context)

    async def answer_many(request: Any, context: Context) -> None:
        async with begin(context) as call:
            responses = behavior(check(request), call.context)
            if inspect.isawaitable(responses):  # The servicer writes by itself, with context.write.
                await responses
                return
            # Closed here and now, so that a servicer's `finally` runs when its client goes, not at some collection.
            async with contextlib.aclosing(responses):
                async for response in responses:
                    await context.write(response)

    return kinds[handler.request_streaming][handler.response_streaming](
        answer_many if handler.response_streaming else answer_once,
        request_deserializer=_forgiving(handler.request_deserializer),
        response_serializer=handler.response_serializer,
    )


def _refuse(refusal: Exception, begin: Callable[[Context], _Call]) -> Handler:
    """A method that answers with the refusal. As a stream it answers before any message has been received."""

    async def answer(_: AsyncIterator[bytes], context: Context) -> None:
        async with begin(context):
            raise refusal

    return grpc.stream_stream_rpc_method_handler(answer)


def _check(request: Any) -> Any:
    """Return the request if it is well-formed and valid; raises RequestMalformed or InvalidFields."""
    if isinstance(request, _Malformed):
        raise errors.RequestMalformed("the request's bytes are not a message of this method's request type")
    if isinstance(request, Message):
        validation.check(request)
    return request


async def _check_each(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _check(request)


def _forgiving(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """grpc answers a deserializer's exception itself, with UNKNOWN and the inner text, so none may leave it."""
    if deserialize is None:
        return None

    def parse(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _Malformed()

    return parse


def _cancelled_from_outside() -> bool:
    """False if a cancelled task inside the handler leaked its CancelledError: grpc would leave such a call hanging."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _request_id_of(context: Context) -> str:
    """The caller's id if it is fit for logs and headers, else a new one; the trailer tells the caller which."""
    presented = _metadata_value(context.invocation_metadata(), REQUEST_ID_KEY)
    return presented if presented and _REQUEST_ID_PATTERN.fullmatch(presented) else uuid.uuid4().hex


def _metadata_value(metadata: Iterable[tuple[str, str | bytes]] | None, key: str) -> str | None:
    for name, value in metadata or ():
        if name == key and isinstance(value, str):
            return value
    return None
