"""The HTTP application: routes, guards around them, and errors as A1111 writes them.

`__main__` serves it; tests serve it in-process. The routes are in `*_routes.py`.
"""

import asyncio
import json
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from webui_engine import VERSION, catalogue_routes, controlnet_routes, generation_routes
from webui_engine.auth import TokenGuard
from webui_engine.engine import Engine
from webui_engine.errors import EngineError
from webui_engine.middleware import BodyLimit, Observe, ReadyGuard, error_response, printable

_log = logging.getLogger(__name__)


def create_app(engine: Engine) -> FastAPI:
    """The application for one engine. Guards run from the outside in: counting, token, readiness, body size."""
    server = engine.config.server
    app = FastAPI(title="Darkroom webui_engine", version=VERSION, docs_url=None, redoc_url=None)
    app.state.engine = engine
    app.state.drained = asyncio.Event()  # set when requests that still wait for their jobs shall wait no longer
    app.include_router(generation_routes.router)
    app.include_router(catalogue_routes.router)
    app.include_router(controlnet_routes.router)
    app.add_api_route("/healthz", _healthz, methods=["GET"])
    app.add_api_route("/readyz", _readyz, methods=["GET"])
    app.add_exception_handler(EngineError, _on_engine_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_unknown_error)
    # Added last runs first.
    app.add_middleware(BodyLimit, max_bytes=server.max_message_bytes)
    app.add_middleware(ReadyGuard, engine=engine)
    if server.auth:
        app.add_middleware(TokenGuard, token=server.token)
    app.add_middleware(Observe, engine=engine)
    return app


async def _healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


async def _readyz(request: Request) -> JSONResponse:
    """200 once requests are served, 503 before and while stopping."""
    state = request.app.state.engine.state
    return JSONResponse({"status": state}, status_code=200 if state == "ready" else 503)


async def _on_engine_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, EngineError)
    if error.status == 500:
        _log.error("%s: %s", request.url.path, error)
    return error_response(error)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    """Every field that is wrong, in `detail`; the values themselves (maybe megabytes of picture) stay out."""
    assert isinstance(error, RequestValidationError)
    problems = [f"{'.'.join(str(part) for part in e['loc'][1:]) or 'body'}: {e['msg']}" for e in error.errors()]
    return _error_json(422, "RequestInvalid", "; ".join(problems), json.dumps(problems))


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _error_json(error.status_code, "HTTPException", f"{error.detail}: {request.method} {request.url.path}", "")


async def _on_unknown_error(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s failed", request.url.path, exc_info=error)
    return _error_json(500, "InternalError", "the engine failed; its log says why", "")


def _error_json(status: int, error: str, detail: str, errors: str) -> JSONResponse:
    content: dict[str, Any] = {"error": error, "detail": printable(detail), "body": "", "errors": printable(errors)}
    return JSONResponse(content, status_code=status)
