"""Create-if-absent and compare-and-swap: the one place that sends a conditional PUT.

The SDK (7.2) renames a given `If-None-Match` to user metadata and overwrites, so the request is a presigned URL plus
the plain header. Only `store` calls this; a test watches the bytes on the wire.
"""

import base64
import hashlib
import time
from datetime import timedelta

import urllib3
from minio import Minio
from minio.error import S3Error
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError
from urllib3.response import BaseHTTPResponse

from artifacts import s3
from artifacts.config import StoreConfig


class PreconditionError(Exception):
    """The store holds another version (or any version, for a create). `store` turns this into its own errors."""


def put(
    client: Minio,
    pool: urllib3.PoolManager,
    config: StoreConfig,
    key: str,
    data: bytes,
    headers: dict[str, str],
) -> str:
    """Send `data` to `key` under the condition in `headers` (If-None-Match or If-Match) and return the new ETag.

    Raises PreconditionError. An answer lost on the way is repeated; when the repeat then finds the condition broken,
    the stored bytes decide: if they are exactly ours, the first attempt had arrived.
    """
    md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
    headers = headers | {"Content-MD5": md5}  # a presigned URL signs no body; this lets the store check it
    url = client.get_presigned_url("PUT", config.bucket, key, expires=timedelta(minutes=10))
    may_have_arrived = False
    last: HTTPError | None = None
    for attempt in range(config.retries + 1):
        if attempt:
            time.sleep(min(s3.BACKOFF_SECONDS * 2**attempt, s3.BACKOFF_MAX_SECONDS))
        try:
            response = pool.urlopen("PUT", url, body=data, headers=headers, retries=False, redirect=False)
        except (ConnectTimeoutError, NewConnectionError) as error:
            last = error
            continue
        except HTTPError as error:
            if isinstance(error, ReadTimeoutError) and isinstance(last, ReadTimeoutError):
                raise  # a second silence as long as the read timeout is enough
            last, may_have_arrived = error, True
            continue
        if response.status in s3.RETRY_STATUSES:
            last, may_have_arrived = HTTPError(f"HTTP {response.status}"), True
            continue
        if response.status == 409:  # AWS: another conditional request on this key is under way
            last = HTTPError("HTTP 409, another write of the same object is under way")
            continue
        if response.status == 412:
            if may_have_arrived and (etag := _etag_if_ours(client, config, key, data)):
                return etag
            raise PreconditionError
        if response.status != 200:
            raise _refusal(response, key, config)
        return response.headers.get("etag", "").strip('"')
    assert last is not None
    raise last


def _etag_if_ours(client: Minio, config: StoreConfig, key: str, data: bytes) -> str:
    stored = client.get_object(config.bucket, key)
    try:
        return stored.headers.get("etag", "").strip('"') if stored.read() == data else ""
    finally:
        stored.close()
        stored.release_conn()


def _refusal(response: BaseHTTPResponse, key: str, config: StoreConfig) -> S3Error:
    if response.data:
        return S3Error.fromxml(response)
    code = {404: "NoSuchKey", 403: "AccessDenied"}.get(response.status, str(response.status))
    return S3Error(response, code, None, key, None, None, config.bucket, key)
