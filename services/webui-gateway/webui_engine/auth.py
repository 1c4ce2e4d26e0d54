"""Who may call: HTTP Basic (any user, the token as password) or Bearer, on every path but the health checks.

`app.py` installs `TokenGuard` outermost, so that a route added later is guarded without anyone thinking of it.
"""

import base64
import binascii
from typing import Final

from chassis.auth import token_matches
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""Paths that an orchestrator asks without credentials; they tell nothing but the state."""


class TokenGuard:
    """ASGI middleware that answers 401 unless the request carries the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is allowed. Web sockets are refused: the API has none."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            if not token_matches(self._token, presented_token(headers.get("authorization", ""))):
                await _refusal()(scope, receive, send)
                return
        await self.app(scope, receive, send)


def presented_token(header: str) -> str:
    """The token inside an Authorization header, "" if there is none."""
    scheme, _, value = header.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        pair = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return pair.partition(":")[2]


def _refusal() -> JSONResponse:
    detail = "Incorrect username or password: send HTTP Basic with any user and the token as password, or Bearer TOKEN"
    content = {"error": "HTTPException", "detail": detail, "body": "", "errors": ""}
    return JSONResponse(content, status_code=401, headers={"WWW-Authenticate": "Basic"})
