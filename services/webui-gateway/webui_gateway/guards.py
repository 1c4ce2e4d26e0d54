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

# Of a body over the limit so many times the limit is read and thrown away: most clients look for an answer only once they
# have sent everything, and a connection that is closed before gives them an error of the network.
_DISCARDED_LIMITS: Final = 4

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
        body = await self._read(receive) if self._is_worth_reading(dict(scope["headers"])) else None
        if body is None:
            detail = (
                f"the body has more than {self._max_bytes} bytes (DARKROOM_MAX_MESSAGE_BYTES); send smaller pictures"
            )
            # The rest of the body may be on its way; a connection that is kept would read it as the next request.
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

    def _is_worth_reading(self, headers: dict[bytes, bytes]) -> bool:
        """Whether the body fits as announced, or its sender has to be heard out before it reads the answer."""
        announced = headers.get(b"content-length", b"0")
        num_bytes = int(announced) if announced.isdigit() else 0
        if num_bytes <= self._max_bytes:
            return True
        return b"expect" not in headers and num_bytes <= _DISCARDED_LIMITS * self._max_bytes

    async def _read(self, receive: Receive) -> bytes | None:
        """The body, None if it is too large. Of a client that goes away, what it sent."""
        parts: list[bytes] = []
        num_bytes = 0
        while num_bytes <= _DISCARDED_LIMITS * self._max_bytes:
            message = await receive()
            part = message.get("body", b"")
            num_bytes += len(part)
            if num_bytes <= self._max_bytes:
                parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts) if num_bytes <= self._max_bytes else None
        return None


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
