"""Fixtures of the artifacts tests: a store behind a proxy that can fail, and a checkpoint's worth of fields."""

from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from artifacts.store import ObjectStore, StoreConfig
from artifacts.testing import Proxy

from tests.conftest import TRAINED


@pytest.fixture
def proxy(store: ObjectStore) -> Iterator[Proxy]:
    """A proxy before the test's bucket."""
    with Proxy(store.config) as running:
        yield running


@pytest.fixture
def proxied(proxy: Proxy) -> ObjectStore:
    """The test's bucket, reached through the proxy."""
    return ObjectStore(proxy.config)


class FixedAnswer(ThreadingHTTPServer):
    """An HTTP server that gives every request the same answer and counts them."""

    daemon_threads = True
    status = 200
    body = b""
    content_type = "text/html"
    requests = 0

    @property
    def config(self) -> StoreConfig:
        return StoreConfig(f"127.0.0.1:{self.server_port}", "access", "secret", retries=1, read_timeout_seconds=5)


class _Handler(BaseHTTPRequestHandler):
    server: FixedAnswer

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests += 1
        self.send_response(self.server.status)
        self.send_header("Content-Type", self.server.content_type)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self.server.body)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer  # noqa: N815 - the base class looks these names up

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def fixed_answer() -> Iterator[FixedAnswer]:
    """A server that is no S3 store; the test sets what it answers."""
    with FixedAnswer(("127.0.0.1", 0), _Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def impatient(store: ObjectStore) -> StoreConfig:
    """The test's bucket with short waits, for tests about failures."""
    return replace(store.config, retries=1, read_timeout_seconds=1)


@pytest.fixture
def fields() -> dict[str, Any]:
    """What `Checkpoints.begin` needs besides the id."""
    return dict(TRAINED)
