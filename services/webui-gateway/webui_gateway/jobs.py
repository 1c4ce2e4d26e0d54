"""The queue of generations: first come, first served; each back end draws one at a time.

Domain: a back end is anything with `url`, `generate`, `progress` and `interrupt`. If one goes away in the middle, its job
goes to the front again; seeds are fixed before queueing, so a repeat draws the same pictures.
"""

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from webui_gateway.errors import Cancelled, GatewayError, NoBackend, QueueFull, RequestInvalid, UnknownJob

logger = logging.getLogger("webui_gateway.jobs")

MAX_ATTEMPTS = 3
_KEPT_JOBS = 1000
_POLL_SECONDS = 0.25
_RETRY_SECONDS = 2.0


class State(StrEnum):
    """Where a job stands; the last three are final."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True)
class Progress:
    """How far a running job is. fraction: 0 to 1. preview: base64 PNG or empty. raw: the back end's own answer."""

    fraction: float = 0.0
    step: int = 0
    num_steps: int = 0
    eta_seconds: float = 0.0
    preview: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Job:
    """One generation. bodies: for each back end that can draw it, its request, by URL."""

    id: str
    path: str
    bodies: Mapping[str, dict[str, Any]]
    model: str
    future: "asyncio.Future[dict[str, Any]]"
    state: State = State.PENDING
    progress: Progress = field(default_factory=Progress)
    num_attempts: int = 0
    backend: str = ""
    cancel_asked: bool = False
    create_time: float = field(default_factory=time.time)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def final(self) -> bool:
        """Whether it ended."""
        return self.state in (State.SUCCEEDED, State.FAILED, State.CANCELLED)

    def notify(self) -> None:
        """Wake whoever waits for news of it."""
        self.changed.set()
        self.changed = asyncio.Event()


class Draws(Protocol):
    """What the queue needs of a back end."""

    @property
    def url(self) -> str:
        """Its address, the key of Job.bodies."""
        ...

    async def generate(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Draw; returns the reply."""
        ...

    async def progress(self) -> Progress:
        """How far it is."""
        ...

    async def interrupt(self) -> None:
        """Stop early."""
        ...


class JobQueue:
    """All generations of this gateway. unreachable: exceptions that mean a back end went away."""

    def __init__(self, backends: Collection[Draws], max_queue: int, unreachable: tuple[type[Exception], ...]) -> None:
        self._backends = backends
        self._max_queue = max_queue
        self._unreachable = unreachable
        self._no_answer: tuple[type[Exception], ...] = (*unreachable, GatewayError)
        self._waiting: list[Job] = []
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._running: dict[str, Job] = {}
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
        for job in [*self._waiting, *self._running.values()]:
            self._end(job, State.FAILED, NoBackend(backend.url for backend in self._backends))

    def submit(self, path: str, bodies: Mapping[str, dict[str, Any]], model: str, job_id: str = "") -> Job:
        """Queue a generation. Raises QueueFull, and RequestInvalid for an id that is in use."""
        if len(self._waiting) >= self._max_queue:
            raise QueueFull(len(self._waiting), self._max_queue)
        job_id = job_id or secrets.token_hex(8)
        known = self._jobs.get(job_id)
        if known is not None and not known.final:
            raise RequestInvalid(f"a generation with id {job_id!r} is waiting or running already; choose another id")
        job = Job(job_id, path, bodies, model, asyncio.get_running_loop().create_future())
        job.future.add_done_callback(_retrieve)
        self._jobs[job_id] = job
        self._jobs.move_to_end(job_id)
        self._forget_old()
        self._waiting.append(job)
        self._wake()
        return job

    def get(self, job_id: str) -> Job:
        """A job by its id. Raises UnknownJob."""
        if job_id not in self._jobs:
            raise UnknownJob(job_id)
        return self._jobs[job_id]

    def all(self) -> list[Job]:
        """Jobs that are remembered, oldest first."""
        return list(self._jobs.values())

    def running(self) -> list[Job]:
        """Jobs that are being drawn, oldest first."""
        return sorted(self._running.values(), key=lambda job: job.create_time)

    def position(self, job: Job) -> int:
        """How many jobs come before it; 0 when it is being worked on or has ended."""
        return self._waiting.index(job) + 1 if job in self._waiting else 0

    async def cancel(self, job_id: str) -> bool:
        """Stop a job; False if it had ended. Raises UnknownJob."""
        job = self.get(job_id)
        if job.final:
            return False
        job.cancel_asked = True
        if job in self._waiting:
            self._waiting.remove(job)
            self._end(job, State.CANCELLED, Cancelled(job.id))
        else:
            await self._interrupt(job)
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
            self._running[backend.url] = job
            for waiting in (job, *self._waiting):
                waiting.notify()
            watching = asyncio.create_task(self._watch(backend, job))
            try:
                result = await backend.generate(job.path, job.bodies[backend.url])
            except self._unreachable as error:
                logger.warning("back end %s went away during job %s: %r", backend.url, job.id, error)
                self._put_back(job)
                await asyncio.sleep(_RETRY_SECONDS)
            except GatewayError as error:
                self._end(job, State.FAILED, error)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                logger.exception("job %s broke", job.id)
                self._end(job, State.FAILED, error)
            else:
                if job.cancel_asked:
                    self._end(job, State.CANCELLED, Cancelled(job.id))
                else:
                    self._end(job, State.SUCCEEDED, result)
            finally:
                watching.cancel()
                self._running.pop(backend.url, None)

    async def _next(self, backend: Draws) -> Job:
        while True:
            for job in self._waiting:
                if backend.url in job.bodies:
                    self._waiting.remove(job)
                    return job
            changed = self._changed
            await changed.wait()

    async def _watch(self, backend: Draws, job: Job) -> None:
        """Keep the progress of a running job fresh; a back end that does not answer here is still drawing."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            try:
                progress = await backend.progress()
            except self._no_answer as error:
                logger.debug("no progress from %s: %r", backend.url, error)
                continue
            if progress.fraction >= job.progress.fraction:
                job.progress = progress
                job.notify()

    async def _interrupt(self, job: Job) -> None:
        backend = next(backend for backend in self._backends if backend.url == job.backend)
        try:
            await backend.interrupt()
        except self._unreachable as error:
            logger.warning("could not interrupt %s: %r", backend.url, error)

    def _put_back(self, job: Job) -> None:
        if job.cancel_asked:
            self._end(job, State.CANCELLED, Cancelled(job.id))
        elif job.num_attempts >= MAX_ATTEMPTS:
            self._end(job, State.FAILED, NoBackend(job.bodies))
        else:
            job.state, job.progress = State.PENDING, Progress()
            self._waiting.insert(0, job)
            job.notify()
            self._wake()

    def _end(self, job: Job, state: State, outcome: dict[str, Any] | Exception) -> None:
        job.state = state
        if not job.future.done():
            if isinstance(outcome, Exception):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)
        job.notify()
        for waiting in self._waiting:
            waiting.notify()

    def _forget_old(self) -> None:
        for job_id in [job_id for job_id, job in self._jobs.items() if job.final][
            : max(0, len(self._jobs) - _KEPT_JOBS)
        ]:
            del self._jobs[job_id]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _retrieve(future: "asyncio.Future[dict[str, Any]]") -> None:
    """Mark a failure as seen: a job nobody waits for any more must not log 'exception was never retrieved'."""
    if not future.cancelled():
        future.exception()
