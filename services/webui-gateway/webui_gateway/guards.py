"""What stands in front of every HTTP route: the token and the limit of the body. `http_api` installs them outermost.

Plain ASGI: Starlette's BaseHTTPMiddleware would hide from the routes that a client went away.
"""

import base64
import binascii
from typing import Final

from chassis.auth import token_matches
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webui_gateway.http_errors import body_of

OPEN_PATHS: Final = ("/healthz", "/readyz")
"""Paths that an orchestrator asks without credentials; they tell nothing but the state."""


class TokenGuard:
    """Answers 401 unless the request carries the token, as Bearer or as the password of HTTP Basic (any user)."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is allowed. Web sockets are refused: the API has none."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            headers = dict(scope["headers"])
            if not token_matches(self._token, presented_token(headers.get(b"authorization", b"").decode("latin-1"))):
                detail = (
                    "send the token as `Authorization: Bearer TOKEN`, or as the password of HTTP Basic with any user"
                )
                challenge = {"WWW-Authenticate": 'Basic realm="darkroom"'}
                await JSONResponse(body_of("Unauthorized", detail), 401, challenge)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class BodyLimit:
    """Answers 413 to a body over the limit, announced or not, before it is held in memory."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body up to the limit and hand it on in one piece."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        fits = announced.isdigit() and int(announced) <= self._max_bytes
        body = await self._read(receive) if fits else None
        if body is None:
            detail = (
                f"the body has more than {self._max_bytes} bytes (DARKROOM_MAX_MESSAGE_BYTES); send smaller pictures"
            )
            # The rest of the body is still on its way; a connection that is kept would read it as the next request.
            answer = JSONResponse(body_of("BodyTooLarge", detail), 413, {"Connection": "close"})
            await answer(scope, receive, send)
            return
        is_given = False

        async def replay() -> Message:
            nonlocal is_given
            if is_given:
                return await receive()
            is_given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The body, None if it is too large. Of a client that goes away, what it sent."""
        parts: list[bytes] = []
        num_bytes = 0
        while True:
            message = await receive()
            parts.append(message.get("body", b""))
            num_bytes += len(parts[-1])
            if num_bytes > self._max_bytes:
                return None
            if not message.get("more_body", False):
                return b"".join(parts)


def presented_token(header: str) -> str:
    """The token inside an Authorization header, "" if there is none."""
    scheme, _, value = header.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
