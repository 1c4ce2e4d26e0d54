"""Uploads of unknown length: all or nothing, in constant memory."""

import hashlib
import tracemalloc
from dataclasses import replace

import pytest
from artifacts import writer as writer_module
from artifacts.errors import StoreRejected, StoreUnavailable
from artifacts.store import ObjectStore
from artifacts.testing import Proxy

MIB = 1024 * 1024
PART = 5 * MIB  # the smallest that S3 allows


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 5 MiB, so that a few megabytes make several of them."""
    monkeypatch.setattr(writer_module, "PART_SIZE_BYTES", PART)


def _open_uploads(store: ObjectStore) -> int:
    return len(store._client._list_multipart_uploads(store.config.bucket).uploads)


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 12345])
@pytest.mark.usefixtures("small_parts")
def test_sizes_around_the_part_size(store: ObjectStore, size: int) -> None:
    data = (b"0123456789abcde" * (size // 15 + 1))[:size]
    with store.writer("a") as writer:
        writer.write(data)
    assert store.get("a") == data
    assert (writer.size, writer.sha256) == (size, hashlib.sha256(data).hexdigest())
    stat = store.stat("a")
    assert (stat.size_bytes, stat.etag) == (size, writer.etag)
    assert _open_uploads(store) == 0


@pytest.mark.usefixtures("small_parts")
def test_writes_of_any_kind_and_size(store: ObjectStore) -> None:
    pieces = [b"a", bytearray(b"bc"), memoryview(b"xdefx")[1:4], b"", b"g" * (PART + 7), memoryview(bytes(PART))]
    with store.writer("a") as writer:
        assert [writer.write(piece) for piece in pieces] == [len(piece) for piece in pieces]
    assert store.get("a") == b"".join(bytes(piece) for piece in pieces)


def test_memory_does_not_grow_with_the_object(store: ObjectStore) -> None:
    tracemalloc.start()
    with store.writer("a") as writer:
        for _ in range(80):
            writer.write(bytes(MIB))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert store.stat("a").size_bytes == 80 * MIB
    assert peak_bytes < 40 * MIB


def _write_and_fail(store: ObjectStore, size: int) -> None:
    with store.writer("a") as writer:
        writer.write(bytes(size))
        raise ZeroDivisionError


@pytest.mark.parametrize("size", [10, PART + 10, 3 * PART])
@pytest.mark.usefixtures("small_parts")
def test_an_exception_leaves_nothing(store: ObjectStore, size: int) -> None:
    with pytest.raises(ZeroDivisionError):
        _write_and_fail(store, size)
    assert not store.exists("a")
    assert _open_uploads(store) == 0


@pytest.mark.usefixtures("small_parts")
def test_an_exception_leaves_the_old_object(store: ObjectStore) -> None:
    store.put("a", b"old")
    with pytest.raises(ZeroDivisionError):
        _write_and_fail(store, 2 * PART)
    assert store.get("a") == b"old"


@pytest.mark.usefixtures("small_parts")
def test_nothing_is_visible_before_the_end(store: ObjectStore) -> None:
    with store.writer("a") as writer:
        writer.write(bytes(2 * PART))
        assert not store.exists("a")
        assert list(store.list("")) == []
    assert store.exists("a")


def test_closed_writers_take_nothing(store: ObjectStore) -> None:
    with store.writer("a") as writer:
        writer.write(b"x")
    with pytest.raises(ValueError, match="is closed"):
        writer.write(b"y")
    writer.abort()
    assert store.get("a") == b"x"


@pytest.mark.usefixtures("small_parts")
def test_a_lost_answer_does_not_cost_the_upload(proxy: Proxy, proxied: ObjectStore) -> None:
    data = b"x" * (2 * PART + 1)
    with proxied.writer("a") as writer:
        writer.write(data[: PART + 1])
        proxy.lose_answers = 1
        writer.write(data[PART + 1 :])
    assert proxy.lose_answers == 0
    assert proxied.get("a") == data


@pytest.mark.usefixtures("small_parts")
def test_a_lost_answer_of_the_completion(proxy: Proxy, proxied: ObjectStore) -> None:
    with proxied.writer("a") as writer:
        writer.write(bytes(PART + 1))
        writer._send_part()
        writer._send_part = lambda: setattr(proxy, "lose_answers", 1)  # type: ignore[method-assign]
    assert proxy.lose_answers == 0
    assert proxied.stat("a").etag == writer.etag


@pytest.mark.usefixtures("small_parts")
def test_an_upload_that_was_completed_and_forgotten(store: ObjectStore) -> None:
    """What a repeated completion finds on stores that forget finished uploads."""
    with store.writer("a") as writer:
        writer.write(bytes(PART + 1))
        writer._send_part()
        writer._send_part = lambda: None  # type: ignore[method-assign]
        writer._complete()
        store._client._abort_multipart_upload(store.config.bucket, "a", writer._upload_id)
    assert store.stat("a").etag == writer.etag


@pytest.mark.usefixtures("small_parts")
def test_an_upload_that_somebody_removed(store: ObjectStore) -> None:
    store.put("a", b"other")
    writer = store.writer("a")
    writer.write(bytes(PART + 1))
    store._client._abort_multipart_upload(store.config.bucket, "a", writer._upload_id)
    with pytest.raises(StoreRejected, match="NoSuchUpload"), writer:
        pass
    assert store.get("a") == b"other"


def _write_while_the_store_goes(store: ObjectStore, proxy: Proxy) -> None:
    with store.writer("a") as writer:
        writer.write(bytes(PART + 1))
        proxy.lose_answers = proxy.drop_connections = 1000
        writer.write(bytes(2 * PART))


@pytest.mark.usefixtures("small_parts")
def test_a_store_that_is_gone_ends_the_upload(proxy: Proxy, store: ObjectStore) -> None:
    with pytest.raises(StoreUnavailable, match="'a'"):
        _write_while_the_store_goes(ObjectStore(replace(proxy.config, retries=1)), proxy)
    assert not store.exists("a")
