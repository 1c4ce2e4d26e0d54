"""Every failure becomes one of our errors, within bounded time, and says what to do."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from artifacts.errors import AccessDenied, StoreError, StoreRejected, StoreUnavailable
from artifacts.store import ObjectStore, StoreConfig
from artifacts.testing import Proxy


def _upload(store: ObjectStore) -> None:
    with store.writer("key") as writer:
        writer.write(b"x")


CALLS: dict[str, Callable[[ObjectStore], object]] = {
    "ensure_bucket": lambda store: store.ensure_bucket(),
    "put": lambda store: store.put("key", b"x"),
    "put_if_absent": lambda store: store.put_if_absent("key", b"x"),
    "replace": lambda store: store.replace("key", b"x", "etag"),
    "writer": _upload,
    "get": lambda store: store.get("key"),
    "stat": lambda store: store.stat("key"),
    "list": lambda store: list(store.list("key")),
    "list_folders": lambda store: list(store.list_folders("key/")),
    "delete": lambda store: store.delete("key"),
    "delete_many": lambda store: store.delete_many(["key"]),
    "copy": lambda store: store.copy("key", "other"),
    "compose": lambda store: store.compose("other", ["key"]),
}


@pytest.fixture(params=CALLS)
def call(request: pytest.FixtureRequest) -> Callable[[ObjectStore], object]:
    return CALLS[request.param]


def test_nobody_listens(call: Callable[[ObjectStore], object]) -> None:
    nobody = StoreConfig("127.0.0.1:9", "access", "secret", retries=1)
    with pytest.raises(StoreUnavailable, match="DARKROOM_S3_ENDPOINT") as caught:
        call(ObjectStore(nobody))
    assert caught.value.endpoint == "http://127.0.0.1:9"
    assert "refused" in caught.value.detail


def test_wrong_secret(store: ObjectStore, call: Callable[[ObjectStore], object]) -> None:
    store.put("key", b"x")
    with pytest.raises(AccessDenied, match="DARKROOM_S3_SECRET_KEY") as caught:
        call(ObjectStore(replace(store.config, secret_key="not-the-secret")))
    assert store.config.url in str(caught.value)
    assert "not-the-secret" not in str(caught.value)
    assert store.get("key") == b"x"


def test_unknown_access_key(store: ObjectStore) -> None:
    with pytest.raises(AccessDenied):
        ObjectStore(replace(store.config, access_key="nobody")).get("key")


def test_busy_for_good(fixed_answer, call: Callable[[ObjectStore], object]) -> None:
    fixed_answer.status = 503
    with pytest.raises(StoreUnavailable, match="503"):
        call(ObjectStore(fixed_answer.config))


def test_not_an_s3_server(fixed_answer, call: Callable[[ObjectStore], object]) -> None:
    fixed_answer.status, fixed_answer.body = 400, b"<html>hello<br>"
    with pytest.raises(StoreError):
        call(ObjectStore(fixed_answer.config))


def test_not_an_s3_server_that_says_yes(fixed_answer) -> None:
    fixed_answer.body = b"<html>welcome"
    with pytest.raises(StoreRejected, match="not S3"):
        list(ObjectStore(fixed_answer.config).list(""))


def test_number_of_repeats(fixed_answer) -> None:
    fixed_answer.status = 503
    with pytest.raises(StoreUnavailable):
        ObjectStore(replace(fixed_answer.config, retries=3)).get("key")
    assert fixed_answer.requests == 4


@pytest.mark.parametrize("name", ["get", "put", "put_if_absent", "list"])
def test_silent_store_is_asked_twice_only(proxy: Proxy, name: str) -> None:
    proxy.silent = True
    store = ObjectStore(replace(proxy.config, read_timeout_seconds=0.2, retries=5))
    with pytest.raises(StoreUnavailable, match="timed out"):
        CALLS[name](store)
    assert proxy.connections == 2


@pytest.mark.parametrize("reused", [True, False])
def test_a_slow_upload_is_no_failed_connection(proxy: Proxy, reused: bool) -> None:
    store = ObjectStore(replace(proxy.config, connect_timeout_seconds=0.2, retries=0))
    if reused:
        store.put("key", b"")
    proxy.request_pause_seconds = 0.01
    store.put("key", bytes(8_000_000))
    assert store.stat("key").size_bytes == 8_000_000
    assert proxy.connections == 1


def test_dropped_connections_are_tried_again(proxy: Proxy, proxied: ObjectStore) -> None:
    proxy.drop_connections = 2
    proxied.put("key", b"x")
    assert proxied.get("key") == b"x"


def test_lost_answer_of_a_put_is_tried_again(proxy: Proxy, proxied: ObjectStore) -> None:
    proxy.lose_answers = 1
    proxied.put("key", b"x")
    assert proxied.get("key") == b"x"


def test_tls_is_not_downgraded(store: ObjectStore) -> None:
    with pytest.raises(StoreRejected, match="SSL"):
        ObjectStore(replace(store.config, endpoint=f"https://{store.config.endpoint}", retries=0)).get("key")


def test_the_pool_is_large_enough_for_threads(store: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: store.put(f"{n}", b"x"), range(64)))
    assert caplog.records == []
