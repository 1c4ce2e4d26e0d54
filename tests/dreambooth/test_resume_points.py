"""Resume points against the real store: whole or not there, whatever is killed, torn, flipped or taken over."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from artifacts.errors import DigestMismatch, InvalidName, ManifestInvalid, StoreUnavailable
from artifacts.store import ObjectStore
from artifacts.testing import Proxy
from artifacts.writer import PART_SIZE_BYTES
from dreambooth.errors import LeaseLost
from dreambooth.exits import StopSignal
from dreambooth.lease import Lease
from dreambooth.resume_point import Position, ResumePoint
from dreambooth.resume_points import ResumePoints
from dreambooth.writer_record import decode

RUN = "sessions/toy/runs/first/"
KEY = f"{RUN}writer.json"
POINTS = f"{RUN}resume_points/"
SHORT_SECONDS = 0.3

# Writes one point, then does what it is told, line by line, and answers each line.
_WRITER = """
import os, sys
from pathlib import Path
from artifacts.store import ObjectStore, StoreConfig
from dreambooth.errors import LeaseLost
from dreambooth.exits import StopSignal
from dreambooth.lease import Lease
from dreambooth.resume_point import Position
from dreambooth.resume_points import ResumePoints
endpoint, access_key, secret_key, bucket, run, folder, seconds = sys.argv[1:]
store = ObjectStore(StoreConfig(endpoint, access_key, secret_key, bucket))
lease = Lease.acquire(store, run, StopSignal(), float(seconds))
points = ResumePoints(store, run, lease, 2)
def write(step, before=lambda: None):
    points.write(Position("unet", 1, step), Path(folder), {}, before)
write(10)
actions = {
    "write": lambda: write(20),
    "confirm": lease.confirm,
    "die before the manifest": lambda: write(20, lambda: os.kill(os.getpid(), 9)),
}
print("ready", flush=True)
for line in sys.stdin:
    try:
        actions[line.strip()]()
        print("done", flush=True)
    except LeaseLost as error:
        print("LeaseLost", flush=True)
"""


def at(step: int) -> Position:
    return Position("unet", 1, step)


def name(step: int, token: int = 1) -> str:
    return f"{token}-1-{step:07d}"


def listed(store: ObjectStore) -> list[str]:
    return [point.name for point in decode(KEY, store.get(KEY)).points]


def folders(store: ObjectStore) -> set[str]:
    """The folders that hold objects."""
    return {found.key[len(POINTS) :].split("/")[0] for found in store.list(POINTS)}


@pytest.fixture
def state(tmp_path: Path) -> Callable[[int], Path]:
    """A folder with the files of one step."""

    def make(step: int) -> Path:
        folder = tmp_path / f"state-{step}"
        (folder / "unet").mkdir(parents=True)
        (folder / "unet" / "weights").write_bytes(f"weights of {step}".encode() * 1000)
        (folder / "optimizer").write_bytes(f"moments of {step}".encode())
        return folder

    return make


@pytest.fixture
def lease(store: ObjectStore) -> Iterator[Lease]:
    with Lease.acquire(store, RUN, StopSignal()) as held:
        yield held


@pytest.fixture
def points(store: ObjectStore, lease: Lease) -> ResumePoints:
    return ResumePoints(store, RUN, lease, 2)


@pytest.fixture
def write(points: ResumePoints, state: Callable[[int], Path]) -> Callable[[int], ResumePoint]:
    return lambda step: points.write(at(step), state(step), {"loss": step / 8})


@pytest.fixture
def read(points: ResumePoints, tmp_path: Path) -> Callable[..., tuple[ResumePoint | None, str]]:
    """The newest point, and what was reported, as one text."""

    def take() -> tuple[ResumePoint | None, str]:
        reports: list[str] = []
        return points.newest(tmp_path / "back", reports.append), "\n".join(reports)

    return take


@pytest.fixture
def start_writer(
    store: ObjectStore, state: Callable[[int], Path]
) -> Iterator[Callable[[float], subprocess.Popen[str]]]:
    """Real processes that have written one point."""
    started: list[subprocess.Popen[str]] = []

    def start(seconds: float) -> subprocess.Popen[str]:
        config = store.config
        arguments = [config.endpoint, config.access_key, config.secret_key, config.bucket, RUN, str(state(10)), seconds]
        command = [sys.executable, "-c", _WRITER, *map(str, arguments)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def tell(process: subprocess.Popen[str], action: str) -> str:
    """Its answer; empty if it died."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{action}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written_comes_back_byte_for_byte(
    store: ObjectStore, points: ResumePoints, lease: Lease, state: Callable[[int], Path], tmp_path: Path
) -> None:
    written = points.write(at(150), state(150), {"versions": {"torch": "2"}, "losses": [0.5, 0.25]})
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "left over").write_bytes(b"x")
    found = points.newest(tmp_path / "back", pytest.fail)
    assert found == written
    assert (found.position, found.token, found.name) == (at(150), 1, "1-1-0000150")
    assert found.about == {"versions": {"torch": "2"}, "losses": [0.5, 0.25]}
    assert content(tmp_path / "back") == content(tmp_path / "state-150")
    manifest = store.get(f"{POINTS}1-1-0000150/manifest.json")
    assert [entry["path"] for entry in json.loads(manifest)["files"]] == ["optimizer", "unet/weights"]
    (entry,) = lease.points
    assert (entry.stage, entry.step, entry.sha256) == ("unet", 150, hashlib.sha256(manifest).hexdigest())


def test_large_files_go_in_parts(points: ResumePoints, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "weights").write_bytes(os.urandom(PART_SIZE_BYTES + 5))
    written = points.write(at(1), folder, {})
    assert written.size_bytes == PART_SIZE_BYTES + 5
    assert points.newest(tmp_path / "back", pytest.fail) == written
    assert content(tmp_path / "back") == content(folder)


def test_a_run_without_points_has_none(read: Callable[..., Any], tmp_path: Path) -> None:
    assert read() == (None, "")
    assert list((tmp_path / "back").iterdir()) == []


def test_the_newest_wins_and_the_last_k_stay(
    store: ObjectStore, write: Callable[[int], ResumePoint], read: Callable[..., Any]
) -> None:
    for step in (1, 2, 10, 100):
        last = write(step)
    assert read() == (last, "")
    assert listed(store) == [name(10), name(100)]
    assert folders(store) == {name(10), name(100)}


def test_a_point_of_a_later_stage_or_holder_is_newer(
    store: ObjectStore, points: ResumePoints, lease: Lease, state: Callable[[int], Path], tmp_path: Path
) -> None:
    points.write(Position("text_encoder", 0, 900), state(900), {})
    points.write(at(5), state(5), {})
    lease.release()
    with Lease.acquire(store, RUN, StopSignal()) as second:
        later = ResumePoints(store, RUN, second, 2)
        found = later.newest(tmp_path / "back", pytest.fail)
        assert found is not None
        assert found.name == name(5)
        later.write(at(3), state(3), {})
        found = later.newest(tmp_path / "back", pytest.fail)
        assert found is not None
        assert found.name == name(3, token=2)
    assert folders(store) == {name(5), name(3, token=2)}


def test_the_same_point_again_changes_nothing(
    store: ObjectStore, write: Any, points: ResumePoints, tmp_path: Path
) -> None:
    written = write(5)
    before = {found.key: found.etag for found in store.list(POINTS)}
    assert points.write(at(5), tmp_path / "state-5", {"loss": 9}) == written
    assert {found.key: found.etag for found in store.list(POINTS)} == before


def flip(store: ObjectStore, key: str) -> None:
    data = bytearray(store.get(key))
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))


DAMAGE: dict[str, tuple[Callable[[ObjectStore, str], object], str]] = {
    "a flipped byte": (
        lambda s, folder: flip(s, f"{folder}unet/weights"),
        r"weights.*expected 13000 bytes.*found 13000",
    ),
    "a truncated file": (
        lambda s, folder: s.put(f"{folder}unet/weights", s.get(f"{folder}unet/weights")[:-1]),
        r"weights.*expected 13000 bytes.*found 12999",
    ),
    "a deleted file": (lambda s, folder: s.delete(f"{folder}optimizer"), r"optimizer' does not exist"),
    "a deleted manifest": (lambda s, folder: s.delete(f"{folder}manifest.json"), r"manifest\.json' does not exist"),
    "a changed manifest": (
        lambda s, folder: flip(s, f"{folder}manifest.json"),
        r"manifest\.json' is damaged: expected",
    ),
    "a deleted folder": (lambda s, folder: s.delete_prefix(folder), r"manifest\.json' does not exist"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_point_is_reported_kept_and_passed_over(
    store: ObjectStore, write: Any, read: Callable[..., Any], lease: Lease, damage: str, tmp_path: Path
) -> None:
    older, newer = write(15), write(20)
    harm, report = DAMAGE[damage]
    harm(store, f"{POINTS}{newer.name}/")
    left = {found.key: found.etag for found in store.list(f"{POINTS}{newer.name}/")}
    found, reports = read()
    assert found == older
    assert content(tmp_path / "back") == content(tmp_path / "state-15")
    (line,) = reports.splitlines()
    assert line.startswith(f"resume point {newer.name} is damaged: ")
    assert re.search(report, line)
    assert (listed(store), lease.damaged) == ([older.name], (newer.name,))
    assert read() == (older, "")  # it is remembered
    for step in (30, 40, 50):
        write(step)
    assert {found.key: found.etag for found in store.list(f"{POINTS}{newer.name}/")} == left
    assert listed(store) == [name(40), name(50)]


def test_if_all_are_damaged_there_is_none_and_all_are_kept(
    store: ObjectStore, write: Any, read: Callable[..., Any], lease: Lease
) -> None:
    for point in (write(10), write(20)):
        flip(store, f"{POINTS}{point.name}/optimizer")
    found, reports = read()
    assert found is None
    assert len(reports.splitlines()) == 2
    assert (lease.points, set(lease.damaged)) == ((), {name(10), name(20)})
    write(30)
    assert folders(store) == {name(10), name(20), name(30)}


def test_a_point_of_a_newer_program_is_refused_not_called_damaged(
    store: ObjectStore, write: Any, read: Callable[..., Any], lease: Lease
) -> None:
    key = f"{POINTS}{write(10).name}/manifest.json"
    newer = store.get(key).replace(b'"schema": 1', b'"schema": 2')
    store.put(key, newer)
    lease.publish([replace(lease.points[0], sha256=hashlib.sha256(newer).hexdigest())])
    with pytest.raises(ManifestInvalid, match="schema 2 is newer than 1"):
        read()
    assert lease.damaged == ()


def test_points_are_found_without_writer_json(
    store: ObjectStore, write: Any, lease: Lease, tmp_path: Path, state: Callable[[int], Path]
) -> None:
    older, newer = write(10), write(20)
    store.put(f"{POINTS}1-1-0000030/optimizer", b"an upload that was cut off")
    store.put(f"{POINTS}1-1-0000040/manifest.json", b"{")
    store.delete(KEY)
    reports: list[str] = []
    with Lease.acquire(store, RUN, StopSignal()) as second:
        points = ResumePoints(store, RUN, second, 3)
        assert points.newest(tmp_path / "back", reports.append) == newer
        assert reports[0].startswith("resume point 1-1-0000040 is passed over: ")
        assert reports[1:] == [
            f"writer.json lists no whole resume point, but these are complete and are tried: {older.name}, {newer.name}"
        ]
        assert listed(store) == [older.name, newer.name]
        points.write(at(25), state(25), {})
        assert folders(store) == {older.name, newer.name, name(25, token=2)}


def test_a_killed_upload_is_no_point_and_is_swept_by_the_next_one(
    store: ObjectStore, start_writer: Any, state: Callable[[int], Path], tmp_path: Path
) -> None:
    process = start_writer(30)
    assert tell(process, "die before the manifest") == ""
    assert process.wait() == -signal.SIGKILL
    assert folders(store) == {name(10), name(20)}
    assert not store.exists(f"{POINTS}{name(20)}/manifest.json")
    with Lease.acquire(store, RUN, StopSignal()) as second:
        points = ResumePoints(store, RUN, second, 2)
        found = points.newest(tmp_path / "back", pytest.fail)
        assert found is not None
        assert found.name == name(10)
        points.write(at(12), state(12), {})
    assert folders(store) == {name(10), name(12, token=2)}


def test_a_paused_writer_that_wakes_up_after_a_takeover_can_publish_nothing(
    store: ObjectStore, start_writer: Any, state: Callable[[int], Path], tmp_path: Path
) -> None:
    process = start_writer(SHORT_SECONDS)
    assert tell(process, "confirm") == "done"
    process.send_signal(signal.SIGSTOP)
    with Lease.acquire(store, RUN, StopSignal()) as second:
        points = ResumePoints(store, RUN, second, 2)
        points.newest(tmp_path / "back", pytest.fail)
        written = points.write(at(15), state(15), {})
        process.send_signal(signal.SIGCONT)
        assert tell(process, "write") == "LeaseLost"
        assert tell(process, "confirm") == "LeaseLost"
        second.confirm()
        assert listed(store) == [name(10), written.name]
        assert points.newest(tmp_path / "back", pytest.fail) == written


def test_a_writer_that_loses_the_run_in_the_middle_of_an_upload_publishes_nothing(
    store: ObjectStore, points: ResumePoints, lease: Lease, write: Any, state: Callable[[int], Path]
) -> None:
    write(10)

    def take_over() -> None:
        current = decode(KEY, store.get(KEY))
        store.put(KEY, replace(current, token=2, nonce="other").encode())
        store.delete_prefix(f"{POINTS}{name(20)}/")  # as the new holder sweeps

    with pytest.raises(LeaseLost):
        points.write(at(20), state(20), {}, take_over)
    assert listed(store) == [name(10)]


def test_an_older_point_is_pruned_only_after_the_newer_one_was_read_back(
    store: ObjectStore, points: ResumePoints, write: Any, state: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(10)
    write(20)
    happened: list[str] = []
    for method in ("reader", "replace", "delete", "delete_prefix"):
        original = getattr(store, method)

        def noted(key: str, *rest: Any, original: Any = original, method: str = method, **more: Any) -> Any:
            happened.append(f"{method} {key.removeprefix(RUN)}")
            return original(key, *rest, **more)

        monkeypatch.setattr(store, method, noted)
    points.write(at(30), state(30), {})
    first_deleted = next(index for index, event in enumerate(happened) if event.startswith("delete"))
    before = happened[:first_deleted]
    assert before[-1] == "replace writer.json"
    for path in ("optimizer", "unet/weights", "manifest.json"):
        assert f"reader resume_points/{name(30)}/{path}" in before
    assert all(f"/{name(10)}/" in event for event in happened[first_deleted:])


@pytest.mark.parametrize("path", ["optimizer", "manifest.json"])
def test_a_store_that_does_not_keep_what_it_was_sent_prunes_nothing(
    store: ObjectStore, points: ResumePoints, write: Any, state: Any, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(10)
    write(20)
    reader = store.reader

    def faulty(key: str, *rest: Any) -> Iterator[bytes]:
        data = b"".join(reader(key, *rest))
        yield data[:-1] if key.endswith(path) else data

    monkeypatch.setattr(store, "reader", faulty)
    with pytest.raises(DigestMismatch, match=f"{name(30)}/{path}"):
        points.write(at(30), state(30), {})
    monkeypatch.undo()
    assert listed(store) == [name(10), name(20)]
    assert folders(store) >= {name(10), name(20)}


@pytest.mark.parametrize("lost_answer_of", ["upload", "publish"])
def test_after_an_outage_the_same_write_is_repeated(
    store: ObjectStore, state: Callable[[int], Path], lost_answer_of: str, tmp_path: Path
) -> None:
    with Proxy(replace(store.config, retries=0)) as proxy:
        behind = ObjectStore(proxy.config)
        lease = Lease.acquire(behind, RUN, StopSignal(), 3600)
        points = ResumePoints(behind, RUN, lease, 2)
        original = lease.publish

        def publish(*arguments: Any) -> None:
            proxy.lose_answers = 1
            original(*arguments)

        if lost_answer_of == "publish":
            lease.publish = publish  # type: ignore[method-assign]
        else:
            proxy.cut_answers_after_bytes = 2000
        folder = state(10)
        with pytest.raises(StoreUnavailable):
            points.write(at(10), folder, {})
        assert listed(store) == ([name(10)] if lost_answer_of == "publish" else [])
        lease.publish = original  # type: ignore[method-assign]
        before = {found.key: found.etag for found in store.list(POINTS)}
        written = points.write(at(10), folder, {})
        if lost_answer_of == "publish":  # a point that is published is never written again
            assert {found.key: found.etag for found in store.list(POINTS)} == before
        assert listed(store) == [name(10)]
        assert points.newest(tmp_path / "back", pytest.fail) == written
        lease.release()


def test_what_cannot_be_stored_is_refused_before_the_upload(
    store: ObjectStore, points: ResumePoints, lease: Lease, state: Callable[[int], Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="JSON"):
        points.write(at(1), state(1), {"loss": float("nan")})
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="holds no file"):
        points.write(at(1), empty, {})
    (empty / ".hidden").write_bytes(b"x")
    with pytest.raises(InvalidName):
        points.write(at(1), empty, {})
    with pytest.raises(ValueError, match="keep must be 1 or more"):
        ResumePoints(store, RUN, lease, 0)
    assert folders(store) == set()


def test_other_folders_are_left_alone(store: ObjectStore, write: Any) -> None:
    store.put(f"{POINTS}notes/a.txt", b"by hand")
    store.put(f"{POINTS}9-1-0000001/optimizer", b"of a newer holder")
    for step in (10, 20, 30):
        write(step)
    assert folders(store) == {name(20), name(30), "notes", "9-1-0000001"}
