"""Saving while training goes on, against the real store: what waits and is replaced, outages, a full disk."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from artifacts.errors import AccessDenied, StoreUnavailable
from artifacts.store import ObjectStore
from artifacts.testing import Proxy
from dreambooth.errors import LeaseLost
from dreambooth.exits import StopSignal
from dreambooth.lease import Lease
from dreambooth.resume_point import Position
from dreambooth.resume_points import ResumePoints
from dreambooth.saver import Saver
from dreambooth.writer_record import decode

RUN = "sessions/toy/runs/first/"
KEY = f"{RUN}writer.json"


@dataclass
class Gate:
    """Work before a point is published that lasts until it is let through."""

    entered: threading.Event = field(default_factory=threading.Event)
    open: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> None:
        self.entered.set()
        self.open.wait()


@dataclass
class Bench:
    """A saver, and everything it said. Its store is reached through a proxy."""

    saver: Saver
    store: ObjectStore
    lease: Lease
    proxy: Proxy
    scratch: Path
    reports: list[tuple[str, str]]
    published: list[int]
    reported: threading.Event

    def save(self, step: int) -> bool:
        return self.saver.save(Position("unet", 1, step), {"step": step}, lambda folder: stage(folder, step))

    def until_published(self, step: int) -> None:
        while step not in self.published:
            self.saver.check()
            time.sleep(0.02)

    def levels(self) -> list[str]:
        return [level for _, level in self.reports]


def stage(folder: Path, step: int) -> None:
    (folder / "weights").write_bytes(f"weights of {step}".encode())


def listed(store: ObjectStore) -> list[int]:
    return [point.step for point in decode(KEY, store.get(KEY)).points]


@pytest.fixture
def bench(store: ObjectStore, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    made: list[Bench] = []
    with Proxy(replace(store.config, retries=0)) as proxy:

        def make(before_publish: Callable[[], None] = lambda: None) -> Bench:
            behind = ObjectStore(proxy.config)
            lease = Lease.acquire(behind, RUN, StopSignal())
            reports: list[tuple[str, str]] = []
            published: list[int] = []
            reported = threading.Event()

            def report(text: str, level: str) -> None:
                reports.append((text, level))
                reported.set()

            points = ResumePoints(behind, RUN, lease, 3)
            saver = Saver(points, scratch, report, before_publish, lambda point: published.append(point.position.step))
            made.append(Bench(saver, behind, lease, proxy, scratch, reports, published, reported))
            return made[-1]

        yield make
        proxy.lose_answers = 0
        for each in made:
            each.lease.release()


def test_points_are_saved_in_order_and_the_copies_removed(store: ObjectStore, bench: Callable[..., Bench]) -> None:
    work = bench()
    assert work.saver.last is None
    for step in (10, 20):
        assert work.save(step)
        work.until_published(step)
    work.saver.close(30)
    assert listed(store) == work.published == [10, 20]
    assert store.get(f"{RUN}resume_points/1-1-0000020/weights") == b"weights of 20"
    assert work.saver.last is not None
    assert work.saver.last.about == {"step": 20}
    assert (list(work.scratch.iterdir()), work.reports) == ([], [])
    assert work.saver.stall_seconds > 0


def test_training_does_not_wait_and_the_newest_waiting_point_wins(
    store: ObjectStore, bench: Callable[..., Bench]
) -> None:
    gate = Gate()
    work = bench(gate)
    work.save(10)
    gate.entered.wait()
    for step in (20, 30, 40):
        work.save(step)  # returns, although nothing can be published
    assert len(list(work.scratch.iterdir())) == 2
    assert listed(store) == []
    gate.open.set()
    work.saver.close(30)
    assert listed(store) == work.published == [10, 40]
    assert list(work.scratch.iterdir()) == []


def test_the_records_are_durable_before_the_manifest_is_there(store: ObjectStore, bench: Callable[..., Bench]) -> None:
    manifest = f"{RUN}resume_points/1-1-0000010/manifest.json"
    seen: list[tuple[bool, bool]] = []
    work = bench(
        lambda: seen.append((store.exists(manifest.replace("manifest.json", "weights")), store.exists(manifest)))
    )
    work.save(10)
    work.saver.close(30)
    assert seen == [(True, False)]
    assert store.exists(manifest)


def test_training_goes_on_while_the_store_is_away_and_the_newest_point_catches_up(
    store: ObjectStore, bench: Callable[..., Bench]
) -> None:
    work = bench()
    work.save(10)
    work.until_published(10)
    work.proxy.lose_answers = 10_000
    work.save(20)
    work.reported.wait()
    for step in (30, 40):
        work.save(step)
        work.saver.check()
    with pytest.raises(
        StoreUnavailable, match=r"not taken in 0\.1 s; the newest saved one is that of step 10 of stage unet"
    ):
        work.saver.close(0.1)
    work.proxy.lose_answers = 0
    work.saver.close(60)
    assert listed(store)[-1] == work.published[-1] == 40
    assert work.levels() == ["warning", "info"]
    assert "resume points wait for the store, training goes on" in work.reports[0][0]
    assert work.reports[1][0] == "the store is back: the resume point of step 40 of stage unet is saved"
    assert list(work.scratch.iterdir()) == []


def test_records_that_wait_for_the_store_delay_the_point_only(store: ObjectStore, bench: Callable[..., Bench]) -> None:
    outcomes: list[Exception | None] = [StoreUnavailable("events", "store", "gone"), None]

    def flush() -> None:
        if error := outcomes.pop(0):
            raise error

    work = bench(flush)
    work.save(10)
    work.saver.close(30)
    assert listed(store) == [10]
    assert work.levels() == ["warning", "info"]


def test_each_outage_is_reported_once(bench: Callable[..., Bench]) -> None:
    away = [True, True, False, True, True, False]

    def flush() -> None:
        if away.pop(0):
            raise StoreUnavailable("events", "store", "gone")

    work = bench(flush)
    for step in (10, 20):
        work.save(step)
        work.until_published(step)
    work.saver.close(30)
    assert work.levels() == ["warning", "info", "warning", "info"]


def test_a_lost_lease_surfaces_in_the_thread_that_trains(store: ObjectStore, bench: Callable[..., Bench]) -> None:
    gate = Gate()
    work = bench(gate)
    work.save(10)
    gate.entered.wait()
    taken = replace(decode(KEY, store.get(KEY)), token=2, nonce="other").encode()
    store.put(KEY, taken)
    gate.open.set()
    with pytest.raises(LeaseLost):
        work.saver.close(30)
    for attempt in (work.saver.check, lambda: work.save(20), lambda: work.saver.close(1)):
        with pytest.raises(LeaseLost):
            attempt()
    assert store.get(KEY) == taken
    assert list(work.scratch.iterdir()) == []


def test_a_refusal_surfaces_and_is_not_repeated(bench: Callable[..., Bench]) -> None:
    tries: list[int] = []

    def refused() -> None:
        tries.append(1)
        raise AccessDenied("events", "store", "no")

    work = bench(refused)
    work.save(10)
    with pytest.raises(AccessDenied):
        work.saver.close(30)
    assert tries == [1]


def test_a_store_that_does_not_keep_a_point_is_reported_and_the_older_point_stays(
    store: ObjectStore, bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = bench()
    work.save(10)
    work.until_published(10)
    reader = work.store.reader
    monkeypatch.setattr(work.store, "reader", lambda key: iter([b"other"]) if "0000020" in key else reader(key))
    work.save(20)
    work.saver.close(30)
    assert listed(store) == [10]
    assert work.levels() == ["warning"]
    assert "the store did not keep the resume point of step 20 of stage unet" in work.reports[0][0]
    assert "the newest saved one is that of step 10" in work.reports[0][0]


def test_a_full_disk_is_a_warning_and_the_last_point_stays(store: ObjectStore, bench: Callable[..., Bench]) -> None:
    work = bench()
    work.save(10)
    work.until_published(10)

    def fill(folder: Path) -> None:
        (folder / "weights").write_bytes(b"x")
        with open("/dev/full", "wb", buffering=0) as file:  # the system's own answer
            file.write(b"x")

    def wrapped(folder: Path) -> None:
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    for filled in (fill, wrapped):
        assert work.saver.save(Position("unet", 1, 20), {}, filled) is False
    assert list(work.scratch.iterdir()) == []
    assert work.levels() == ["warning", "warning"]
    for text, _ in work.reports:
        assert text == (
            f"no resume point at step 20 of stage unet: the disk of {work.scratch} is full; "
            "the newest saved one is that of step 10 of stage unet"
        )
    assert work.save(30)
    work.saver.close(30)
    assert listed(store) == [10, 30]


def test_a_mistake_while_copying_is_no_full_disk(bench: Callable[..., Bench]) -> None:
    work = bench()

    def mistake(folder: Path) -> None:
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        work.saver.save(Position("unet", 1, 20), {}, mistake)
    assert list(work.scratch.iterdir()) == []
    work.saver.close(30)


def test_closing_without_a_point_is_fine(bench: Callable[..., Bench]) -> None:
    work = bench()
    work.saver.close(30)
    work.saver.close(30)
    assert work.reports == []
