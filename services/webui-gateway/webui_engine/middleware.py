"""What happens to every request around the routes: counted, limited in size, and held off until the engine is ready.

`app.py` installs these between the token guard and the routes.
"""

import logging
import time
from typing import Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webui_engine.auth import OPEN_PATHS
from webui_engine.engine import Engine
from webui_engine.errors import BodyTooLarge, EngineError, NotReady

_log = logging.getLogger("webui_engine.access")
# Of a body over the limit so many times the limit is read and thrown away: most clients look for an answer only once they
# have sent everything, and a connection that is closed before gives them an error of the network.
_DISCARDED_LIMITS: Final = 4
_QUIET: Final = OPEN_PATHS | {"/sdapi/v1/progress", "/internal/progress", "/internal/ping"}


def error_response(error: EngineError) -> JSONResponse:
    """A1111's error JSON; Retry-After where repeating may help."""
    detail = printable(str(error))
    content = {"error": type(error).__name__, "detail": detail, "body": "", "errors": detail}
    headers = {"Retry-After": str(error.retry_seconds)} if error.retry_seconds else None
    return JSONResponse(content, status_code=error.status, headers=headers)


def printable(text: str) -> str:
    """The text with what UTF-8 cannot say written as an escape: JSON may bring half a surrogate pair."""
    return text.encode("utf-8", "backslashreplace").decode()


class Observe:
    """Adds A1111's X-Process-Time, counts requests, logs them."""

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        self.app = app
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on, looking at the status."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 499

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                seconds = f"{time.monotonic() - began:.4f}".encode()
                message = {**message, "headers": [*message.get("headers", []), (b"x-process-time", seconds)]}
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "(none)")
            self._engine.metrics.requests.labels(route, str(status)).inc()
            level = logging.DEBUG if scope["path"] in _QUIET else logging.INFO
            fields = {"method": scope["method"], "path": scope["path"], "status": status}
            _log.log(level, "request", extra={**fields, "seconds": round(time.monotonic() - began, 3)})


class BodyLimit:
    """Reads the body up to a limit, then hands it on in one piece; 413 beyond."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what arrives, announced or not."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = await self._read(receive) if self._is_worth_reading(dict(scope["headers"])) else None
        if body is None:
            answer = error_response(BodyTooLarge(self._max_bytes))
            # The rest of the body may be on its way; a connection that is kept would read it as the next request.
            answer.headers["Connection"] = "close"
            await answer(scope, receive, send)
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    def _is_worth_reading(self, headers: dict[bytes, bytes]) -> bool:
        """Whether the body fits as announced, or its sender has to be heard out before it reads the answer."""
        announced = headers.get(b"content-length", b"0")
        size_bytes = int(announced) if announced.isdigit() else 0
        if size_bytes <= self._max_bytes:
            return True
        return b"expect" not in headers and size_bytes <= _DISCARDED_LIMITS * self._max_bytes

    async def _read(self, receive: Receive) -> bytes | None:
        """The body; None if it is too large. A client that goes away leaves what it sent."""
        parts: list[bytes] = []
        size_bytes = 0
        while size_bytes <= _DISCARDED_LIMITS * self._max_bytes:
            message = await receive()
            part = message.get("body", b"")
            size_bytes += len(part)
            if size_bytes <= self._max_bytes:
                parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts) if size_bytes <= self._max_bytes else None
        return None


class ReadyGuard:
    """503 with Retry-After on every path but the health checks until the engine is ready."""

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        self.app = app
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on once the engine is ready."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            try:
                self._engine.check_ready()
            except NotReady as error:
                await error_response(error)(scope, receive, send)
                return
        await self.app(scope, receive, send)
