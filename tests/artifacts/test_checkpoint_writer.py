"""Publishing: all at once or not at all, one winner, and no harm by the losers."""

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from artifacts.checkpoints import Checkpoints, FileEntry
from artifacts.errors import AlreadyExists, InvalidName, ManifestInvalid, NotFound, StoreUnavailable
from artifacts.store import ObjectStore
from artifacts.testing import Proxy

ROUNDS, WRITERS = 30, 12


def _keys(store: ObjectStore) -> list[str]:
    return [found.key for found in store.list("checkpoints/")]


def test_publish(store: ObjectStore, fields: dict[str, Any], tmp_path: Path) -> None:
    local = tmp_path / "local.bin"
    local.write_bytes(b"local")
    with Checkpoints(store).begin("dog", **fields, title="Dog", metrics={"loss": 1.0}) as writer:
        writer.add_bytes("model_index.json", b"{}")
        with writer.open("unet/weights.safetensors") as file:
            file.write(b"wei")
            file.write(b"ghts")
        writer.add_file("vae/local.bin", local)
        manifest = writer.publish(metrics={"steps": 5})
    assert manifest == Checkpoints(store).get("dog")
    assert manifest.files == tuple(
        FileEntry(path, len(data), hashlib.sha256(data).hexdigest())
        for path, data in (
            ("model_index.json", b"{}"),
            ("unet/weights.safetensors", b"weights"),
            ("vae/local.bin", b"local"),
        )
    )
    assert manifest.metrics == {"loss": 1.0, "steps": 5}


def test_nothing_is_visible_before_publish(store: ObjectStore, fields: dict[str, Any]) -> None:
    checkpoints = Checkpoints(store)
    with checkpoints.begin("dog", **fields) as writer:
        writer.add_bytes("a", b"x")
        assert list(checkpoints.list()) == []
        with pytest.raises(NotFound, match="checkpoint 'dog'"):
            checkpoints.get("dog")
        writer.publish()
    assert [manifest.id for manifest in checkpoints.list()] == ["dog"]


def test_the_manifest_is_the_last_object(proxy: Proxy, proxied: ObjectStore, fields: dict[str, Any]) -> None:
    with Checkpoints(proxied).begin("dog", **fields) as writer:
        writer.add_bytes("a", b"x")
        writer.add_bytes("b", b"y")
        writer.publish()
    paths = [head.split(" ")[1].split("?")[0].rsplit("/", 1)[1] for head in proxy.requests]
    assert paths == ["a", "b", "manifest.json"]
    assert "If-None-Match: *" in proxy.requests[-1]


@pytest.mark.parametrize("raising", [True, False])
def test_leaving_without_publishing_removes_the_files(
    store: ObjectStore, fields: dict[str, Any], raising: bool
) -> None:
    def write() -> None:
        with Checkpoints(store).begin("dog", **fields) as writer:
            writer.add_bytes("a", b"x")
            if raising:
                raise ZeroDivisionError

    if raising:
        with pytest.raises(ZeroDivisionError):
            write()
    else:
        write()
    assert _keys(store) == []


def test_a_broken_file_is_not_part_of_it(store: ObjectStore, fields: dict[str, Any]) -> None:
    def write_half(writer: Any) -> None:
        with writer.open("a") as file:
            file.write(b"half")
            raise ZeroDivisionError

    with Checkpoints(store).begin("dog", **fields) as writer:
        with pytest.raises(ZeroDivisionError):
            write_half(writer)
        writer.add_bytes("a", b"whole")
        writer.publish()
    assert Checkpoints(store).read_file("dog", "a") == b"whole"


def test_begin_refuses_what_is_published(store: ObjectStore, fields: dict[str, Any]) -> None:
    with Checkpoints(store).begin("dog", **fields) as writer:
        writer.add_bytes("a", b"x")
        writer.publish()
    with pytest.raises(AlreadyExists, match="checkpoint 'dog'"):
        Checkpoints(store).begin("dog", **fields)


def test_mistakes_are_found_at_the_beginning(store: ObjectStore, fields: dict[str, Any]) -> None:
    begin = Checkpoints(store).begin
    with pytest.raises(InvalidName, match="checkpoint id"):
        begin("Dog", **fields)
    with pytest.raises(TypeError, match="colour"):
        begin("dog", **fields, colour="red")
    with pytest.raises(TypeError, match="format"):
        begin("dog")
    with pytest.raises(ManifestInvalid, match="resolution: int expected"):
        begin("dog", **fields | {"resolution": "512"})
    with pytest.raises(ValueError, match="JSON"):
        begin("dog", **fields, recipe={"lr": float("nan")})
    assert _keys(store) == []


def test_misuse(store: ObjectStore, fields: dict[str, Any]) -> None:
    with Checkpoints(store).begin("dog", **fields) as writer:
        with pytest.raises(ValueError, match="has no files"):
            writer.publish()
        writer.add_bytes("a", b"x")
        with pytest.raises(AlreadyExists, match="file 'a'"):
            writer.add_bytes("a", b"y")
        for path in ("../a", "/a", "manifest.json", ".hidden"):
            with pytest.raises(InvalidName):
                writer.add_bytes(path, b"")
        writer.publish()
        with pytest.raises(ValueError, match="is closed"):
            writer.add_bytes("b", b"")
    assert Checkpoints(store).read_file("dog", "a") == b"x"


def test_race_for_one_manifest_has_exactly_one_winner(store: ObjectStore, fields: dict[str, Any]) -> None:
    checkpoints = Checkpoints(store)

    def one_round(number: int) -> None:
        barrier = Barrier(WRITERS)

        def publish(attempt: int) -> int | None:
            with checkpoints.begin(f"raced-{number}", **fields) as writer:
                writer.add_bytes("weights", f"writer {attempt}".encode())
                barrier.wait()
                try:
                    writer.publish(metrics={"attempt": attempt})
                except AlreadyExists:
                    return None
                return attempt

        with ThreadPoolExecutor(WRITERS) as writers:
            winners = [attempt for attempt in writers.map(publish, range(WRITERS)) if attempt is not None]
        manifest = checkpoints.verify(f"raced-{number}")
        assert winners == [manifest.metrics["attempt"]]
        assert checkpoints.read_file(manifest, "weights") == f"writer {winners[0]}".encode()

    with ThreadPoolExecutor(6) as rounds:
        list(rounds.map(one_round, range(ROUNDS)))
    assert len(_keys(store)) == 2 * ROUNDS


def test_a_writer_thought_dead_cannot_harm_the_winner(store: ObjectStore, fields: dict[str, Any]) -> None:
    checkpoints = Checkpoints(store)
    slow = checkpoints.begin("dog", **fields)
    slow.add_bytes("weights", b"slow")
    with checkpoints.begin("dog", **fields) as fast:
        fast.add_bytes("weights", b"fast")
        fast.publish()
    slow.add_bytes("more", b"late")
    with pytest.raises(AlreadyExists, match="another writer published it first"):
        slow.publish()
    assert checkpoints.read_file("dog", "weights") == b"fast"
    assert len(_keys(store)) == 2


def test_files_of_a_dead_writer_are_swept(store: ObjectStore, fields: dict[str, Any]) -> None:
    Checkpoints(store).begin("dog", **fields).add_bytes("weights", b"dead")
    with Checkpoints(store).begin("dog", **fields) as writer:
        writer.add_bytes("weights", b"alive")
        manifest = writer.publish()
    assert _keys(store) == [f"checkpoints/dog/{manifest.writer}/weights", "checkpoints/dog/manifest.json"]


def test_publish_whose_answer_is_lost(proxy: Proxy, proxied: ObjectStore, fields: dict[str, Any]) -> None:
    with Checkpoints(proxied).begin("dog", **fields) as writer:
        writer.add_bytes("weights", b"x")
        proxy.lose_answers = 1
        writer.publish()
    assert Checkpoints(proxied).read_file("dog", "weights") == b"x"


def test_publish_that_may_have_arrived_keeps_the_files(
    proxy: Proxy, store: ObjectStore, fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    def publish_into_the_dark() -> None:
        through_proxy = ObjectStore(replace(proxy.config, retries=0))
        with Checkpoints(through_proxy).begin("dog", **fields) as writer:
            writer.add_bytes("weights", b"x")
            proxy.lose_answers = 1
            writer.publish()

    with pytest.raises(StoreUnavailable), caplog.at_level(logging.WARNING):
        publish_into_the_dark()
    assert Checkpoints(store).read_file("dog", "weights") == b"x"
    assert "may have been published" in caplog.text


def test_publish_may_be_repeated(proxy: Proxy, store: ObjectStore, fields: dict[str, Any]) -> None:
    through_proxy = ObjectStore(replace(proxy.config, retries=0))
    with Checkpoints(through_proxy).begin("dog", **fields) as writer:
        writer.add_bytes("weights", b"x")
        proxy.lose_answers = 1
        with pytest.raises(StoreUnavailable):
            writer.publish()
        manifest = writer.publish()
    assert manifest == Checkpoints(store).verify("dog")
