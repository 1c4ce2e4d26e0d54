"""Sessions against a real S3 server, and against what people do to the bucket by hand."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from artifacts.errors import AlreadyExists, CaptionInvalid, InvalidName, ManifestInvalid, NotFound
from artifacts.sessions import MAX_CAPTION_BYTES, InstanceImage, Sessions
from artifacts.store import ObjectStore


@pytest.fixture
def sessions(store: ObjectStore) -> Sessions:
    """An empty bucket with one session, `dog`."""
    sessions = Sessions(store)
    sessions.create("dog", "sd15-tiny", "our dog", {"owner": "ann"})
    return sessions


def test_create_and_get(sessions: Sessions) -> None:
    session = sessions.get("dog")
    assert (session.name, session.base_model, session.description) == ("dog", "sd15-tiny", "our dog")
    assert session.labels == {"owner": "ann"}
    assert sessions.create("cat") == sessions.get("cat")


def test_list_is_in_order_of_name(sessions: Sessions) -> None:
    for name in ("cat", "9-lives", "eel"):
        sessions.create(name)
    assert [session.name for session in sessions.list()] == ["9-lives", "cat", "dog", "eel"]


def test_who_stops_asking_for_images_stops_the_requests(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(100):
        sessions.store.put(f"sessions/dog/instance_images/{number}.png", b"image")
    asked: list[str] = []
    stat = sessions.store.stat
    monkeypatch.setattr(sessions.store, "stat", lambda key: asked.append(key) or stat(key))
    images = sessions.each_image("dog")
    assert next(images).filename == "0.png"
    images.close()
    assert len(asked) < 60


def test_create_twice(sessions: Sessions) -> None:
    with pytest.raises(AlreadyExists, match="session 'dog'"):
        sessions.create("dog", description="other")
    assert sessions.get("dog").description == "our dog"


def test_one_of_many_creates_wins(store: ObjectStore) -> None:
    barrier = Barrier(8)

    def create(number: int) -> int | None:
        barrier.wait()
        try:
            Sessions(store).create("raced", description=str(number))
        except AlreadyExists:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(create, range(8)) if number is not None]
    assert [str(number) for number in winners] == [Sessions(store).get("raced").description]


@pytest.mark.parametrize("name", ["", "Dog", "a/b", "..", "a" * 64])
def test_bad_session_names(sessions: Sessions, name: str) -> None:
    for call in (sessions.create, sessions.get, sessions.delete, sessions.images):
        with pytest.raises(InvalidName, match="session name"):
            call(name)


def test_unknown_session(sessions: Sessions) -> None:
    for call in (
        lambda: sessions.get("cat"),
        lambda: sessions.images("cat"),
        lambda: sessions.image_names("cat"),
        lambda: sessions.put_image("cat", "a.png", b""),
        lambda: sessions.read_image("cat", "a.png"),
        lambda: sessions.image_size("cat", "a.png"),
        lambda: sessions.set_caption("cat", "a.png", "x"),
        lambda: sessions.delete_image("cat", "a.png"),
        lambda: sessions.stray_captions("cat"),
    ):
        with pytest.raises(NotFound, match="session 'cat' does not exist"):
            call()
    assert [found.key for found in sessions.store.list("sessions/cat")] == []


def test_damaged_record(sessions: Sessions) -> None:
    sessions.store.put("sessions/dog/session.json", b'{"schema": 1, "name": "cat", "labels": {"a": 1}}')
    with pytest.raises(ManifestInvalid, match=r"sessions/dog/session\.json") as caught:
        sessions.get("dog")
    assert caught.value.problems == (
        "labels: all values must be strings",
        "create_time: missing",
        "name: 'cat', but the folder is 'dog'",
    )


def test_folders_that_are_no_sessions_are_not_listed(sessions: Sessions) -> None:
    sessions.store.put("sessions/Not A Session/x", b"")
    sessions.store.put("sessions/no-record/instance_images/a.png", b"")
    assert [session.name for session in sessions.list()] == ["dog"]


def test_images(sessions: Sessions) -> None:
    put = sessions.put_image("dog", "b 写真.png", b"pixels", 640, 480)
    sessions.put_image("dog", "a.jpg", b"more")
    sessions.set_caption("dog", "b 写真.png", "a dog")
    sha256 = hashlib.sha256(b"pixels").hexdigest()
    assert put == InstanceImage("b 写真.png", 6, 640, 480, sha256, None)
    assert sessions.images("dog") == [
        InstanceImage("a.jpg", 4, 0, 0, hashlib.sha256(b"more").hexdigest(), None),
        InstanceImage("b 写真.png", 6, 640, 480, sha256, "a dog"),
    ]
    assert sessions.read_image("dog", "b 写真.png") == b"pixels"
    assert sessions.image_size("dog", "b 写真.png") == 6


def test_replacing_an_image_keeps_its_caption(sessions: Sessions) -> None:
    sessions.put_image("dog", "a.png", b"old", 1, 1)
    sessions.set_caption("dog", "a.png", "a dog")
    assert sessions.put_image("dog", "a.png", b"new", 2, 2).caption == "a dog"
    assert sessions.images("dog") == [
        InstanceImage("a.png", 3, 2, 2, hashlib.sha256(b"new").hexdigest(), "a dog"),
    ]


def test_image_put_into_the_bucket_by_hand(sessions: Sessions) -> None:
    sessions.store.put("sessions/dog/instance_images/by hand.png", b"pixels")
    sessions.store.put("sessions/dog/captions/by hand.txt", b"typed\n")
    for hidden in ("instance_images/.DS_Store", "captions/.DS_Store"):
        sessions.store.put(f"sessions/dog/{hidden}", b"left behind by a file browser")
    assert sessions.images("dog") == [InstanceImage("by hand.png", 6, 0, 0, "", "typed")]
    assert sessions.stray_captions("dog") == []


def test_listing_images_reads_the_bytes_of_none(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("c.png", "a.png"):
        sessions.put_image("dog", name, b"pixels", 640, 480)
    sessions.store.put("sessions/dog/instance_images/b.png", b"put here by hand")
    sessions.set_caption("dog", "c.png", "a dog")
    read: list[str] = []
    reader = sessions.store.reader
    monkeypatch.setattr(sessions.store, "reader", lambda key, *rest: read.append(key) or reader(key, *rest))
    assert sessions.image_names("dog") == ["a.png", "b.png", "c.png"]
    assert len(sessions.images("dog")) == 3
    assert [image.filename for image in sessions.images("dog", ["c.png", "gone.png", "a.png"])] == ["a.png", "c.png"]
    assert set(read) == {"sessions/dog/captions/c.txt"}


@pytest.mark.parametrize("name", ["", ".a.png", "a/b.png", "a\\b.png", "a\n.png", "x" * 201])
def test_bad_file_names(sessions: Sessions, name: str) -> None:
    for call in (
        lambda: sessions.put_image("dog", name, b""),
        lambda: sessions.read_image("dog", name),
        lambda: sessions.image_size("dog", name),
        lambda: sessions.caption("dog", name),
        lambda: sessions.set_caption("dog", name, "x"),
        lambda: sessions.delete_image("dog", name),
    ):
        with pytest.raises(InvalidName, match="file name"):
            call()


def test_two_images_may_not_share_a_caption(sessions: Sessions) -> None:
    sessions.put_image("dog", "a.b.png", b"1")
    for twin in ("a.b.jpg", "a.b"[:3] + ".PNG"):
        with pytest.raises(AlreadyExists, match="caption") as caught:
            sessions.put_image("dog", twin, b"2")
        assert "'a.b.png'" in str(caught.value)
        assert f"'{twin}'" in str(caught.value)
    sessions.put_image("dog", "a.png", b"3")
    assert [image.filename for image in sessions.images("dog")] == ["a.b.png", "a.png"]


def test_racing_twins_are_never_both_kept(sessions: Sessions) -> None:
    barrier = Barrier(2)

    def put(filename: str) -> None:
        barrier.wait()
        try:
            sessions.put_image("dog", filename, b"x")
        except AlreadyExists:
            return

    with ThreadPoolExecutor(2) as pool:
        for number in range(10):
            list(pool.map(put, (f"{number}.png", f"{number}.jpg")))
    stems = [image.filename.split(".")[0] for image in sessions.images("dog")]
    assert len(stems) == len(set(stems))


def test_deleting_an_image_deletes_its_caption(sessions: Sessions) -> None:
    sessions.put_image("dog", "a.png", b"1")
    sessions.put_image("dog", "ab.png", b"2")
    sessions.set_caption("dog", "a.png", "one")
    sessions.set_caption("dog", "ab.png", "two")
    sessions.delete_image("dog", "a.png")
    assert [(image.filename, image.caption) for image in sessions.images("dog")] == [("ab.png", "two")]
    assert sessions.stray_captions("dog") == []
    with pytest.raises(NotFound, match=r"instance image 'a\.png' does not exist in session 'dog'"):
        sessions.delete_image("dog", "a.png")
    with pytest.raises(NotFound, match="instance image"):
        sessions.read_image("dog", "a.png")
    with pytest.raises(NotFound, match="instance image"):
        sessions.image_size("dog", "a.png")


def test_captions(sessions: Sessions) -> None:
    sessions.put_image("dog", "a.png", b"1")
    assert sessions.caption("dog", "a.png") is None
    sessions.set_caption("dog", "a.png", "  a dög\nin the park  ")
    assert sessions.caption("dog", "a.png") == "a dög\nin the park"
    assert sessions.store.get("sessions/dog/captions/a.txt") == "a dög\nin the park\n".encode()
    sessions.delete_caption("dog", "a.png")
    assert sessions.caption("dog", "a.png") is None


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"typed by hand \r\n", "typed by hand"), (b"\xef\xbb\xbffrom Windows\r\n", "from Windows"), (b" \n", "")],
)
def test_captions_edited_by_hand(sessions: Sessions, raw: bytes, text: str) -> None:
    sessions.put_image("dog", "a.png", b"1")
    sessions.store.put("sessions/dog/captions/a.txt", raw)
    assert sessions.caption("dog", "a.png") == text
    assert sessions.images("dog")[0].caption == text


@pytest.mark.parametrize(("raw", "problem"), [(b"caf\xe9", "not UTF-8 at byte 3"), (b"x" * 65537, "more than 65536")])
def test_captions_that_are_no_captions(sessions: Sessions, raw: bytes, problem: str) -> None:
    sessions.put_image("dog", "a.png", b"1")
    sessions.store.put("sessions/dog/captions/a.txt", raw)
    for call in (lambda: sessions.caption("dog", "a.png"), lambda: sessions.images("dog")):
        with pytest.raises(CaptionInvalid, match=problem) as caught:
            call()
        assert caught.value.key == "sessions/dog/captions/a.txt"


def test_caption_needs_its_image(sessions: Sessions) -> None:
    for call in (lambda: sessions.set_caption("dog", "a.png", "x"), lambda: sessions.delete_caption("dog", "a.png")):
        with pytest.raises(NotFound, match=r"instance image 'a\.png'"):
            call()
    assert sessions.stray_captions("dog") == []


def test_caption_of_boundless_length(sessions: Sessions) -> None:
    sessions.put_image("dog", "a.png", b"1")
    with pytest.raises(CaptionInvalid, match="at most"):
        sessions.set_caption("dog", "a.png", "x" * MAX_CAPTION_BYTES)
    assert sessions.caption("dog", "a.png") is None


def test_stray_captions_are_found(sessions: Sessions) -> None:
    sessions.put_image("dog", "a.png", b"1")
    sessions.set_caption("dog", "a.png", "x")
    sessions.store.put("sessions/dog/captions/b.txt", b"whose?")
    sessions.store.put("sessions/dog/captions/a.caption", b"not read")
    assert sessions.stray_captions("dog") == ["a.caption", "b.txt"]


def test_delete_removes_everything_below(sessions: Sessions) -> None:
    sessions.create("dog-2")
    sessions.put_image("dog", "a.png", b"1")
    sessions.set_caption("dog", "a.png", "x")
    sessions.store.put("sessions/dog/runs/r1/events/00000001.jsonl", b"{}")
    assert sessions.delete("dog") == 4
    assert sessions.delete("dog") == 0
    assert [found.key for found in sessions.store.list("")] == ["sessions/dog-2/session.json"]
    assert [session.name for session in sessions.list()] == ["dog-2"]
    sessions.create("dog")
    assert sessions.images("dog") == []
