"""All conversions of a service: accepted, worked off by a few threads, watched, cancelled, taken up after a restart.

`server` calls this from threads of its own; every method may block on the store. A conversion that finds the store
away waits and begins again when it is back. One service per bucket is assumed: two would do the same work twice, and
one of them would lose the race to publish, which harms nobody.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from artifacts import names
from artifacts.checkpoints import Checkpoints, Manifest
from artifacts.errors import AlreadyExists, ArtifactError, Conflict, NotFound, StoreUnavailable

from converter import plan, transfer
from converter.conversions import (
    CANCELLED,
    FAILED,
    PENDING,
    SUCCEEDED,
    Conversion,
    ConversionRecords,
    Version,
)
from converter.errors import ConversionExists, ConversionFinished, ConverterError
from converter.job import Cancelled, Interrupted, Job
from converter.metrics import ConversionMetrics

_FIRST_WAIT_SECONDS: Final = 0.5
_LONGEST_WAIT_SECONDS: Final = 15.0

logger = logging.getLogger("converter.jobs")


class Jobs:
    """Call `start` once the store can be reached, and `stop` at the end."""

    def __init__(self, checkpoints: Checkpoints, metrics: ConversionMetrics, num_workers: int = 1) -> None:
        self._checkpoints = checkpoints
        self._records = ConversionRecords(checkpoints.store)
        self._metrics = metrics
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._stopping = threading.Event()
        self._listeners: list[Callable[[], None]] = []
        self._threads = [threading.Thread(target=self._work, name=f"conversion-{n}") for n in range(num_workers)]

    def start(self) -> None:
        """Take up what an earlier service left unfinished, and begin to work. Raises StoreUnavailable."""
        unfinished = [version for version in self._records.list() if not version.conversion.is_final]
        for version in sorted(unfinished, key=lambda version: version.conversion.create_time):
            if version.conversion.id not in self._jobs:  # accepted while this was waiting for the store
                self._enqueue(version)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Interrupt the work and wait for the threads. Unfinished conversions stay as they are in the bucket."""
        self._stopping.set()
        with self._lock:
            for job in self._jobs.values():
                job.wake.set()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` from any thread after every change; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def create(self, source: str, target: str, precision: str, checkpoint_id: str, request_id: str) -> Conversion:
        """Accept a conversion, or return the one that exists.

        A finished one is begun again if it did not succeed, or its checkpoint was deleted since, unless it has the
        same non-empty request_id. Raises ConversionExists, AlreadyExists, and everything that `plan.make` does.
        """
        wanted = checkpoint_id or default_id(source, target, precision)
        names.checkpoint_id(wanted)
        asked = Conversion(wanted, PENDING, source, target, precision, request_id, datetime.now(UTC))
        existing = self._find(wanted)
        if existing is not None:
            if existing.conversion.request != asked.request:
                raise ConversionExists(wanted, _describe(existing.conversion), _describe(asked))
            if not self._is_worth_repeating(existing.conversion, request_id):
                return self.get(wanted)
        elif self._is_published(wanted):
            raise AlreadyExists("checkpoint", wanted, "give another checkpoint_id, or delete it first")
        plan.make(self._checkpoints, self._checkpoints.get(source), target, precision)
        try:
            version = self._records.replace(existing, asked) if existing else self._records.create(asked)
        except (AlreadyExists, Conflict):  # somebody asked for the same at the same moment
            return self.create(source, target, precision, checkpoint_id, request_id)
        return self._enqueue(version).snapshot()

    def get(self, conversion_id: str) -> Conversion:
        """Its present state. Raises NotFound."""
        job = self._jobs.get(conversion_id)
        return job.snapshot() if job else self._records.get(conversion_id).conversion

    def is_live(self, conversion_id: str) -> bool:
        """Whether this service will work or works on it, so that listeners hear of its changes."""
        return conversion_id in self._jobs

    def list(self) -> list[Conversion]:
        """All of them, newest first."""
        found = (version.conversion for version in self._records.list())
        latest = (job.snapshot() if (job := self._jobs.get(one.id)) else one for one in found)
        return sorted(latest, key=lambda conversion: (conversion.create_time, conversion.id), reverse=True)

    def cancel(self, conversion_id: str) -> Conversion:
        """Ask it to stop. Raises NotFound, ConversionFinished."""
        job = self._jobs.get(conversion_id)
        if job is None:
            conversion = self._records.get(conversion_id).conversion
            if conversion.is_final:
                raise ConversionFinished(conversion_id, conversion.state)
            job = self._enqueue(self._records.get(conversion_id))
        return job.cancel()

    def _find(self, conversion_id: str) -> Version | None:
        try:
            return self._records.get(conversion_id)
        except NotFound:
            return None

    def _is_published(self, checkpoint_id: str) -> bool:
        try:
            self._checkpoints.get(checkpoint_id)
        except NotFound:
            return False
        return True

    def _is_worth_repeating(self, existing: Conversion, request_id: str) -> bool:
        if not existing.is_final or (request_id and request_id == existing.request_id):
            return False
        return existing.state != SUCCEEDED or not self._is_published(existing.id)

    def _enqueue(self, version: Version) -> Job:
        target = version.conversion.format
        job = Job(version, self._records, self._stopping, self._changed, self._metrics.bytes.labels(target).inc)
        with self._lock:
            self._jobs[version.conversion.id] = job
        self._queue.put(job)
        self._changed()
        return job

    def _changed(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None and not self._stopping.is_set():
            started = time.monotonic()
            with self._metrics.active.track_inprogress():
                try:
                    self._finish(job)
                except Exception:
                    # Its record is gone or unreadable, so nobody can be told; the next conversion must not suffer.
                    logger.exception("conversion %s is given up", job.conversion.id)
            ended = job.conversion
            if ended.is_final:
                self._metrics.seconds.labels(ended.format, ended.state).observe(time.monotonic() - started)
                logger.info("conversion %s ended", ended.id, extra={"state": ended.state, "error": ended.error})
            if not self._stopping.is_set():
                with self._lock:
                    if self._jobs.get(ended.id) is job:
                        del self._jobs[ended.id]
            self._changed()

    def _finish(self, job: Job) -> None:
        """Attempt until the conversion is final or the service stops, waiting while the store is away."""
        seconds = _FIRST_WAIT_SECONDS
        while not job.conversion.is_final and not self._stopping.is_set():
            try:
                self._attempt(job)
            except StoreUnavailable as error:
                logger.warning("conversion %s waits for the store: %s", job.conversion.id, error)
                self._metrics.waits.inc()
                job.wake.wait(seconds)
                job.wake.clear()
                seconds = min(seconds * 2, _LONGEST_WAIT_SECONDS)
            except Interrupted:
                return

    def _attempt(self, job: Job) -> None:
        """One attempt, which ends with a final record unless the store goes away or the service stops."""
        conversion = job.conversion
        try:
            job.begin()
            manifest = self._convert(job)
        except Cancelled:
            if not job.conversion.is_final:
                job.save(job.snapshot().ended(CANCELLED))
        except (StoreUnavailable, Interrupted):
            raise
        except (ConverterError, ArtifactError) as error:
            job.save(job.snapshot().ended(FAILED, f"{type(error).__name__}: {error}"))
        except Exception:
            logger.exception("conversion %s failed", conversion.id)
            job.save(job.snapshot().ended(FAILED, "internal error; the service's log has the cause"))
        else:
            job.save(_succeeded(job.snapshot(), manifest))

    def _convert(self, job: Job) -> Manifest:
        conversion = job.conversion
        recipe = {"conversion": conversion.recipe}
        source = self._checkpoints.get(conversion.source)
        work = plan.make(self._checkpoints, source, conversion.format, conversion.precision)
        job.start_counting(len(work.tensors), work.num_bytes)
        if work.dropped:
            recipe["conversion"] |= {"dropped": ", ".join(work.dropped[:20]), "num_dropped": str(len(work.dropped))}
        try:
            return transfer.convert(self._checkpoints, work, conversion.id, recipe, job)
        except AlreadyExists:
            published = self._checkpoints.get(conversion.id)
            if published.recipe.get("conversion") != recipe["conversion"]:
                raise
            return published  # by an attempt of this conversion that did not live to say so


def default_id(source: str, target: str, precision: str) -> str:
    """The id of the checkpoint that a conversion makes if nobody names one: "toy.safetensors", "toy-fp16.ckpt"."""
    return f"{source}-{precision}.{target}" if precision else f"{source}.{target}"


def _succeeded(conversion: Conversion, manifest: Manifest) -> Conversion:
    count = int(manifest.metrics["num_tensors"])
    done = replace(
        conversion,
        num_tensors=count,
        num_tensors_done=count,
        num_tensors_proved=count,
        num_bytes_done=conversion.num_bytes,
        tensors_sha256=str(manifest.metrics["tensors_sha256"]),
    )
    return done.ended(SUCCEEDED)


def _describe(conversion: Conversion) -> str:
    precision = conversion.precision or "its own precision"
    return f"{conversion.source!r} as {conversion.format} in {precision}"
