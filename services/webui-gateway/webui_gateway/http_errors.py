"""Errors of the HTTP API in A1111's form: {error, detail, body, errors} and the status of the table."""

from typing import Any

from artifacts.errors import StoreUnavailable
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from webui_gateway import errors

# Looked up along the class's bases, most special first. Second: seconds after which a repeat may help.
STATUS: dict[type[Exception], tuple[int, int | None]] = {
    errors.UnknownJob: (404, None),
    errors.UnknownModel: (422, None),
    errors.UnknownSampler: (422, None),
    errors.UnknownControlNet: (422, None),
    errors.RequestInvalid: (422, None),
    errors.Incompatible: (422, None),
    errors.Cancelled: (499, None),
    errors.QueueFull: (503, 5),
    errors.NoBackend: (503, 5),
    StoreUnavailable: (503, 5),
}


def body(error: str, detail: str) -> dict[str, Any]:
    """A1111's error object."""
    return {"error": error, "detail": detail, "body": "", "errors": ""}


def install(app: FastAPI) -> None:
    """Answer every exception in this form."""
    for kind in STATUS:
        app.add_exception_handler(kind, _from_table)
    app.add_exception_handler(errors.BackendFailed, _from_backend)
    app.add_exception_handler(RequestValidationError, _invalid)


async def _from_table(request: Request, error: Exception) -> JSONResponse:
    status, retry_seconds = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    headers = {"Retry-After": str(retry_seconds)} if retry_seconds else None
    return JSONResponse(body(type(error).__name__, str(error)), status, headers)


async def _from_backend(request: Request, error: Exception) -> JSONResponse:
    """What a back end refused is passed on as it said it; what it broke on is a bad gateway."""
    assert isinstance(error, errors.BackendFailed)
    if error.status < 500 and isinstance(error.payload, dict):
        return JSONResponse(error.payload, error.status)
    return JSONResponse(body("BackendFailed", str(error)), 502)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse(body("RequestInvalid", str(error)), 422)
