"""The queue with back ends that the test leads by the hand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from webui_gateway.errors import (
    BackendAway,
    BackendRefused,
    Cancelled,
    NoBackend,
    QueueFull,
    RequestInvalid,
    Stopping,
    UnknownJob,
)
from webui_gateway.job import Progress, State
from webui_gateway.jobs import MAX_ATTEMPTS, JobQueue, Pace

QUICK = Pace(poll_seconds=0.005, retry_seconds=0.005, lost_seconds=30, patience_seconds=30)


class Hand:
    """A back end whose generations wait for `answers`: a reply, or an exception to raise."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.answers: asyncio.Queue[dict[str, Any] | Exception] = asyncio.Queue()
        self.fraction = 0.25
        self.task = ""
        self.away = False
        self.num_interrupts = 0
        self.num_left = 0
        self.looked = asyncio.Event()

    async def generate(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.put_nowait(body)
        try:
            answer = await self.answers.get()
        except asyncio.CancelledError:
            self.num_left += 1
            raise
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def progress(self) -> Progress:
        self.looked.set()
        if self.away:
            raise BackendAway(self.url, "test")
        return Progress(self.fraction, preview="p", task=self.task, raw={"progress": self.fraction})

    async def interrupt(self) -> None:
        self.num_interrupts += 1
        self.answers.put_nowait({"images": []})


Make = Callable[..., Awaitable[tuple[JobQueue, list[Hand]]]]


@pytest_asyncio.fixture
async def make() -> AsyncIterator[Make]:
    """Queues with n back ends, stopped after the test."""
    queues: list[JobQueue] = []

    async def begin(count: int = 1, max_queue: int = 8, pace: Pace = QUICK) -> tuple[JobQueue, list[Hand]]:
        hands = [Hand(f"http://{number}") for number in range(count)]
        queue = JobQueue(hands, max_queue, pace)
        queue.start()
        queues.append(queue)
        return queue, hands

    yield begin
    for queue in queues:
        await queue.stop()


def bodies(*hands: Hand, **fields: Any) -> dict[str, dict[str, Any]]:
    return {hand.url: {"for": hand.url, **fields} for hand in hands}


async def test_first_come_first_served_and_the_result_arrives(make: Make) -> None:
    queue, [hand] = await make()
    jobs = [queue.submit("/p", bodies(hand, n=number), "m") for number in range(3)]
    assert (await hand.asked.get())["n"] == 0
    assert [queue.position(job) for job, _ in jobs] == [0, 1, 2]
    for number, (job, outcome) in enumerate(jobs):
        hand.answers.put_nowait({"n": number})
        assert await outcome == {"n": number}
        assert job.state == State.SUCCEEDED
    assert jobs[0][0].bodies == {}, "requests and pictures are not kept"


async def test_two_back_ends_share_and_each_gets_only_what_it_can(make: Make) -> None:
    queue, [one, two] = await make(2)
    both = [queue.submit("/p", bodies(one, two), "m") for _ in range(2)]
    await asyncio.gather(one.asked.get(), two.asked.get())
    assert {job.backend for job, _ in both} == {one.url, two.url}
    only, outcome = queue.submit("/p", bodies(two), "m")
    one.answers.put_nowait({})
    await both[0][1]
    assert queue.position(only) == 1
    two.answers.put_nowait({})
    two.answers.put_nowait({"last": 1})
    assert await outcome == {"last": 1}
    assert only.backend == two.url


async def test_progress_reaches_the_follower(make: Make) -> None:
    queue, [hand] = await make()
    job, _ = queue.submit("/p", bodies(hand), "m")
    async for seen in queue.follow(job):
        if seen.progress.fraction == 0.25:
            hand.fraction = 0.75
        if seen.progress.fraction == 0.75:
            hand.answers.put_nowait({})
    assert job.progress == Progress(1.0)


async def test_cancel_takes_a_waiting_job_out(make: Make) -> None:
    queue, [hand] = await make()
    queue.submit("/p", bodies(hand), "m", "first")
    await hand.asked.get()
    waiting, outcome = queue.submit("/p", bodies(hand), "m", "second")
    assert queue.cancel("second")
    with pytest.raises(Cancelled, match="second"):
        await outcome
    assert waiting.state == State.CANCELLED
    assert not queue.cancel("second"), "repeating it is harmless"
    with pytest.raises(UnknownJob):
        queue.cancel("third")


async def test_cancel_stops_a_running_job(make: Make) -> None:
    queue, [hand] = await make()
    job, outcome = queue.submit("/p", bodies(hand), "m")
    await hand.asked.get()
    assert queue.cancel(job.id)
    with pytest.raises(Cancelled):
        await outcome
    assert hand.num_interrupts >= 1


async def test_another_s_generation_on_the_same_back_end_is_left_alone(make: Make) -> None:
    queue, [hand] = await make()
    hand.task = "task(another)"
    job, outcome = queue.submit("/p", bodies(hand), "m")
    await hand.asked.get()
    assert queue.cancel(job.id)
    with pytest.raises(Cancelled):
        await outcome
    assert (job.progress.fraction, hand.num_interrupts) == (0, 0)
    queue.submit("/p", bodies(hand, n=2), "m")
    assert (await hand.asked.get())["n"] == 2, "the back end is asked for the next"
    assert hand.num_left == 1, "it takes the first out of its own queue when the connection closes"


async def test_progress_is_that_of_the_own_task(make: Make) -> None:
    queue, [hand] = await make()
    hand.task = "task(another)"
    job, outcome = queue.submit("/p", bodies(hand), "m")
    own = (await hand.asked.get())["force_task_id"]
    await hand.looked.wait()
    assert job.progress.fraction == 0
    hand.task = own
    async for seen in queue.follow(job):
        if seen.progress.fraction == 0.25:
            hand.answers.put_nowait({})
    await outcome


async def test_a_job_whose_back_end_goes_is_drawn_by_another_with_the_same_request(make: Make) -> None:
    queue, [one, two] = await make(2)
    one.away = True
    job, outcome = queue.submit("/p", bodies(one, two, seed=5), "m")
    await one.asked.get()
    one.answers.put_nowait(BackendAway(one.url, "gone"))
    assert (await two.asked.get())["seed"] == 5
    two.answers.put_nowait({"ok": 1})
    assert await outcome == {"ok": 1}
    assert (job.backend, job.num_attempts) == (two.url, 2)


async def test_a_job_waits_for_its_only_back_end_to_come_back(make: Make) -> None:
    queue, [hand] = await make()
    hand.away = True
    job, outcome = queue.submit("/p", bodies(hand, seed=5), "m")
    first = await hand.asked.get()
    hand.answers.put_nowait(BackendAway(hand.url, "gone"))
    while job.state != State.PENDING:
        await job.changed.wait()
    assert queue.position(job) == 1
    hand.away = False
    again = await hand.asked.get()
    assert again.pop("force_task_id") != first.pop("force_task_id"), "the first attempt may not have ended there"
    assert again == first
    hand.answers.put_nowait({"ok": 1})
    assert await outcome == {"ok": 1}


async def test_patience_ends(make: Make) -> None:
    queue, [hand] = await make(pace=Pace(0.005, 0.005, 30, patience_seconds=0.02))
    hand.away = True
    _, outcome = queue.submit("/p", bodies(hand), "m")
    hand.answers.put_nowait(BackendAway(hand.url, "gone"))
    with pytest.raises(NoBackend, match="http://0"):
        await outcome


async def test_a_request_that_kills_back_ends_is_given_up(make: Make) -> None:
    queue, [hand] = await make()
    job, outcome = queue.submit("/p", bodies(hand), "m")
    for _ in range(MAX_ATTEMPTS):
        hand.answers.put_nowait(BackendAway(hand.url, "gone"))
    with pytest.raises(NoBackend):
        await outcome
    assert job.num_attempts == MAX_ATTEMPTS


async def test_a_silent_back_end_is_left(make: Make) -> None:
    queue, [one, two] = await make(2, pace=Pace(0.005, 0.005, lost_seconds=0.05, patience_seconds=30))
    one.away = True
    _, outcome = queue.submit("/p", bodies(one, two), "m")
    await one.asked.get()
    await two.asked.get()
    two.answers.put_nowait({"ok": 1})
    assert await outcome == {"ok": 1}


async def test_a_refusal_is_not_repeated_and_the_queue_goes_on(make: Make) -> None:
    queue, [hand] = await make()
    ended: list[State] = []
    queue.on_end = lambda job: ended.append(job.state)
    _, refused = queue.submit("/p", bodies(hand), "m")
    _, broken = queue.submit("/p", bodies(hand), "m")
    _, fine = queue.submit("/p", bodies(hand), "m")
    for answer in (BackendRefused(422, {"detail": "no"}), ZeroDivisionError(), {"ok": 1}):
        hand.answers.put_nowait(answer)
    with pytest.raises(BackendRefused, match="no"):
        await refused
    with pytest.raises(ZeroDivisionError):
        await broken
    assert await fine == {"ok": 1}
    assert ended == [State.FAILED, State.FAILED, State.SUCCEEDED]


async def test_limits(make: Make) -> None:
    queue, [hand] = await make(max_queue=1)
    queue.submit("/p", bodies(hand), "m", "a")
    await hand.asked.get()
    with pytest.raises(RequestInvalid, match="'a'"):
        queue.submit("/p", bodies(hand), "m", "a")
    queue.submit("/p", bodies(hand), "m", "b")
    with pytest.raises(QueueFull, match="1 generations wait"):
        queue.submit("/p", bodies(hand), "m", "c")
    assert queue.num_waiting == 1


async def test_stop_leaves_nobody_waiting(make: Make) -> None:
    queue, [hand] = await make()
    outcomes = [queue.submit("/p", bodies(hand), "m")[1] for _ in range(2)]
    await hand.asked.get()
    await queue.stop()
    for outcome in outcomes:
        with pytest.raises(Stopping):
            await outcome
