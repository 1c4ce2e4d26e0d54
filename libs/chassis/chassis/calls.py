"""The life of a call, from its arrival to its status, and what the calls of one server share.

`handlers.py` runs servicers inside a `Call`; `interceptor.py` decides which calls are let in; `server.py` drains.
"""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final, Never, Self, TypeAlias

import grpc
from grpc_status import rpc_status

from chassis import errors, logs
from chassis.metrics import CallMetrics

logger = logging.getLogger("chassis.calls")

REQUEST_ID_KEY: Final = "x-request-id"
HEALTH_SERVICE: Final = "grpc.health.v1.Health"
REFLECTION_SERVICE: Final = "grpc.reflection.v1alpha.ServerReflection"
WATCH_PREFIX: Final = "Watch"
"""How the protos name a stream that only tells of work which goes on without it, for hours perhaps."""
_REQUEST_ID_PATTERN: Final = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class Ledger:
    """What the calls of one server share: error table, metrics, and which calls a drain waits for or ends."""

    def __init__(self, table: errors.ErrorTable, metrics: CallMetrics) -> None:
        self.table = table
        self.metrics = metrics
        self.is_draining = False
        self._calls: set[Call] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def num_active(self) -> int:
        """Calls that a drain waits for."""
        return len(self._calls)

    def drain(self) -> None:
        """Let no new call in, and end the watches with ShuttingDown. Safe to repeat."""
        if not self.is_draining:
            self.is_draining = True
            for call in self._calls:
                if call.is_watch:
                    call.interrupt()

    def interrupt(self) -> None:
        """End every call with ShuttingDown."""
        for call in self._calls:
            call.interrupt()

    def enter(self, call: "Call") -> None:
        """Note that a call has begun."""
        self._calls.add(call)
        self._idle.clear()

    def leave(self, call: "Call") -> None:
        """Note that a call has ended."""
        self._calls.discard(call)
        if not self._calls:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Return once no call is active."""
        await self._idle.wait()


class Call:
    """One call: an async context manager around its handler.

    An exception that leaves the block becomes the call's status, by the error table; nothing but grpc's own AbortError
    (the status is sent) and CancelledError (nobody is there to receive one) gets through to grpc.
    """

    def __init__(self, ledger: Ledger, service: str, method: str, context: Context) -> None:
        self.context = context
        self.request_id = _request_id_of(context)
        self._ledger = ledger
        self._service = service
        self._method = method
        # Health and reflection streams may stay open for ever: no drain waits for them, and no log line tells of them.
        self._is_infrastructure = service in (HEALTH_SERVICE, REFLECTION_SERVICE)
        self.is_watch = method.startswith(WATCH_PREFIX) and not self._is_infrastructure
        self._is_sending = False
        self._is_interrupted = False
        self._has_cancelled = False
        self._is_over = False

    async def __aenter__(self) -> Self:
        # The call runs in a task of its own, so nothing needs to reset the variable.
        logs.request_id.set(self.request_id)
        self._task = _current_task()
        self._started = time.perf_counter()
        self._ledger.metrics.in_flight.labels(self._service, self._method).inc()
        if not self._is_infrastructure:
            self._ledger.enter(self)
        self.set_trailing_metadata(())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            error = self._cause_of(error)
        try:
            if isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
                await self._fail(error)
            else:
                self._record(self._code_of(error), reason="")
        finally:
            if not self._is_infrastructure:
                self._ledger.leave(self)

    def interrupt(self) -> None:
        """Cancel the handler, as if its client had gone, and tell the client to try again. Later ones change nothing."""
        if self._is_interrupted or self._is_over:
            return
        self._is_interrupted = True
        if not self._is_sending:
            self._has_cancelled = True
            self._task.cancel()

    async def send(self, data: bytes, is_last: bool = False) -> None:
        """Send a message. Raises ShuttingDown if the call was interrupted meanwhile, unless all has been said with it.

        No interruption cancels this: grpc could not send a status after a first message of which it does not know
        whether it has left, and the call would hang.
        """
        self._is_sending = True
        try:
            await self.context.write(data)
        finally:
            self._is_sending = False
        if self._is_interrupted and not is_last:
            raise errors.ShuttingDown()

    def _cause_of(self, cancellation: asyncio.CancelledError) -> BaseException:
        """What cancelled the handler: its client or grpc, a drain, or a cancelled task inside the handler."""
        if self._has_cancelled:
            self._task.uncancel()
        if self._task.cancelling():
            return cancellation
        # grpc would leave a call hanging that it has not cancelled itself.
        return errors.ShuttingDown() if self._has_cancelled else RuntimeError("the handler cancelled itself")

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Set what the status will carry beside the request id."""
        # In the trailer and not in the header, because a client may retry by itself only while it has seen no header.
        self.context.set_trailing_metadata(((REQUEST_ID_KEY, self.request_id), *metadata))

    async def abort(self, code: grpc.StatusCode, message: str, metadata: Metadata) -> Never:
        """End the call with this status, adding to the metadata set before."""
        self._record(code, reason="")
        await self.context.abort(code, message, (*self.context.trailing_metadata(), *metadata))

    async def _fail(self, error: Exception) -> None:
        """Send the error's status. Raises grpc's AbortError, which tells grpc that the status is sent."""
        failure = errors.describe(error, self._ledger.table, self.request_id)
        if not failure.known:
            logger.error("%s/%s failed", self._service, self._method, exc_info=error)
        self._record(failure.code, failure.reason)
        status = rpc_status.to_status(failure.status())
        metadata = tuple(status.trailing_metadata)
        if failure.retry_seconds is not None:
            metadata += (("grpc-retry-pushback-ms", str(round(failure.retry_seconds * 1000))),)
        await self.abort(status.code, status.details, metadata)

    def _code_of(self, error: BaseException | None) -> grpc.StatusCode:
        """The status of a call that ended by itself, by `context.abort` or by a cancellation."""
        if isinstance(error, asyncio.CancelledError):
            remaining = self.context.time_remaining()
            is_late = remaining is not None and remaining <= 0
            return grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED
        code: Any = self.context.code()  # None while nobody has set it, and a number after an abort.
        return code if isinstance(code, grpc.StatusCode) else _CODES[code or 0]

    def _record(self, code: grpc.StatusCode, reason: str) -> None:
        """Count and log the end of the call, once; before the status is sent, so that its receiver finds it counted.

        From here on nothing interrupts the call: grpc could not send a second status.
        """
        if self._is_over:
            return
        self._is_over = True
        labels = (self._service, self._method)
        seconds = time.perf_counter() - self._started
        metrics = self._ledger.metrics
        metrics.in_flight.labels(*labels).dec()
        metrics.calls.labels(*labels, code.name).inc()
        metrics.seconds.labels(*labels).observe(seconds)
        if code not in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED):
            metrics.failures.labels(*labels, reason or code.name).inc()
        fields = {"code": code.name, "seconds": round(seconds, 6), "peer": self.context.peer()}
        if reason:
            fields["reason"] = reason
        level = logging.DEBUG if self._is_infrastructure else logging.INFO
        logger.log(level, "%s/%s", self._service, self._method, extra=fields)


def metadata_value(metadata: Iterable[tuple[str, str | bytes]] | None, key: str) -> str | None:
    """The first text under this key, None if there is none."""
    for name, value in metadata or ():
        if name == key and isinstance(value, str):
            return value
    return None


def _current_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None  # grpc.aio runs every handler in a task
    return task


def _request_id_of(context: Context) -> str:
    """The caller's id if it is fit for logs and headers, else a new one; the trailer tells the caller which."""
    presented = metadata_value(context.invocation_metadata(), REQUEST_ID_KEY)
    return presented if presented and _REQUEST_ID_PATTERN.fullmatch(presented) else uuid.uuid4().hex
