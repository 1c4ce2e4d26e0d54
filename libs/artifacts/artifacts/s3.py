"""The minio SDK, set up and fenced in: bounded waiting, and its errors turned into ours.

Only `store`, `writer` and `conditional` call this.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import certifi
import urllib3
from minio import Minio
from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import ConnectionPool, HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, MaxRetryError, ReadTimeoutError, SSLError
from urllib3.response import BaseHTTPResponse

from artifacts.config import StoreConfig
from artifacts.errors import AccessDenied, ArtifactError, NotFound, StoreRejected, StoreUnavailable

BACKOFF_SECONDS = 0.2
BACKOFF_MAX_SECONDS = 2.0
# A store or a link that takes less than a mebibyte in a minute counts as gone.
_SEND_BYTES, _SEND_SECONDS = 1024 * 1024, 60.0
RETRY_STATUSES = (500, 502, 503, 504)

_DENIED = {
    "AccessDenied",
    "AccountProblem",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}
_BUSY = {"InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown", "SlowDownRead"}


class _SlowUploads:
    """Lets a large request body take its time.

    urllib3 sends the body under the connect timeout, and a socket's timeout holds for the whole of what one `sendall`
    gets: 16 MiB would have to go out within 2 seconds.
    """

    sock: socket.socket | None

    def send(self, data: Any) -> None:
        if not isinstance(data, bytes) or self.sock is None:  # the head of a request, which opens the connection
            super().send(data)  # type: ignore[misc]
            return
        self.sock.settimeout(_SEND_SECONDS)  # until the answer is waited for
        view = memoryview(data)
        for start in range(0, len(view), _SEND_BYTES):
            super().send(view[start : start + _SEND_BYTES])  # type: ignore[misc]


class _HTTPConnection(_SlowUploads, HTTPConnection):
    pass


class _HTTPSConnection(_SlowUploads, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _Retry(urllib3.Retry):
    """Repeats after every kind of failure, but after a silence of the whole read timeout only once."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        if isinstance(error, ReadTimeoutError) and any(
            isinstance(earlier.error, ReadTimeoutError) for earlier in self.history
        ):
            assert _pool is not None
            raise MaxRetryError(_pool, url or "", error)
        return super().increment(method, url, response, error, _pool, _stacktrace)


def connection_pool(config: StoreConfig) -> urllib3.PoolManager:
    """HTTP connections whose every wait ends: connect and read timeouts, a bounded number of repeats."""
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=config.connect_timeout_seconds, read=config.read_timeout_seconds),
        maxsize=32,
        cert_reqs="CERT_REQUIRED",
        ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where(),
        retries=_Retry(
            total=config.retries,
            redirect=0,
            # POST too: every one of ours may be repeated (the writer sees to the completion of an upload).
            allowed_methods=None,
            backoff_factor=BACKOFF_SECONDS,
            backoff_max=BACKOFF_MAX_SECONDS,
            status_forcelist=RETRY_STATUSES,
            # A Retry-After of an hour would be a hang.
            respect_retry_after_header=False,
        ),
    )
    pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return pool


def connect(config: StoreConfig, pool: urllib3.PoolManager) -> Minio:
    """A client for the endpoint; no request is sent yet."""
    parts = urlsplit(config.url)
    return Minio(
        parts.netloc,
        access_key=config.access_key,
        secret_key=config.secret_key,
        secure=parts.scheme == "https",
        region=config.region or None,
        http_client=pool,
    )


@contextmanager
def translated(config: StoreConfig, key: str) -> Iterator[None]:
    """Turn whatever the SDK or urllib3 raises inside the block into an ArtifactError about `key`."""
    try:
        yield
    except S3Error as error:
        raise _from_s3(config, key, error) from error
    except ServerError as error:
        kind = StoreUnavailable if error.status_code >= 500 else StoreRejected
        raise kind(key, config.url, f"HTTP {error.status_code}") from error
    except InvalidResponseError as error:
        kind = StoreUnavailable if error._code >= 500 else StoreRejected
        raise kind(key, config.url, f"the answer is not S3: {_first_line(error)}") from error
    except ParseError as error:
        raise StoreRejected(key, config.url, f"the answer is not S3: {_first_line(error)}") from error
    except HTTPError as error:
        raise _from_http(config, key, error) from error
    except ValueError as error:
        raise StoreRejected(key, config.url, str(error)) from error


def _from_s3(config: StoreConfig, key: str, error: S3Error) -> ArtifactError:
    code, status = error.code or "", error.response.status
    detail = f"{code or status}: {error.message}" if error.message else (code or f"HTTP {status}")
    if code == "NoSuchKey":
        return NotFound("object", key, config.place)
    if code == "NoSuchBucket":
        # Not NotFound: callers would take it for a missing object.
        detail = f"there is no {config.place}; create it, or name another one with DARKROOM_S3_BUCKET"
        return StoreRejected(key, config.url, detail)
    if code in _BUSY or status >= 500:
        return StoreUnavailable(key, config.url, detail)
    if code in _DENIED or status in (401, 403):
        return AccessDenied(key, config.url, detail)
    return StoreRejected(key, config.url, detail)


def _from_http(config: StoreConfig, key: str, error: HTTPError) -> ArtifactError:
    reason = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    if isinstance(reason, SSLError):
        return StoreRejected(key, config.url, f"{_first_line(reason)}; SSL_CERT_FILE may name your own authority")
    return StoreUnavailable(key, config.url, _first_line(reason))


def _first_line(error: Exception) -> str:
    text = str(error).splitlines()
    return text[0][:300] if text else type(error).__name__
