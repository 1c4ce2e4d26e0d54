"""One writer of a run, against the real store: races, dead and paused holders, lost answers, an absent store."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from artifacts.errors import AccessDenied, ManifestInvalid, StoreUnavailable
from artifacts.store import ObjectStore
from artifacts.testing import Proxy
from dreambooth import exits
from dreambooth.errors import LeaseLost, Stopped, WriterAlive
from dreambooth.exits import StopSignal
from dreambooth.holder import this_process
from dreambooth.lease import Lease
from dreambooth.writer_record import ListedPoint, WriterRecord, decode

RUN = "sessions/toy/runs/first/"
KEY = f"{RUN}writer.json"
POINT = ListedPoint("1-0-0000010", "unet", 10, "a" * 64)
# Long enough that a busy machine renews in time; a loser sees the first renewal after a third of it.
ALIVE_SECONDS = 6.0
SHORT_SECONDS = 0.3

_ACQUIRE = """
import sys
from artifacts.store import ObjectStore, StoreConfig
from dreambooth.exits import StopSignal
from dreambooth.lease import Lease
endpoint, access_key, secret_key, bucket, run, seconds = sys.argv[1:]
store = ObjectStore(StoreConfig(endpoint, access_key, secret_key, bucket))
lease = Lease.acquire(store, run, StopSignal(), float(seconds))
print(lease.token, flush=True)
sys.stdin.read()
"""


def record(store: ObjectStore) -> WriterRecord:
    return decode(KEY, store.get(KEY))


def until(holds: Callable[[], Any]) -> None:
    """Wait for something that happens in another thread; the test's own time limit ends it."""
    while not holds():
        time.sleep(0.02)


def acquire(store: ObjectStore, seconds: float = ALIVE_SECONDS, **more: Any) -> Lease:
    return Lease.acquire(store, RUN, StopSignal(), seconds, **more)


def leave(store: ObjectStore, **changes: Any) -> WriterRecord:
    """The record of a holder elsewhere that is silent from now on."""
    holder = replace(this_process(), host="elsewhere", boot_id="another")
    left = replace(
        WriterRecord(4, "feed", 9, holder, SHORT_SECONDS, points=(POINT,), damaged=("1-0-0000005",)), **changes
    )
    store.put(KEY, left.encode())
    return left


@pytest.fixture
def proxy(store: ObjectStore) -> Iterator[Proxy]:
    with Proxy(replace(store.config, retries=0, read_timeout_seconds=5)) as running:
        yield running


@pytest.fixture
def holder_elsewhere(store: ObjectStore) -> Iterator[subprocess.Popen[str]]:
    """A real process that holds the run."""
    config = store.config
    arguments = [config.endpoint, config.access_key, config.secret_key, config.bucket, RUN, str(ALIVE_SECONDS)]
    command = [sys.executable, "-c", _ACQUIRE, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        yield process
        process.kill()


def test_the_first_writer_gets_token_1_and_says_who_it_is(store: ObjectStore) -> None:
    with acquire(store) as lease:
        found = record(store)
        assert (lease.token, found.token, found.released, found.seconds) == (1, 1, False, ALIVE_SECONDS)
        assert found.holder == this_process()
        lease.check()
        lease.confirm()
        assert record(store).renewal > found.renewal
    assert record(store).released


def test_a_run_that_was_given_back_goes_to_the_next_at_once_with_its_points(store: ObjectStore) -> None:
    waits: list[str] = []
    with acquire(store, 3600) as first:
        first.publish([POINT], ["1-0-0000005"])
    with acquire(store, report=waits.append) as second:
        assert (second.token, second.points, second.damaged) == (2, (POINT,), ("1-0-0000005",))
    assert waits == []


@pytest.mark.parametrize("before", ["absent", "released"])
def test_of_many_that_want_the_run_one_gets_it_and_the_others_are_told(store: ObjectStore, before: str) -> None:
    if before == "released":
        acquire(store).release()
    writers = 12
    barrier = Barrier(writers)

    def contend(_: int) -> Lease | WriterAlive:
        barrier.wait()
        try:
            return acquire(store)
        except WriterAlive as error:
            return error

    with ThreadPoolExecutor(writers) as pool:
        outcomes = list(pool.map(contend, range(writers)))
    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, Lease)]
    winner.confirm()
    me = this_process()
    assert winner.token == (1 if before == "absent" else 2)
    for loser in (outcome for outcome in outcomes if isinstance(outcome, WriterAlive)):
        assert f"process {me.pid} on host {me.host!r}, which holds token {winner.token}" in str(loser)
        assert exits.code(loser) == 78
    winner.release()


def test_a_holder_elsewhere_that_is_silent_loses_the_run(store: ObjectStore) -> None:
    left = leave(store)
    waits: list[str] = []
    with acquire(store, report=waits.append) as lease:
        assert (lease.token, lease.points, lease.damaged) == (5, left.points, left.damaged)
    assert waits == [f"the run was held by process {left.holder.pid} on host 'elsewhere': waiting up to 0.3 s for it"]


def test_of_many_that_wait_for_a_silent_holder_one_gets_the_run(store: ObjectStore) -> None:
    leave(store)
    writers = 12

    def contend(_: int) -> Lease | None:
        try:
            return acquire(store)
        except WriterAlive:
            return None

    with ThreadPoolExecutor(writers) as pool:
        winners = [lease for lease in pool.map(contend, range(writers)) if lease]
    assert [lease.token for lease in winners] == [5]
    winners[0].confirm()
    winners[0].release()


def test_a_holder_that_gives_the_run_back_while_another_waits(store: ObjectStore) -> None:
    left = leave(store, seconds=60.0)
    given_back = replace(left, released=True, renewal=10).encode()
    with acquire(store, report=lambda text: None if record(store).released else put_later(store, given_back)) as lease:
        assert lease.token == 5


def put_later(store: ObjectStore, data: bytes) -> None:
    threading.Timer(0.2, store.put, (KEY, data)).start()


def test_waiting_ends_when_the_process_is_to_stop(store: ObjectStore) -> None:
    left = leave(store, seconds=3600.0)
    stop = StopSignal()
    with pytest.raises(Stopped):
        Lease.acquire(store, RUN, stop, report=lambda text: stop.set())
    assert record(store) == left


def test_a_living_process_of_this_machine_keeps_the_run_and_a_killed_one_loses_it_at_once(
    store: ObjectStore, holder_elsewhere: subprocess.Popen[str]
) -> None:
    with pytest.raises(WriterAlive, match=f"process {holder_elsewhere.pid} on host .*token 1"):
        acquire(store)
    holder_elsewhere.kill()
    holder_elsewhere.wait()
    waits: list[str] = []
    with acquire(store, report=waits.append) as lease:
        assert lease.token == 2
    assert waits == []


def test_a_zombie_is_dead_and_so_is_a_process_whose_id_was_used_again(
    store: ObjectStore, holder_elsewhere: subprocess.Popen[str]
) -> None:
    child = record(store).holder
    assert child.pid == holder_elsewhere.pid
    assert not child.is_dead()
    assert replace(child, start_ticks=child.start_ticks - 1).is_dead()
    holder_elsewhere.kill()
    until(child.is_dead)
    assert Path(f"/proc/{child.pid}").exists()  # nobody has waited for it: a zombie
    holder_elsewhere.wait()
    assert child.is_dead()


@pytest.mark.parametrize("field", ["host", "boot_id", "pid_namespace"])
def test_nothing_is_known_of_processes_elsewhere(field: str) -> None:
    gone = replace(this_process(), start_ticks=1)
    assert gone.is_dead()
    assert not replace(gone, **{field: "another"}).is_dead()
    assert not replace(gone, **{field: ""}).is_dead()


def test_after_a_takeover_the_old_writer_can_do_nothing(store: ObjectStore) -> None:
    old = acquire(store, 3600)
    old.publish([POINT])
    taken = replace(record(store), token=2, nonce="other", holder=replace(this_process(), host="elsewhere"))
    store.put(KEY, taken.encode())
    before = store.get(KEY)
    old.check()  # it does not know yet
    for attempt in (lambda: old.publish([]), old.confirm, old.check):
        with pytest.raises(LeaseLost, match=r"taken over by process .* on host 'elsewhere' with token 2") as caught:
            attempt()
        assert exits.code(caught.value) == 78
    old.release()
    assert store.get(KEY) == before


def test_the_renewals_find_out_by_themselves(store: ObjectStore) -> None:
    lease = acquire(store, SHORT_SECONDS)
    renewal = record(store).renewal
    until(lambda: record(store).renewal > renewal + 1)
    lease.check()
    store.delete(KEY)
    until(lambda: lease._failure)
    with pytest.raises(LeaseLost, match=r"writer\.json was deleted while this process held it"):
        lease.check()
    assert not store.exists(KEY)


def test_nothing_is_written_after_the_run_was_given_back(store: ObjectStore) -> None:
    lease = acquire(store)
    lease.release()
    lease.release()
    with pytest.raises(LeaseLost, match="was given back by this process"):
        lease.publish([POINT])
    lease.check()
    assert record(store).points == ()


def test_renewals_and_points_from_many_threads_do_not_hurt_each_other(store: ObjectStore) -> None:
    with acquire(store, SHORT_SECONDS) as lease, ThreadPoolExecutor(8) as pool:
        points = [replace(POINT, step=step) for step in range(40)]
        list(pool.map(lambda point: (lease.publish([point]), lease.confirm()), points))
        lease.check()
        assert record(store).points == lease.points
        assert lease.points[0] in points


@pytest.mark.parametrize("retries", [0, 4])
def test_a_lost_answer_is_not_a_lost_lease(store: ObjectStore, proxy: Proxy, retries: int) -> None:
    lease = acquire(ObjectStore(replace(proxy.config, retries=retries)), 3600)
    proxy.lose_answers = 1
    if retries:
        lease.publish([POINT])
    else:
        with pytest.raises(StoreUnavailable):
            lease.publish([POINT])
        assert lease.points == ()
        lease.confirm()
    assert lease.points == record(store).points == (POINT,)
    lease.check()
    lease.release()


def test_after_an_outage_longer_than_the_validity_the_lease_goes_on(store: ObjectStore, proxy: Proxy) -> None:
    lease = acquire(ObjectStore(proxy.config), SHORT_SECONDS)
    proxy.lose_answers = 10_000
    until(lambda: proxy.lose_answers < 9_995)
    lease.check()
    with pytest.raises(StoreUnavailable):
        lease.confirm()
    proxy.lose_answers = 0
    lease.confirm()
    lease.publish([POINT])
    lease.check()
    assert record(store).points == (POINT,)
    lease.release()


def test_a_takeover_during_an_outage_is_found_afterwards(store: ObjectStore, proxy: Proxy) -> None:
    old = acquire(ObjectStore(proxy.config), SHORT_SECONDS)
    proxy.lose_answers = 10_000
    until(lambda: proxy.lose_answers < 9_995)
    taken = replace(record(store), token=2, nonce="other", holder=replace(this_process(), host="elsewhere"))
    store.put(KEY, taken.encode())
    proxy.lose_answers = 0
    until(lambda: old._failure)
    with pytest.raises(LeaseLost):
        old.check()


def test_a_refusal_of_the_store_reaches_the_thread_that_trains(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = acquire(store, SHORT_SECONDS)

    def refuse(*arguments: Any, **more: Any) -> None:
        raise AccessDenied(KEY, "store", "no")

    monkeypatch.setattr(store, "replace", refuse)
    until(lambda: lease._failure)
    with pytest.raises(AccessDenied):
        lease.check()
    lease.release()  # logged, not raised: another error may be on its way out


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"token": "x"}, "token: int expected"),
        ({"seconds": -1}, "seconds: -1 is not a time"),
        ({"seconds": True}, "seconds: True is not a time"),
        ({"released": 0}, "released: true or false expected"),
        ({"holder": {}}, "holder.pid: None is not a process id"),
        ({"points": [{"name": "x"}]}, r"points\[0\]: name, stage, step and sha256 expected"),
        ({"schema": 2}, "schema 2 is newer than 1"),
    ],
)
def test_a_damaged_record_is_refused_and_kept(store: ObjectStore, change: dict[str, Any], problem: str) -> None:
    whole = {"schema": 1, **asdict(WriterRecord(1, "feed", 0, this_process(), 30.0))}
    damaged = json.dumps({**whole, **change}).encode()
    store.put(KEY, damaged)
    with pytest.raises(ManifestInvalid, match=f"{problem}.*if no process of this run is at work, delete it") as caught:
        acquire(store)
    assert exits.code(caught.value) == 69
    assert store.get(KEY) == damaged


def test_a_torn_record_is_refused(store: ObjectStore) -> None:
    store.put(KEY, b'{"schema": 1, "tok')
    with pytest.raises(ManifestInvalid, match="not JSON"):
        acquire(store)


def test_no_token_is_used_twice_even_if_the_record_was_deleted(store: ObjectStore) -> None:
    store.put(f"{RUN}resume_points/7-1-0000150/unet", b"x")
    store.put(f"{RUN}resume_points/10-0-0000001/unet", b"x")
    store.put(f"{RUN}resume_points/notes/unet", b"x")
    with acquire(store) as lease:
        assert lease.token == 11


def test_a_record_survives_the_way_to_the_bucket_and_back(store: ObjectStore) -> None:
    left = leave(store)
    assert record(store) == left
