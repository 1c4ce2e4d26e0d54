"""ObjectStore against a real S3 server."""

import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest
import urllib3
from artifacts.errors import AlreadyExists, Conflict, InvalidName, NotFound, StoreRejected
from artifacts.store import ObjectStore
from artifacts.testing import Proxy
from urllib3.exceptions import ProtocolError

MIB = 1024 * 1024
ODD_KEYS = ["a b/c+d.txt", "50%25.txt", "q?x=1&y=<2>#3.txt", "Ünï/写真 🐕.png", "quote'\".txt", "~tilde*(1)!.txt"]


def test_round_trip(store: ObjectStore) -> None:
    written = store.put("a/b.txt", b"hello")
    assert store.get("a/b.txt") == b"hello"
    assert (written.key, written.size_bytes) == ("a/b.txt", 5)
    assert store.stat("a/b.txt").etag == written.etag


def test_put_replaces(store: ObjectStore) -> None:
    first = store.put("a", b"1")
    second = store.put("a", b"2")
    assert store.get("a") == b"2"
    assert first.etag != second.etag


def test_empty_object(store: ObjectStore) -> None:
    store.put("empty", b"")
    assert store.get("empty") == b""
    assert store.stat("empty").size_bytes == 0


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys(store: ObjectStore, key: str) -> None:
    store.put_if_absent(key, b"x")
    with pytest.raises(AlreadyExists):
        store.put_if_absent(key, b"y")
    assert store.get(key) == b"x"
    assert [found.key for found in store.list("")] == [key]
    assert store.delete_prefix(key) == 1
    assert not store.exists(key)


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a"])
def test_bad_keys_never_reach_the_store(store: ObjectStore, key: str) -> None:
    for call in (store.get, store.stat, store.delete, store.writer, store.delete_prefix):
        if call == store.delete_prefix and key == "":
            continue
        with pytest.raises(InvalidName):
            call(key)
    with pytest.raises(InvalidName):
        store.put(key, b"")


def test_empty_prefix_is_not_deleted(store: ObjectStore) -> None:
    with pytest.raises(InvalidName):
        store.delete_prefix("")


def test_stat(store: ObjectStore) -> None:
    store.put("a", b"12345", "image/png", metadata={"width": "640", "sha256": "ab"})
    stat = store.stat("a")
    assert (stat.key, stat.size_bytes) == ("a", 5)
    assert dict(stat.metadata) == {"width": "640", "sha256": "ab"}
    assert abs(datetime.now(UTC) - stat.modified) < timedelta(minutes=5)


def test_missing_object(store: ObjectStore) -> None:
    for call in (store.get, store.stat):
        with pytest.raises(NotFound, match="object 'no/such' does not exist in bucket") as caught:
            call("no/such")
        assert caught.value.name == "no/such"
    assert not store.exists("no/such")
    with pytest.raises(NotFound):
        store.copy("no/such", "target")
    store.delete("no/such")


def test_missing_bucket_is_not_a_missing_object(store: ObjectStore) -> None:
    elsewhere = ObjectStore(replace(store.config, bucket="no-such-bucket"))
    with pytest.raises(StoreRejected, match=r"there is no bucket 'no-such-bucket'.*DARKROOM_S3_BUCKET"):
        elsewhere.get("a")
    with pytest.raises(StoreRejected, match="no-such-bucket"):
        list(elsewhere.list(""))


def test_ensure_bucket_may_be_repeated_and_raced(store: ObjectStore) -> None:
    fresh = ObjectStore(replace(store.config, bucket=f"{store.config.bucket}-raced"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: fresh.ensure_bucket(), range(8)))
    fresh.put("a", b"x")
    fresh.delete_bucket()


@pytest.mark.parametrize(("offset", "length", "expected"), [(0, 1, b"0"), (3, 4, b"3456"), (9, 1, b"9"), (4, 0, b"")])
def test_read_range(store: ObjectStore, offset: int, length: int, expected: bytes) -> None:
    store.put("a", b"0123456789")
    assert store.read_range("a", offset, length) == expected
    assert b"".join(store.reader("a", offset, length)) == expected


@pytest.mark.parametrize(("offset", "length"), [(8, 3), (10, 1), (500, 1)])
def test_range_outside_the_object_is_an_error(store: ObjectStore, offset: int, length: int) -> None:
    store.put("a", b"0123456789")
    with pytest.raises(StoreRejected):
        store.read_range("a", offset, length)


def test_negative_ranges_are_refused(store: ObjectStore) -> None:
    for offset, length in ((-1, 1), (0, -1)):
        with pytest.raises(ValueError, match="must not be negative"):
            store.read_range("a", offset, length)


def test_reader_from_offset_to_end(store: ObjectStore) -> None:
    store.put("a", b"0123456789")
    assert b"".join(store.reader("a", offset=7)) == b"789"


def test_reading_holds_one_chunk_at_a_time(store: ObjectStore) -> None:
    with store.writer("big") as writer:
        for _ in range(48):
            writer.write(bytes(MIB))
    tracemalloc.start()
    assert sum(len(chunk) for chunk in store.reader("big")) == 48 * MIB
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8 * MIB


def test_reader_may_be_left_early(store: ObjectStore) -> None:
    store.put("big", bytes(4 * MIB))
    chunks = store.reader("big")
    assert len(next(chunks)) <= MIB
    chunks.close()  # type: ignore[attr-defined]
    assert len(store.get("big")) == 4 * MIB


def test_broken_reading_goes_on_where_it_broke(proxy: Proxy, proxied: ObjectStore) -> None:
    data = bytes(range(256)) * 4 * 4096
    proxied.put("big", data)
    proxy.cut_answers_after_bytes = 1_500_000
    assert proxied.get("big") == data
    assert proxy.cut_answers_after_bytes is None
    proxy.cut_answers_after_bytes = 1_500_000
    assert proxied.read_range("big", 1000, 3_000_000) == data[1000:3_001_000]


def test_broken_reading_never_mixes_versions(proxy: Proxy, proxied: ObjectStore, store: ObjectStore) -> None:
    store.put("big", b"a" * 8 * MIB)
    proxy.cut_answers_after_bytes = 6_000_000
    chunks = proxied.reader("big")
    next(chunks)
    store.put("big", b"b" * 8 * MIB)
    with pytest.raises(Conflict, match="big"):
        b"".join(chunks)


def test_list(store: ObjectStore) -> None:
    for key in ("a/1", "a/2", "a/b/3", "c"):
        store.put(key, b"x" * len(key))
    assert [found.key for found in store.list("a/")] == ["a/1", "a/2", "a/b/3"]
    assert [found.key for found in store.list("a/", start_after="a/1")] == ["a/2", "a/b/3"]
    assert [found.size_bytes for found in store.list("c")] == [1]
    assert [found.key for found in store.list("nothing/")] == []
    assert next(store.list("c")).etag == store.stat("c").etag


def test_list_folders(store: ObjectStore) -> None:
    for key in ("s/dog/x", "s/cat/y/z", "s/file", "t/u"):
        store.put(key, b"")
    assert sorted(store.list_folders("s/")) == ["cat", "dog"]
    assert sorted(store.list_folders("")) == ["s", "t"]


def test_delete_prefix_with_several_pages(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.put(f"many/{n:04}", b""), range(1005)))
    store.put("many-not/0", b"")
    assert store.delete_prefix("many/") == 1005
    assert [found.key for found in store.list("")] == ["many-not/0"]
    assert store.delete_prefix("many/") == 0


def test_copy_keeps_metadata(store: ObjectStore) -> None:
    store.put("a", b"x", metadata={"width": "3"})
    store.copy("a", "b/c")
    assert store.get("b/c") == b"x"
    assert dict(store.stat("b/c").metadata) == {"width": "3"}


def test_compose_joins_objects_and_ranges(store: ObjectStore) -> None:
    first, second = b"a" * 6 * MIB, b"b" * 6 * MIB
    store.put("first", first)
    store.put("second", second)
    store.put("tail", b"0123456789")
    store.compose("joined", ["first", ("second", MIB, 5 * MIB), ("tail", 2, 3)])
    assert store.get("joined") == first + second[: 5 * MIB] + b"234"


def test_compose_says_why_it_refuses(store: ObjectStore) -> None:
    store.put("small", b"x")
    with pytest.raises(StoreRejected, match="size 1 must be greater than 5242880"):
        store.compose("joined", ["small", "small"])
    assert not store.exists("joined")


def test_presigned_urls_need_no_credentials(store: ObjectStore) -> None:
    put = urllib3.request("PUT", store.presign_put("a b/c", 60), body=b"hello")
    assert put.status == 200
    got = urllib3.request("GET", store.presign_get("a b/c", 60))
    assert (got.status, got.data) == (200, b"hello")


def test_presigned_url_is_good_for_its_object_only(store: ObjectStore) -> None:
    store.put("a", b"public")
    store.put("b", b"private")
    answer = urllib3.request("GET", store.presign_get("a", 60).replace("/a?", "/b?"))
    assert answer.status == 403
    with pytest.raises(StoreRejected, match="7 days"):
        store.presign_get("a", 8 * 24 * 3600)


def test_a_range_that_breaks_after_its_last_byte_is_complete(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        headers: ClassVar[dict[str, str]] = {"etag": "e"}

        def stream(self, size: int) -> Iterator[bytes]:
            yield b"0123"
            raise ProtocolError("connection broken")

        def close(self) -> None: ...

        def release_conn(self) -> None: ...

    monkeypatch.setattr(store, "_open", lambda *_: Broken())
    assert store.read_range("a", 0, 4) == b"0123"
