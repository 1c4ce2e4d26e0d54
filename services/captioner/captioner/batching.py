"""Dynamic batching: many small requests become few forward passes of one model thread.

Rule: a free model takes what waits at once, unless images of the present moment are still being decoded: then it waits for
them, at most `window_seconds` after the first row. So a lone request never waits for nothing, and a burst forms full batches
instead of fragments. Rows share a batch when their keys are equal; the oldest row decides which key is next.

Domain: knows neither pictures nor tensors. `run_batch` is called in a worker thread, one batch at a time.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from captioner.errors import QueueFull

R = TypeVar("R")
T = TypeVar("T")


@dataclass(eq=False)
class Entry(Generic[R, T]):
    """A row on its way: what is asked, when it came, and whether somebody still waits for it."""

    row: R
    key: Hashable
    future: "asyncio.Future[T]"
    arrived: float = field(default_factory=time.monotonic)

    @property
    def abandoned(self) -> bool:
        """True once the caller went away; read from the model thread to stop the row early."""
        return self.future.cancelled()


@dataclass
class BatchObserver:
    """Called by the batcher; replaced by metrics in the service. Every callback must be quick."""

    batch: Callable[[int, Sequence[float]], None] = lambda size, waits: None
    waiting: Callable[[int], None] = lambda count: None
    dropped: Callable[[int], None] = lambda count: None


class Batcher(Generic[R, T]):
    """Collects rows into batches for one model.

    run_batch: takes entries of one key, returns their results in order; an exception fails all of them.
    """

    def __init__(
        self,
        run_batch: Callable[[Sequence[Entry[R, T]]], Sequence[T]],
        executor: ThreadPoolExecutor,
        max_batch: int,
        max_queue: int,
        window_seconds: float,
        observer: BatchObserver | None = None,
    ) -> None:
        self._run_batch = run_batch
        self._executor = executor
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._window_seconds = window_seconds
        self._observer = observer or BatchObserver()
        self._queue: deque[Entry[R, T]] = deque()
        self._num_admitted = 0
        self._num_preparing = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work(), name="batcher")

    async def stop(self) -> None:
        """Stop taking batches; waiting rows are cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for entry in self._queue:
            entry.future.cancel()
        self._queue.clear()

    @contextmanager
    def admitted(self, count: int) -> Iterator[None]:
        """Reserve places for the rows of one request, from before its images are decoded until its results are out.

        Raises QueueFull if the places are taken; a request larger than the whole queue is let in alone.
        """
        if self._num_admitted and self._num_admitted + count > self._max_queue:
            raise QueueFull(self._num_admitted, self._max_queue)
        self._num_admitted += count
        self._observer.waiting(self._num_admitted)
        try:
            yield
        finally:
            self._num_admitted -= count
            self._observer.waiting(self._num_admitted)

    @contextmanager
    def preparing(self, count: int) -> Iterator[None]:
        """Announce rows that will be submitted soon, so that a batch waits for them."""
        self._num_preparing += count
        try:
            yield
        finally:
            self._num_preparing -= count
            self._changed.set()

    async def submit(self, rows: Sequence[R], key: Callable[[R], Hashable]) -> list[T]:
        """Results of the rows, in order. Cancelling the call drops what has not been started and stops the rest early."""
        loop = asyncio.get_running_loop()
        entries = [Entry[R, T](row, key(row), loop.create_future()) for row in rows]
        self._queue.extend(entries)
        self._changed.set()
        try:
            return await asyncio.gather(*(entry.future for entry in entries))
        finally:
            for entry in entries:
                entry.future.cancel()  # Without effect on those that are done.

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            now = time.monotonic()
            self._observer.batch(len(batch), [now - entry.arrived for entry in batch])
            try:
                results = await loop.run_in_executor(self._executor, self._run_batch, batch)
            except Exception as error:  # noqa: BLE001 - whatever the model raised is the answer of each of these rows
                for entry in batch:
                    if not entry.future.done():
                        entry.future.set_exception(error)
                continue
            for entry, result in zip(batch, results, strict=True):
                if not entry.future.done():
                    entry.future.set_result(result)

    async def _next_batch(self) -> list[Entry[R, T]]:
        while True:
            self._drop_abandoned()
            if self._queue:
                head = self._queue[0]
                ready = [entry for entry in self._queue if entry.key == head.key][: self._max_batch]
                remaining = head.arrived + self._window_seconds - time.monotonic()
                if len(ready) == self._max_batch or not self._num_preparing or remaining <= 0:
                    self._queue = deque(entry for entry in self._queue if entry not in ready)
                    return ready
            else:
                remaining = None
            self._changed.clear()
            try:
                async with asyncio.timeout(remaining):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _drop_abandoned(self) -> None:
        kept = deque(entry for entry in self._queue if not entry.abandoned)
        if dropped := len(self._queue) - len(kept):
            self._observer.dropped(dropped)
        self._queue = kept
