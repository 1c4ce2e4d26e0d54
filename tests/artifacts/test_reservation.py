"""Reservations: to readers they are nothing, to a writer that was replaced they are the end."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest
from artifacts import reservation
from artifacts.checkpoints import Checkpoints, CheckpointWriter
from artifacts.errors import AlreadyExists, Conflict, NotFound, StoreUnavailable
from artifacts.store import ObjectStore
from artifacts.testing import Proxy

RUN = "sessions/toy/runs/first"
KEY = "checkpoints/dog/manifest.json"
ROUNDS, WRITERS = 3, 12


@pytest.fixture
def checkpoints(store: ObjectStore) -> Checkpoints:
    return Checkpoints(store)


@pytest.fixture
def begin(store: ObjectStore, fields: dict[str, Any]) -> Callable[..., CheckpointWriter]:
    """An unpublished checkpoint with one file, "weights"."""

    def make(content: bytes, checkpoint_id: str = "dog", through: ObjectStore = store) -> CheckpointWriter:
        writer = Checkpoints(through).begin(checkpoint_id, **fields)
        writer.add_bytes("weights", content)
        return writer

    return make


def test_it_says_for_whom_and_no_two_are_equal(checkpoints: Checkpoints) -> None:
    checkpoints.reserve("dog", RUN, 7)
    first = checkpoints.store.get(KEY)
    said = json.loads(first)["reserved_for"]
    assert (said["run"], said["token"]) == (RUN, 7)
    checkpoints.reserve("dog", RUN, 7)
    assert checkpoints.store.get(KEY) != first
    assert reservation.is_reservation(first)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b'"reserved_for"', b'{"schema": 1, "id": "dog"}'])
def test_everything_else_is_none(checkpoints: Checkpoints, data: bytes) -> None:
    checkpoints.store.put(KEY, data)
    assert not reservation.is_reservation(data)
    for attempt in (checkpoints.reserve, checkpoints.revoke):
        with pytest.raises(AlreadyExists, match="checkpoint 'dog'"):
            attempt("dog", RUN, 1)
    assert checkpoints.store.get(KEY) == data


def test_nobody_sees_a_checkpoint_in_it(checkpoints: Checkpoints, begin: Callable[..., CheckpointWriter]) -> None:
    with begin(b"other", "cat") as writer:
        writer.publish()
    checkpoints.reserve("dog", RUN, 1)
    assert [manifest.id for manifest in checkpoints.list()] == ["cat"]
    for read in (checkpoints.get, checkpoints.verify, lambda name: checkpoints.read_file(name, "weights")):
        with pytest.raises(NotFound, match="checkpoint 'dog' does not exist in bucket"):
            read("dog")
    checkpoints.delete("dog")
    assert not checkpoints.store.exists(KEY)


def test_its_holder_publishes_in_its_place(checkpoints: Checkpoints, begin: Callable[..., CheckpointWriter]) -> None:
    with begin(b"mine") as writer:
        manifest = writer.publish({"steps": 5}, checkpoints.reserve("dog", RUN, 1))
    assert manifest == checkpoints.verify("dog")
    assert manifest.metrics == {"steps": 5}
    with pytest.raises(AlreadyExists):
        checkpoints.reserve("dog", RUN, 2)
    with pytest.raises(AlreadyExists):
        checkpoints.revoke("dog", RUN, 2)
    assert checkpoints.get("dog") == manifest


@pytest.mark.parametrize("successor", ["revokes", "reserves", "deletes"])
def test_who_lost_it_cannot_publish(
    checkpoints: Checkpoints, begin: Callable[..., CheckpointWriter], successor: str
) -> None:
    with begin(b"old") as old:
        reserved = checkpoints.reserve("dog", RUN, 1)
        match successor:
            case "revokes":
                checkpoints.revoke("dog", RUN, 2)
            case "reserves":
                checkpoints.reserve("dog", RUN, 2)
            case "deletes":
                checkpoints.store.delete(KEY)
        left = [checkpoints.store.get(found.key) for found in checkpoints.store.list(KEY)]
        with pytest.raises(Conflict):
            old.publish(reserved=reserved)
        assert [checkpoints.store.get(found.key) for found in checkpoints.store.list(KEY)] == left
        with pytest.raises(Conflict):  # and not at the second try either
            old.publish(reserved=reserved)
        manifest = old.publish(reserved=checkpoints.reserve("dog", RUN, 3))
    assert checkpoints.verify("dog") == manifest


def test_what_a_loser_uploaded_goes(checkpoints: Checkpoints, begin: Callable[..., CheckpointWriter]) -> None:
    with begin(b"old") as old:
        reserved = checkpoints.reserve("dog", RUN, 1)
        checkpoints.revoke("dog", RUN, 2)
        with pytest.raises(Conflict):
            old.publish(reserved=reserved)
    assert [found.key for found in checkpoints.store.list("checkpoints/")] == [KEY]


def test_a_loser_finds_what_its_successor_published(
    checkpoints: Checkpoints, begin: Callable[..., CheckpointWriter]
) -> None:
    with begin(b"old") as old, begin(b"new") as new:
        reserved = checkpoints.reserve("dog", RUN, 1)
        new.publish(reserved=checkpoints.reserve("dog", RUN, 2))
        with pytest.raises(AlreadyExists, match="another writer published it first"):
            old.publish(reserved=reserved)
    assert checkpoints.read_file("dog", "weights") == b"new"
    assert len(list(checkpoints.store.list("checkpoints/"))) == 2


def test_revoking_where_nothing_is_reserved_writes_nothing(checkpoints: Checkpoints) -> None:
    checkpoints.revoke("dog", RUN, 1)
    assert not checkpoints.store.exists(KEY)


def test_a_writer_without_a_run_is_not_kept_waiting(
    checkpoints: Checkpoints, begin: Callable[..., CheckpointWriter]
) -> None:
    checkpoints.reserve("dog", RUN, 1)
    with begin(b"by the converter") as writer:
        writer.publish()
    with pytest.raises(AlreadyExists):
        begin(b"late")
    assert checkpoints.read_file("dog", "weights") == b"by the converter"


def test_race_with_and_without_reservations_has_exactly_one_winner(
    checkpoints: Checkpoints, begin: Callable[..., CheckpointWriter]
) -> None:
    def one_round(number: int) -> None:
        name, barrier = f"raced-{number}", Barrier(WRITERS)

        def publish(attempt: int) -> int | None:
            with begin(f"writer {attempt}".encode(), name) as writer:
                barrier.wait()
                while True:
                    try:
                        reserved = checkpoints.reserve(name, RUN, attempt) if attempt % 2 else ""
                        writer.publish({"attempt": attempt}, reserved)
                    except Conflict:
                        continue
                    except AlreadyExists:
                        return None
                    return attempt

        with ThreadPoolExecutor(WRITERS) as writers:
            winners = [attempt for attempt in writers.map(publish, range(WRITERS)) if attempt is not None]
        manifest = checkpoints.verify(name)
        assert winners == [manifest.metrics["attempt"]]
        assert checkpoints.read_file(name, "weights") == f"writer {winners[0]}".encode()

    for number in range(ROUNDS):
        one_round(number)
    assert len(list(checkpoints.store.list("checkpoints/"))) == 2 * ROUNDS


def lossy(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, retries: int, method: str) -> Checkpoints:
    """Through a proxy that loses one answer after the store has acted: that of the next call of this store method."""
    through = ObjectStore(replace(proxy.config, retries=retries))

    write = getattr(through, method)

    def losing(*arguments: Any) -> Any:
        monkeypatch.undo()
        proxy.lose_answers = 1
        return write(*arguments)

    monkeypatch.setattr(through, method, losing)
    return Checkpoints(through)


@pytest.mark.parametrize("method", ["put_if_absent", "replace"])
def test_lost_answer_of_a_reservation(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, checkpoints: Checkpoints, method: str
) -> None:
    if method == "replace":
        checkpoints.reserve("dog", RUN, 1)
    reserved = lossy(proxy, monkeypatch, 2, method).reserve("dog", RUN, 2)
    assert proxy.lose_answers == 0
    assert reserved == checkpoints.store.stat(KEY).etag
    with pytest.raises(StoreUnavailable):
        lossy(proxy, monkeypatch, 0, "replace").reserve("dog", RUN, 2)
    assert checkpoints.reserve("dog", RUN, 2) == checkpoints.store.stat(KEY).etag


@pytest.mark.parametrize("is_reserved", [True, False], ids=["reserved", "over the reservation of another"])
@pytest.mark.parametrize("retries", [0, 2])
def test_lost_answer_of_publishing(
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    checkpoints: Checkpoints,
    begin: Callable[..., CheckpointWriter],
    retries: int,
    is_reserved: bool,
) -> None:
    etag = checkpoints.reserve("dog", RUN, 1)
    reserved = etag if is_reserved else ""
    with begin(b"mine", through=lossy(proxy, monkeypatch, retries, "replace").store) as writer:
        if retries == 0:
            with pytest.raises(StoreUnavailable):
                writer.publish(reserved=reserved)
            assert checkpoints.store.exists(KEY)
        manifest = writer.publish(reserved=reserved)
    assert proxy.lose_answers == 0
    assert checkpoints.verify("dog") == manifest
