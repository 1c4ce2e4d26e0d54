"""Who is let in: one interceptor in front of every method of a server.

`server.py` installs it. It decides by headers alone, before a byte of a message is read; the rest of a call's life is in
`calls.py`, and business rules belong to the servicers.
"""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from chassis import auth, errors, handlers
from chassis.calls import HEALTH_SERVICE, Call, Ledger, metadata_value

Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls to a draining server, calls without the token (empty: auth is off) and unknown methods."""

    def __init__(self, ledger: Ledger, token: str, max_response_bytes: int) -> None:
        self._ledger = ledger
        self._token = token
        self._max_response_bytes = max_response_bytes

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> handlers.Handler:
        """Called by grpc when a call arrives."""
        path = handler_call_details.method
        handler = await continuation(handler_call_details)
        service, _, method = path.lstrip("/").rpartition("/")
        refusal = self._refusal(service, handler_call_details)
        if handler is None:
            refusal = refusal or errors.MethodUnknown(f"no method {path} on this server")
            service, method = "unknown", "unknown"  # Names chosen by callers must not become labels of metrics.
        begin = functools.partial(Call, self._ledger, service, method)
        return handlers.refuse(refusal, begin) if refusal else handlers.serve(handler, begin, self._max_response_bytes)

    def _refusal(self, service: str, details: grpc.HandlerCallDetails) -> Exception | None:
        """Why this call is not let in. Health is for everybody and always."""
        if service == HEALTH_SERVICE:
            return None
        if self._ledger.is_draining:
            return errors.ShuttingDown()
        if self._token:
            try:
                auth.check_header(self._token, metadata_value(details.invocation_metadata, "authorization"))
            except (auth.TokenMissing, auth.TokenWrong) as error:
                return error
        return None
