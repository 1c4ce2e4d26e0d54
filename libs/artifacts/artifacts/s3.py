"""The minio SDK, set up and fenced in: bounded waiting, and its errors turned into ours.

Only `store`, `writer` and `conditional` call this.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import certifi
import urllib3
from minio import Minio
from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import HTTPError, MaxRetryError, ReadTimeoutError, SSLError
from urllib3.response import BaseHTTPResponse

from artifacts.config import StoreConfig
from artifacts.errors import AccessDenied, ArtifactError, NotFound, StoreRejected, StoreUnavailable

BACKOFF_SECONDS = 0.2
BACKOFF_MAX_SECONDS = 2.0
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
    return urllib3.PoolManager(
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
