"""The queue of generations: first come, first served; each back end draws one at a time.

Domain: a back end is anything with `url`, `generate`, `progress` and `interrupt`. If one goes away in the middle, its job
goes to the front again, for another one or for the same once it is back; seeds are fixed before queueing, so a repeat
draws the same pictures. A back end may draw for others too: each attempt has a task id of its own, and what the back end
says about another task is neither taken for this job's progress nor interrupted.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from webui_gateway.errors import (
    BackendAway,
    Cancelled,
    GatewayError,
    NoBackend,
    QueueFull,
    RequestInvalid,
    Stopping,
    UnknownJob,
)
from webui_gateway.job import Draws, Job, Outcome, Progress, State

logger = logging.getLogger("webui_gateway.jobs")

MAX_ATTEMPTS: Final = 3
_KEPT_JOBS: Final = 1000


@dataclass(frozen=True)
class Pace:
    """How often and how long the queue asks and waits, in seconds.

    poll: between two looks at a running job. retry: between two looks at a back end that went away. lost: a back end that
    answers nothing for so long while it draws has gone. patience: a job that no back end can draw for so long fails.
    """

    poll_seconds: float = 0.25
    retry_seconds: float = 1.0
    lost_seconds: float = 120.0
    patience_seconds: float = 120.0


class JobQueue:
    """All generations of this gateway. on_end: called with every job that ends."""

    def __init__(
        self,
        backends: Sequence[Draws],
        max_queue: int,
        pace: Pace | None = None,
    ) -> None:
        self._backends = backends
        self._max_queue = max_queue
        self.pace = pace or Pace()
        self.on_end: Callable[[Job], None] | None = None
        self._waiting: list[Job] = []
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._outcomes: dict[Job, Outcome] = {}
        self._running: dict[str, Job] = {}
        self._away: set[str] = set()
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to work; needs a running event loop."""
        self._tasks = [asyncio.create_task(self._serve(backend), name=backend.url) for backend in self._backends]

    async def stop(self) -> None:
        """Stop working; jobs that have not ended fail."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for job in [job for job in self._jobs.values() if not job.final]:
            self._end(job, State.FAILED, Stopping())

    def submit(
        self, path: str, bodies: Mapping[str, dict[str, Any]], model: str, job_id: str = ""
    ) -> tuple[Job, Outcome]:
        """Queue a generation. Raises QueueFull, and RequestInvalid for an id that is in use."""
        if len(self._waiting) >= self._max_queue:
            raise QueueFull(len(self._waiting), self._max_queue)
        job_id = job_id or uuid4().hex[:16]
        known = self._jobs.get(job_id)
        if known is not None and not known.final:
            raise RequestInvalid(f"a generation with id {job_id!r} is waiting or running already; choose another id")
        job = Job(job_id, path, bodies, model)
        outcome: Outcome = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(_retrieve)
        self._outcomes[job] = outcome
        self._jobs[job_id] = job
        self._jobs.move_to_end(job_id)
        self._forget_old()
        self._waiting.append(job)
        self._wake()
        return job, outcome

    def get(self, job_id: str) -> Job:
        """A job by its id. Raises UnknownJob."""
        if job_id not in self._jobs:
            raise UnknownJob(job_id)
        return self._jobs[job_id]

    def all(self) -> list[Job]:
        """Jobs that are remembered, oldest first."""
        return list(self._jobs.values())

    @property
    def num_waiting(self) -> int:
        """Jobs that no back end draws yet."""
        return len(self._waiting)

    def running(self) -> list[Job]:
        """Jobs that are being drawn, oldest first."""
        return sorted(self._running.values(), key=lambda job: job.started)

    def is_drawing(self, url: str) -> bool:
        """Whether this back end draws a job."""
        return url in self._running

    def position(self, job: Job) -> int:
        """Place in the queue from 1; 0 when it is being worked on or has ended."""
        return self._waiting.index(job) + 1 if job in self._waiting else 0

    def cancel(self, job_id: str) -> bool:
        """Stop a job, a running one after its present step; False if it had ended. Raises UnknownJob."""
        job = self.get(job_id)
        if job.final:
            return False
        if job in self._waiting:
            self._waiting.remove(job)
            self._end(job, State.CANCELLED, Cancelled(job.id))
        elif job.state != State.CANCELLING:
            job.state = State.CANCELLING
            job.notify()
        return True

    async def follow(self, job: Job) -> AsyncIterator[Job]:
        """The job each time something about it changes, until it ended."""
        while True:
            changed = job.changed
            yield job
            if job.final:
                return
            await changed.wait()

    async def _serve(self, backend: Draws) -> None:
        while True:
            job = await self._next(backend)
            job.state, job.backend, job.num_attempts = State.RUNNING, backend.url, job.num_attempts + 1
            job.started = time.monotonic()
            self._running[backend.url] = job
            for changed in (job, *self._waiting):
                changed.notify()
            try:
                await self._draw(backend, job)
            finally:
                self._running.pop(backend.url, None)
            if backend.url in self._away:
                await self._until_back(backend)

    async def _next(self, backend: Draws) -> Job:
        while True:
            for job in self._waiting:
                if backend.url in job.bodies:
                    self._waiting.remove(job)
                    return job
            changed = self._changed
            await changed.wait()

    async def _draw(self, backend: Draws, job: Job) -> None:
        """One attempt at a job, whatever comes of it."""
        task = f"task({uuid4().hex[:15]})"
        drawing = asyncio.ensure_future(backend.generate(job.path, {**job.bodies[backend.url], "force_task_id": task}))
        watching = asyncio.ensure_future(self._watch(backend, job, task))
        try:
            await asyncio.wait((drawing, watching), return_when=asyncio.FIRST_COMPLETED)
            if not drawing.done():
                watching.result()
                raise Cancelled(job.id)
            result = drawing.result()
        except BackendAway as error:
            logger.warning("job %s: %s", job.id, error)
            self._away.add(backend.url)
            self._put_back(job)
        except GatewayError as error:
            state = State.CANCELLED if job.state == State.CANCELLING else State.FAILED
            self._end(job, state, Cancelled(job.id) if state == State.CANCELLED else error)
        except Exception as error:
            logger.error("job %s broke", job.id, exc_info=error)
            self._end(job, State.FAILED, error)
        else:
            if job.state == State.CANCELLING:
                self._end(job, State.CANCELLED, Cancelled(job.id))
            else:
                self._end(job, State.SUCCEEDED, result)
        finally:
            await _stop_all(drawing, watching)

    async def _watch(self, backend: Draws, job: Job, task: str) -> None:
        """Keep the progress of a running job fresh, and interrupt it once it is cancelled.

        Returns when it is cancelled while the back end draws another's. Raises BackendAway when there is no sign of life.
        """
        heard = time.monotonic()
        while time.monotonic() - heard < self.pace.lost_seconds:
            await asyncio.sleep(self.pace.poll_seconds)
            try:
                progress = await backend.progress()
            except BackendAway as error:
                logger.debug("no progress: %s", error)
                continue
            except GatewayError as error:  # It answers, and that is what counts here.
                logger.debug("no progress: %s", error)
                progress = job.progress
            heard = time.monotonic()
            is_ours = progress.task in ("", task)
            if job.state == State.CANCELLING:
                if not is_ours:
                    return
                # Again and again: a back end that had not begun when it was first told to stop has forgotten it.
                await self._interrupt(backend)
            elif is_ours and progress.fraction >= job.progress.fraction:
                job.progress = progress
                job.notify()
        raise BackendAway(backend.url, f"no sign of life for {self.pace.lost_seconds:g} seconds")

    async def _until_back(self, backend: Draws) -> None:
        """Wait until the back end answers; meanwhile jobs that nobody else can draw lose patience."""
        while backend.url in self._away:
            await asyncio.sleep(self.pace.retry_seconds)
            try:
                await backend.progress()
                self._away.discard(backend.url)
            except GatewayError as error:
                logger.debug("still away: %s", error)
                self._give_up()

    def _give_up(self) -> None:
        """Fail the jobs that have waited long enough for back ends that are all away."""
        now = time.monotonic()
        for job in [job for job in self._waiting if self._away.issuperset(job.bodies)]:
            if now - job.started >= self.pace.patience_seconds:
                self._waiting.remove(job)
                self._end(job, State.FAILED, NoBackend(job.bodies))

    async def _interrupt(self, backend: Draws) -> None:
        try:
            await backend.interrupt()
        except GatewayError as error:
            logger.warning("could not interrupt: %s", error)

    def _put_back(self, job: Job) -> None:
        if job.state == State.CANCELLING:
            self._end(job, State.CANCELLED, Cancelled(job.id))
        elif job.num_attempts >= MAX_ATTEMPTS:
            self._end(job, State.FAILED, NoBackend(job.bodies))
        else:
            job.state, job.backend, job.progress, job.started = State.PENDING, "", Progress(), time.monotonic()
            self._waiting.insert(0, job)
            for waiting in self._waiting:
                waiting.notify()
            self._wake()

    def _end(self, job: Job, state: State, outcome: dict[str, Any] | Exception) -> None:
        job.state, job.bodies, job.seconds = state, {}, time.monotonic() - job.started
        # Only numbers are remembered: a thousand previews would fill the memory.
        job.progress = Progress(1.0 if state == State.SUCCEEDED else job.progress.fraction, job.progress.step,
                                job.progress.num_steps)  # fmt: skip
        future = self._outcomes.pop(job)
        if not future.done():
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        if self.on_end is not None:
            self.on_end(job)
        for changed in (job, *self._waiting):
            changed.notify()

    def _forget_old(self) -> None:
        ended = [job_id for job_id, job in self._jobs.items() if job.final]
        for job_id in ended[: max(0, len(self._jobs) - _KEPT_JOBS)]:
            del self._jobs[job_id]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _stop_all(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _retrieve(future: Outcome) -> None:
    """Mark a failure as seen: a job nobody waits for any more must not log 'exception was never retrieved'."""
    if not future.cancelled():
        future.exception()
