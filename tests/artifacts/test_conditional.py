"""Conditional writes: what is on the wire, who wins, and what happens when an answer is lost."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from artifacts.errors import AlreadyExists, ArtifactError, Conflict, StoreRejected, StoreUnavailable
from artifacts.store import ObjectStore
from artifacts.testing import Proxy

ROUNDS, WRITERS = 10, 12


def test_create_sends_its_condition(proxy: Proxy, proxied: ObjectStore) -> None:
    proxied.put_if_absent("a/b", b"x", "application/json")
    (head,) = proxy.requests
    assert re.search(r"^If-None-Match: \*$", head.replace("\r", ""), re.MULTILINE)
    assert "X-Amz-Signature=" in head.splitlines()[0]
    assert "application/json" in head
    assert "x-amz-meta" not in head.lower()


def test_replace_sends_its_condition(proxy: Proxy, proxied: ObjectStore) -> None:
    etag = proxied.put_if_absent("a/b", b"x").etag
    proxied.replace("a/b", b"y", etag)
    head = proxy.requests[-1]
    assert re.search(rf'^If-Match: "{etag}"$', head.replace("\r", ""), re.MULTILINE)


def test_create_leaves_the_existing_object_alone(store: ObjectStore) -> None:
    first = store.put_if_absent("a", b"first")
    with pytest.raises(AlreadyExists, match="object 'a' already exists"):
        store.put_if_absent("a", b"second")
    assert store.get("a") == b"first"
    assert store.stat("a").etag == first.etag


def test_create_after_delete(store: ObjectStore) -> None:
    store.put_if_absent("a", b"1")
    store.delete("a")
    store.put_if_absent("a", b"2")
    assert store.get("a") == b"2"


def test_replace_only_the_version_that_was_read(store: ObjectStore) -> None:
    first = store.put("a", b"1")
    second = store.replace("a", b"2", first.etag)
    with pytest.raises(Conflict, match="changed since version"):
        store.replace("a", b"3", first.etag)
    assert store.get("a") == b"2"
    assert store.stat("a").etag == second.etag


def test_replace_what_is_gone(store: ObjectStore) -> None:
    etag = store.put("a", b"1").etag
    store.delete("a")
    with pytest.raises(Conflict):
        store.replace("a", b"2", etag)
    assert not store.exists("a")


def _race(write: Callable[[bytes], object]) -> list[bytes]:
    """Let all writers write at once; returns what the successful ones wrote."""
    barrier = Barrier(WRITERS)

    def writer(number: int) -> bytes | None:
        data = f"writer {number}".encode()
        barrier.wait()
        try:
            write(data)
        except (AlreadyExists, Conflict):
            return None
        return data

    with ThreadPoolExecutor(WRITERS) as pool:
        return [data for data in pool.map(writer, range(WRITERS)) if data is not None]


@pytest.mark.parametrize("kind", ["create", "replace"])
def test_race_has_exactly_one_winner(store: ObjectStore, kind: str) -> None:
    def one_round(number: int) -> None:
        key = f"{kind}/{number}"
        if kind == "create":
            winners = _race(lambda data: store.put_if_absent(key, data))
        else:
            etag = store.put(key, b"before").etag
            winners = _race(lambda data: store.replace(key, data, etag))
        assert winners == [store.get(key)]

    # Losers mostly wait inside the server, so rounds overlap.
    with ThreadPoolExecutor(10) as rounds:
        list(rounds.map(one_round, range(ROUNDS)))


def test_lost_answer_of_a_create_that_arrived(proxy: Proxy, proxied: ObjectStore, store: ObjectStore) -> None:
    proxy.lose_answers = 1
    written = proxied.put_if_absent("a", b"mine")
    assert proxy.lose_answers == 0
    assert len(proxy.requests) == 2
    assert written.etag == store.stat("a").etag


def test_lost_answer_of_a_create_that_came_too_late(proxy: Proxy, proxied: ObjectStore, store: ObjectStore) -> None:
    store.put("a", b"theirs")
    proxy.lose_answers = 1
    with pytest.raises(AlreadyExists):
        proxied.put_if_absent("a", b"mine")
    assert store.get("a") == b"theirs"


def test_lost_answer_of_a_replace(proxy: Proxy, proxied: ObjectStore, store: ObjectStore) -> None:
    etag = store.put("a", b"old").etag
    proxy.lose_answers = 1
    assert proxied.replace("a", b"new", etag).etag == store.stat("a").etag
    assert store.get("a") == b"new"


def test_dropped_connections_are_tried_again(proxy: Proxy, proxied: ObjectStore) -> None:
    proxy.drop_connections = 2
    proxied.put_if_absent("a", b"x")
    assert proxy.connections == 3


@pytest.mark.parametrize(
    ("status", "kind", "requests"),
    [(503, StoreUnavailable, 2), (409, StoreUnavailable, 2), (403, ArtifactError, 1), (404, Conflict, 1)],
)
def test_answers_that_are_no_success(fixed_answer, status: int, kind: type[Exception], requests: int) -> None:
    fixed_answer.status = status
    with pytest.raises(kind):
        ObjectStore(fixed_answer.config).replace("a", b"x", "etag")
    assert fixed_answer.requests == requests


def test_answer_that_is_not_s3(fixed_answer) -> None:
    fixed_answer.status, fixed_answer.body = 400, b"<html><body>proxy login<br></body>"
    with pytest.raises(StoreRejected, match="not S3"):
        ObjectStore(fixed_answer.config).put_if_absent("a", b"x")
