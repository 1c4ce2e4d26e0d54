"""One thread that does everything that touches a model, one request after the other, as A1111's queue lock does.

`engine.py` submits; routes look at the queue. Torch runs in this thread only, previews excepted.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from webui_engine.errors import Cancelled, NotReady, QueueFull

_FINISHED_KEPT: Final = 1000

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Job:
    """One piece of work and the future of its result; abandoned when nobody waits for it any more."""

    id: str
    work: Callable[[], Any]
    future: "Future[Any]" = field(default_factory=Future)
    abandoned: bool = False


class Worker:
    """A queue with one thread; first come, first served."""

    def __init__(self, max_queue: int) -> None:
        self._max_queue = max_queue
        self._condition = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._finished: deque[str] = deque(maxlen=_FINISHED_KEPT)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="model-worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, job_id: str, work: Callable[[], Any]) -> Job:
        """Queue work. Raises QueueFull, NotReady once stopping."""
        job = Job(job_id, work)
        with self._condition:
            if self._stopping:
                raise NotReady("stopping")
            if len(self._waiting) >= self._max_queue:
                raise QueueFull(len(self._waiting))
            self._waiting.append(job)
            self._condition.notify()
        return job

    def cancel(self, job: Job) -> bool:
        """Take a waiting job out of the queue; False if it is running or done. Either way it is abandoned."""
        job.abandoned = True
        with self._condition:
            if job not in self._waiting:
                return False
            self._waiting.remove(job)
        job.future.set_exception(Cancelled())
        return True

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for the running job."""
        with self._condition:
            return self._running is not None and self._running.abandoned

    def pending(self) -> list[str]:
        """Ids of waiting jobs, the next one first."""
        with self._condition:
            return [job.id for job in self._waiting]

    def state(self, job_id: str) -> str:
        """ "active", "queued", "completed", or "" for an id that is not known (any more)."""
        with self._condition:
            if self._running and self._running.id == job_id:
                return "active"
            if any(job.id == job_id for job in self._waiting):
                return "queued"
            return "completed" if job_id in self._finished else ""

    def stop(self, timeout_seconds: float) -> bool:
        """Take no more work, drop what waits, let the running job end; False if it did not within the time."""
        with self._condition:
            self._stopping = True
            dropped = list(self._waiting)
            self._waiting.clear()
            self._condition.notify()
        for job in dropped:
            job.future.set_exception(NotReady("stopping"))
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._stopping)
                if not self._waiting:
                    return
                job = self._running = self._waiting.popleft()
            self._do(job)
            with self._condition:
                self._running = None
                self._finished.append(job.id)

    def _do(self, job: Job) -> None:
        if not job.future.set_running_or_notify_cancel():
            return
        try:
            result = job.work()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the result
            job.future.set_exception(error)
        else:
            job.future.set_result(result)
