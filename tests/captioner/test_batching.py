"""The batching rule, without any model."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import pytest_asyncio
from captioner.batching import Batcher, BatchObserver, Entry
from captioner.errors import QueueFull


class Doubler:
    """Stands for a model: doubles numbers, remembers its batches, can be held."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.free = threading.Event()
        self.free.set()
        self.entered = threading.Event()
        self.abandoned_while_running: list[bool] = []

    def __call__(self, entries: Sequence[Entry[int, int]]) -> list[int]:
        self.batches.append([entry.row for entry in entries])
        self.entered.set()
        self.free.wait(10)
        self.abandoned_while_running = [entry.abandoned for entry in entries]
        if any(entry.row < 0 for entry in entries):
            raise ValueError("negative")
        return [2 * entry.row for entry in entries]


@pytest_asyncio.fixture
async def doubler() -> Doubler:
    return Doubler()


@pytest_asyncio.fixture
async def batcher(doubler: Doubler) -> AsyncIterator[Batcher[int, int]]:
    with ThreadPoolExecutor(1) as executor:
        made = Batcher(doubler, executor, max_batch=4, max_queue=6, window_seconds=5, observer=BatchObserver())
        made.start()
        yield made
        doubler.free.set()
        await made.stop()


async def until(condition: threading.Event) -> None:
    assert await asyncio.to_thread(condition.wait, 10)


async def test_lone_row_is_answered(batcher: Batcher[int, int]) -> None:
    assert await batcher.submit([21], lambda row: 0) == [42]


async def test_rows_waiting_for_a_busy_model_form_one_batch(batcher: Batcher[int, int], doubler: Doubler) -> None:
    doubler.free.clear()
    first = asyncio.ensure_future(batcher.submit([1], lambda row: 0))
    await until(doubler.entered)
    others = [asyncio.ensure_future(batcher.submit([row], lambda row: 0)) for row in (2, 3, 4)]
    await asyncio.sleep(0)
    doubler.free.set()
    assert await asyncio.gather(first, *others) == [[2], [4], [6], [8]]
    assert doubler.batches == [[1], [2, 3, 4]]


async def test_a_batch_waits_for_images_being_decoded(batcher: Batcher[int, int], doubler: Doubler) -> None:
    with batcher.preparing(2):
        first = asyncio.ensure_future(batcher.submit([1], lambda row: 0))
        for _ in range(5):
            await asyncio.sleep(0)
        assert doubler.batches == []
        second = asyncio.ensure_future(batcher.submit([2], lambda row: 0))
        await asyncio.sleep(0)
    assert await asyncio.gather(first, second) == [[2], [4]]
    assert doubler.batches == [[1, 2]]


async def test_only_equal_keys_share_a_batch(batcher: Batcher[int, int], doubler: Doubler) -> None:
    assert await batcher.submit([1, 2, 3, 4], lambda row: row % 2) == [2, 4, 6, 8]
    assert doubler.batches == [[1, 3], [2, 4]]


async def test_a_batch_is_never_larger_than_the_limit(batcher: Batcher[int, int], doubler: Doubler) -> None:
    assert await batcher.submit(list(range(10)), lambda row: 0) == [2 * row for row in range(10)]
    assert [len(batch) for batch in doubler.batches] == [4, 4, 2]


async def test_a_failing_batch_fails_its_rows_and_nothing_else(batcher: Batcher[int, int]) -> None:
    with pytest.raises(ValueError, match="negative"):
        await batcher.submit([-1], lambda row: 0)
    assert await batcher.submit([1], lambda row: 0) == [2]


async def test_rows_of_a_caller_that_went_away_are_dropped(batcher: Batcher[int, int], doubler: Doubler) -> None:
    doubler.free.clear()
    first = asyncio.ensure_future(batcher.submit([1], lambda row: 0))
    await until(doubler.entered)
    gone = asyncio.ensure_future(batcher.submit([2], lambda row: 0))
    await asyncio.sleep(0)
    gone.cancel()
    first.cancel()
    await asyncio.gather(gone, first, return_exceptions=True)
    doubler.free.set()
    assert await batcher.submit([3], lambda row: 0) == [6]
    assert doubler.batches == [[1], [3]]
    assert doubler.abandoned_while_running == [False]


async def test_the_queue_is_bounded_and_says_so(batcher: Batcher[int, int]) -> None:
    with batcher.admitted(4), pytest.raises(QueueFull) as caught, batcher.admitted(3):
        pass
    assert (caught.value.num_waiting, caught.value.limit) == (4, 6)
    with batcher.admitted(100):
        pass  # alone, a request may be larger than the queue
