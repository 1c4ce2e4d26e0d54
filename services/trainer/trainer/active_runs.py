"""Looks after the runs of this backend while the service lives: has them tended and feeds the metrics.

`server.load` starts it. Watchers do not depend on it.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from artifacts.errors import ArtifactError, NotFound
from jobs.run_spec import RunSpec

from trainer.backends import Backend
from trainer.errors import TrainerError
from trainer.event_reader import EventReader
from trainer.events import Shown
from trainer.metrics import TrainingMetrics
from trainer.runs import FINAL, Runs, RunState

log = logging.getLogger(__name__)


class Followed:
    """One run that is not over, and what is known of it. was_over: what it has recorded so far is counted already."""

    def __init__(self, runs: Runs, spec: RunSpec, was_over: bool = False) -> None:
        self.spec = spec
        self.reader = EventReader(runs.store, spec.name)
        self.shown = Shown()
        self.state = RunState.PENDING
        self.was_over = was_over


class ActiveRuns:
    """The runs that are not over, of one backend."""

    def __init__(self, runs: Runs, backend: Backend, metrics: TrainingMetrics, poll_seconds: float) -> None:
        self._runs = runs
        self._backend = backend
        self._metrics = metrics
        self._poll_seconds = poll_seconds
        self._followed: dict[str, Followed] = {}
        self._finished: dict[str, RunState] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, spec: RunSpec) -> None:
        """Follow a run from now on; fine if it is followed already."""
        if spec.owner == self._backend.owner:
            self._followed.setdefault(spec.name, Followed(self._runs, spec))

    def add_again(self, spec: RunSpec) -> None:
        """Follow a run that was over and is not any more.

        What is known of it is replaced, not kept: a look that is under way may just find the old end.
        """
        if spec.owner == self._backend.owner:
            self._finished.pop(spec.name, None)
            self._followed[spec.name] = Followed(self._runs, spec, was_over=True)

    async def start(self, unfinished: Callable[[], list[RunSpec]]) -> None:
        """Find the runs that an earlier life of the service began, then follow all in the background.

        Raises what the store raises: a service that cannot see its runs is not ready.
        """
        for spec in await asyncio.to_thread(unfinished):
            log.info("%s is not over, going on with it", spec.name)
            self.add(spec)
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stop following, then let the backend stop."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await asyncio.to_thread(self._backend.close)

    async def _follow(self) -> None:
        while True:
            await self._add_found()
            for followed in list(self._followed.values()):
                try:
                    await asyncio.to_thread(self._look_at, followed)
                except (ArtifactError, TrainerError, OSError) as error:
                    log.warning("cannot look at %s: %s", followed.spec.name, error)
            for followed in [followed for followed in self._followed.values() if followed.state in FINAL]:
                del self._followed[followed.spec.name]
                self._finished[followed.spec.name] = followed.state
                self._metrics.over(followed.spec.session)
            self._metrics.states([*self._finished.values(), *(followed.state for followed in self._followed.values())])
            await asyncio.sleep(self._poll_seconds)

    async def _add_found(self) -> None:
        try:
            found = await asyncio.to_thread(self._backend.found)
        except (ArtifactError, TrainerError, OSError) as error:
            log.warning("cannot look for runs that nobody tends: %s", error)
            return
        for spec in found:
            if spec.name not in self._followed:
                log.info("%s turned up", spec.name)
                self.add(spec)

    def _look_at(self, followed: Followed) -> None:
        spec = followed.spec
        try:
            self._runs.manifest(spec.name)
        except NotFound:  # deleted with its session
            followed.state = RunState.CANCELLED
            return
        run = self._runs.state(spec)
        new = followed.shown.news(followed.reader.read_new())
        if not followed.was_over:  # its program needs longer to start than this first look
            self._metrics.records(spec.session, new)
        followed.was_over = False
        if not run.finished:
            self._backend.tend(run)
        followed.state = run.state
