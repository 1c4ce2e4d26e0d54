"""Errors of the HTTP API in A1111's form, {error, detail, body, errors}, and the status of each."""

import logging
from typing import Any, Final

from artifacts.errors import StoreError, StoreUnavailable
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from webui_gateway import errors

logger = logging.getLogger("webui_gateway.http")

# Looked up along the class's bases, most special first. Second: seconds after which a repeat may help.
STATUS: Final[dict[type[Exception], tuple[int, int | None]]] = {
    errors.UnknownJob: (404, None),
    errors.Cancelled: (499, None),
    errors.QueueFull: (503, 5),
    errors.NoBackend: (503, 5),
    errors.BackendAway: (503, 5),
    errors.Stopping: (503, 5),
    errors.BackendFailed: (502, None),
    errors.GatewayError: (422, None),
    StoreUnavailable: (503, 5),
    StoreError: (502, None),
}


def body_of(error: str, detail: str) -> dict[str, Any]:
    """A1111's error object. JSON may bring half a surrogate pair, which no answer can carry: it is written as an escape."""
    detail = detail.encode("utf-8", "backslashreplace").decode()
    return {"error": error, "detail": detail, "body": "", "errors": ""}


def install(app: FastAPI) -> None:
    """Answer every exception in this form."""
    for kind in STATUS:
        app.add_exception_handler(kind, _from_table)
    app.add_exception_handler(errors.BackendRefused, _from_backend)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _from_framework)
    app.add_exception_handler(Exception, _unknown)


async def _from_table(request: Request, error: Exception) -> JSONResponse:
    status, retry_seconds = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    headers = {"Retry-After": str(retry_seconds)} if retry_seconds else None
    return JSONResponse(body_of(type(error).__name__, str(error)), status, headers)


async def _from_backend(request: Request, error: Exception) -> JSONResponse:
    """What a back end refused is passed on as it said it."""
    assert isinstance(error, errors.BackendRefused)
    content = error.payload if isinstance(error.payload, dict) else body_of("BackendRefused", str(error))
    return JSONResponse(content, error.status)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """What is wrong where; the values themselves (maybe megabytes of picture) stay out."""
    assert isinstance(error, RequestValidationError)
    problems = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()]
    return JSONResponse(body_of("RequestInvalid", "; ".join(problems)), 422)


async def _from_framework(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    detail = f"{error.detail}: {request.method} {request.url.path}"
    return JSONResponse(body_of("HTTPException", detail), error.status_code, error.headers)


async def _unknown(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s failed", request.url.path, exc_info=error)
    return JSONResponse(body_of("InternalError", "the gateway failed; its log says why"), 500)
