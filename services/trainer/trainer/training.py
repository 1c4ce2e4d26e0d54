"""What TrainingService does, without any wire: accept a run, look at runs, stop or pause one, start one again.

Everything that can be known before a run starts is checked here. Execution is left to the backend, the stream of what
happens to `watching`. Blocking.
"""

import hashlib
import json
import logging
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from artifacts.errors import AlreadyExists, ManifestInvalid, NotFound
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore
from jobs.errors import FieldsInvalid
from jobs.execution import Execution
from jobs.recipe import Recipe
from jobs.render import render
from jobs.run_spec import RunSpec

from trainer import paging, resume_points, resuming, session_checks, session_lock
from trainer.backends import Backend
from trainer.base_models import BaseModels
from trainer.errors import RequestIdReused, RunActive, RunElsewhere, RunFinished
from trainer.resume_points import ResumePoint
from trainer.runs import Run, Runs, RunState

_PARALLEL_REQUESTS = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """What a caller asks for. run_id "" means one made from request_id or, without that, from the time."""

    session: str
    recipe: Recipe
    run_id: str = ""
    request_id: str = ""

    def digest(self) -> str:
        """Differs for orders that ask for something else."""
        return hashlib.sha256(json.dumps(asdict(self.recipe), sort_keys=True).encode()).hexdigest()[:16]

    def chosen_run_id(self, now: datetime) -> str:
        """The run's id; the same for a repeated request."""
        if self.run_id:
            return self.run_id
        if self.request_id:
            return f"r-{hashlib.sha256(self.request_id.encode()).hexdigest()[:12]}"
        return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


class Training:
    """The runs of all sessions of one bucket."""

    def __init__(self, store: ObjectStore, models: BaseModels, backend: Backend, execution: Execution) -> None:
        self.runs = Runs(store)
        self._sessions = Sessions(store)
        self._models = models
        self._backend = backend
        self._execution = execution

    def create(self, order: Order) -> Run:
        """Accept a run and start it. Raises NotFound, AlreadyExists, everything of `errors` that concerns runs, and the backend's."""
        now = datetime.now(UTC)
        run_id = order.chosen_run_id(now)
        repeated = self._repeated(order, f"sessions/{order.session}/runs/{run_id}")
        if repeated:
            return repeated
        spec = self._checked(order, run_id, now)
        manifest = render(spec, self._execution)
        try:
            self._backend.check(manifest)
            session_lock.take(self.runs, order.session, spec.name)
            self.runs.create(spec, manifest)
        except AlreadyExists:  # the same request, sent twice at once
            repeated = self._repeated(order, spec.name)
            if repeated is None:
                raise
            return repeated
        holder = session_lock.holder(self.runs, order.session)
        if holder is None or holder.run != spec.name:  # we were so slow that another run took the session
            self.runs.store.delete(f"{spec.name}/job.json")
            raise RunActive(order.session, holder.run if holder else "another run")
        self._submit(spec)
        return self.runs.state(spec)

    def cancel(self, name: str) -> Run:
        """Ask a run to stop. Raises NotFound, RunFinished."""
        run = self.runs.get(name)
        if run.state == RunState.CANCELLED:
            return run
        if run.finished:
            raise RunFinished(name, run.state, "cancelled")
        self.runs.request_cancel(name)
        if run.spec.owner == self._backend.owner:
            self._backend.cancel(run.spec)
        return self.runs.get(name)

    def suspend(self, name: str) -> Run:
        """Ask a run to pause until it is resumed. Raises NotFound, RunFinished, RunElsewhere, and what the backend raises."""
        run = self.runs.get(name)
        if run.finished or run.state == RunState.CANCELLING:
            raise RunFinished(name, run.state, "suspended")
        self._require_ours(run)
        self._backend.suspend(run.spec)
        return self.runs.get(name)

    def resume(self, name: str, accept_inexact: bool) -> tuple[Run, bool]:
        """Start a run again that failed, was cancelled or is suspended; the run, and whether it was over. Another is left alone.

        Raises NotFound, RunFinished, RunElsewhere, RunActive.
        """
        was_over = resuming.resume(self.runs, name, accept_inexact, self._backend.owner)
        run = self.runs.get(name)
        if was_over:
            self._submit(run.spec)
        elif run.state == RunState.SUSPENDED or run.spec.owner == self._backend.owner:
            self._require_ours(run)
            self._backend.unsuspend(run.spec)
            run = self.runs.get(name)
        return run, was_over

    def resume_points(self, name: str) -> list[ResumePoint]:
        """Complete resume points of a run, newest first. Raises NotFound, ManifestInvalid."""
        self.runs.manifest(name)
        return resume_points.find(self.runs.store, name)

    def page(self, session: str, size: int, token: str) -> tuple[list[Run], str]:
        """Runs of a session, or of all with session "-", newest first. Raises NotFound, PageTokenInvalid."""
        sessions = self._session_names() if session == "-" else [self._sessions.get(session).name]
        with ThreadPoolExecutor(_PARALLEL_REQUESTS, thread_name_prefix="runs") as pool:
            found = pool.map(lambda name: list(self.runs.specs(name)), sessions)
            specs = sorted((spec for some in found for spec in some), key=_newest_first)
            taken, next_token = paging.page(specs, _newest_first, size, token)
            return list(pool.map(lambda spec: self.runs.detailed(self.runs.state(spec)), taken)), next_token

    def unfinished(self) -> list[RunSpec]:
        """Runs of this backend's owner that are not over. A record damaged by hand costs its own session alone."""
        found = []
        for session in self._session_names():
            try:
                name = session_lock.active_run(self.runs, session)
                spec = self.runs.manifest(name)[0] if name else None
            except NotFound:  # being created
                continue
            except ManifestInvalid as error:
                log.error("nobody looks after the run of session %r: %s", session, error)
                continue
            if spec and spec.owner == self._backend.owner:
                found.append(spec)
        return found

    def _submit(self, spec: RunSpec) -> None:
        try:
            self._backend.submit(spec)
        except OSError as error:  # no process to be had; the run is accepted and `active_runs` tries again
            log.warning("%s cannot be started yet: %s", spec.name, error)

    def _require_ours(self, run: Run) -> None:
        if run.spec.owner != self._backend.owner:
            raise RunElsewhere(run.name, run.spec.owner or "another trainer")

    def _session_names(self) -> list[str]:
        return list(self.runs.store.list_folders("sessions/"))

    def _repeated(self, order: Order, name: str) -> Run | None:
        """The run that this very request has made already. Raises RequestIdReused, AlreadyExists."""
        try:
            run = self.runs.get(name)
        except NotFound:
            return None
        if not order.request_id or run.spec.request_id != order.request_id:
            raise AlreadyExists("run", name, "choose another run_id")
        if run.spec.request_digest != order.digest():
            raise RequestIdReused(order.request_id, name)
        if run.spec.owner == self._backend.owner and not run.finished:
            self._backend.submit(run.spec)  # the first call may have died before it did
        return run

    def _checked(self, order: Order, run_id: str, now: datetime) -> RunSpec:
        """The run as it will be, after every check that needs no computation on pictures."""
        self._execution.check_recipe(order.recipe)
        session = self._sessions.get(order.session)
        base_model = order.recipe.base_model or session.base_model
        if not base_model:
            raise FieldsInvalid(("recipe.base_model", f"is empty, and session {session.name!r} names none either"))
        model = self._models.get(base_model)
        recipe = order.recipe.resolved(model)
        session_checks.check(self._sessions, session.name, recipe.require_captions)
        name = f"sessions/{session.name}/runs/{run_id}"
        # The suffix keeps apart what two names joined by "-" cannot, and a session from an earlier one of its name.
        suffix = hashlib.sha256(f"{name} {now.isoformat()}".encode()).hexdigest()[:6]
        return RunSpec(
            session=session.name,
            run_id=run_id,
            recipe=recipe,
            base_model_source=model.source,
            checkpoint=f"{session.name}-{run_id}-{suffix}",
            create_time=now,
            owner=self._backend.owner,
            request_id=order.request_id,
            request_digest=order.digest() if order.request_id else "",
        )


def _newest_first(spec: RunSpec) -> str:
    # Ascending text for descending time: microseconds counted down from the year 5138.
    return f"{10**17 - int(spec.create_time.timestamp() * 1e6):017d} {spec.name}"
