"""The queue: order, dropping, errors, stopping."""

import threading
from collections.abc import Iterator

import pytest
from webui_engine.errors import Cancelled, NotReady, QueueFull
from webui_engine.worker import Worker


@pytest.fixture
def gate() -> threading.Event:
    """Held by the first job of a test."""
    return threading.Event()


@pytest.fixture
def worker(gate: threading.Event) -> Iterator[Worker]:
    """A worker that is busy until the gate opens."""
    worker = Worker(max_queue=2)
    worker.start()
    began = threading.Event()
    worker.submit("first", lambda: (began.set(), gate.wait()))
    assert began.wait(30)
    yield worker
    gate.set()
    assert worker.stop(30)


def test_first_come_first_served(worker: Worker, gate: threading.Event) -> None:
    order: list[str] = []
    jobs = [worker.submit(name, lambda name=name: order.append(name)) for name in ("a", "b")]
    assert worker.pending() == ["a", "b"]
    assert (worker.state("first"), worker.state("a"), worker.state("z")) == ("active", "queued", "")
    gate.set()
    for job in jobs:
        job.future.result(30)
    assert order == ["a", "b"]


def test_a_full_queue_refuses(worker: Worker) -> None:
    worker.submit("a", lambda: None)
    worker.submit("b", lambda: None)
    with pytest.raises(QueueFull, match="2 requests are waiting"):
        worker.submit("c", lambda: None)


def test_a_waiting_job_can_be_dropped(worker: Worker, gate: threading.Event) -> None:
    job = worker.submit("a", lambda: pytest.fail("it was dropped"))
    assert worker.cancel(job)
    with pytest.raises(Cancelled):
        job.future.result(30)
    last = worker.submit("b", lambda: None)
    gate.set()
    last.future.result(30)
    assert not worker.cancel(last)
    assert worker.pending() == []


def test_a_failing_job_does_not_end_the_worker(worker: Worker, gate: threading.Event) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    failing, next_one = worker.submit("a", fail), worker.submit("b", lambda: 7)
    gate.set()
    with pytest.raises(ZeroDivisionError):
        failing.future.result(30)
    assert next_one.future.result(30) == 7


def test_stopping_answers_those_who_wait(worker: Worker, gate: threading.Event) -> None:
    job = worker.submit("a", lambda: None)
    assert not worker.stop(0)
    with pytest.raises(NotReady):
        job.future.result(30)
    with pytest.raises(NotReady):
        worker.submit("b", lambda: None)
