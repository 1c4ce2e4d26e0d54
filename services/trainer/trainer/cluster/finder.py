"""Finds Jobs that nobody tends: after a restart, made by another replica, or applied by hand.

A Job that a person applied is adopted: its order becomes job.json, and the Job is marked with the digest of that, so that
it is known again. Each Job is looked at once.
"""

import logging
import re

from artifacts import names as store_names
from artifacts.errors import AlreadyExists, ArtifactError, InvalidName, ManifestInvalid, NotFound
from jobs.manifest import spec_of
from jobs.names import CREATE_TIME
from jobs.run_spec import RunSpec

from trainer import resuming, session_lock
from trainer.cluster import manifests
from trainer.cluster.api import ClusterApi, Json
from trainer.cluster.errors import ClusterError
from trainer.cluster.keeper import Keeper
from trainer.cluster.live import LiveJob
from trainer.cluster.mirror import Mirror
from trainer.cluster.steps import is_leftover
from trainer.errors import RunActive, RunFinished
from trainer.runs import Runs

_RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")

log = logging.getLogger(__name__)


class Finder:
    """owner: whose runs they become."""

    def __init__(self, runs: Runs, api: ClusterApi, jobs: Mirror, keeper: Keeper, owner: str) -> None:
        self._runs = runs
        self._api = api
        self._jobs = jobs
        self._keeper = keeper
        self._owner = owner
        self._known: set[str] = set()

    def found(self) -> list[RunSpec]:
        """Runs that are not over, of Jobs that were not there at the last call."""
        jobs = [LiveJob.of(raw) for raw in self._jobs.objects()]
        self._known &= {job.uid for job in jobs}
        found = []
        for job in jobs:
            if job.uid in self._known:
                continue
            try:
                spec = self._take_in(job)
            except (ManifestInvalid, InvalidName) as error:
                log.warning("Job %s has the labels of a run and is none: %s", job.name, error)
                spec = None
            except (ArtifactError, ClusterError) as error:  # the next call tries again
                log.warning("cannot take in Job %s: %s", job.name, error)
                continue
            self._known.add(job.uid)
            if spec:
                found.append(spec)
        return found

    def _take_in(self, job: LiveJob) -> RunSpec | None:
        """The run of a Job if it is to be tended."""
        told = _named(spec_of(job.raw, f"Job {job.name}"))
        try:
            spec, manifest = self._runs.manifest(told.name)
        except NotFound:
            if job.owner and job.ended:  # its run was deleted; the Job follows by its TTL
                return None
            spec, manifest = self._adopt(told, job)
        if spec.owner != self._owner:
            log.warning("Job %s: its run %s belongs to %s", job.name, spec.name, spec.owner)
            return None
        if job.digest != manifests.digest(manifest) and not self._mark(spec, manifest, job):
            return None
        status = self._runs.status(spec.name)
        if is_leftover(status, job):
            log.warning("deleting Job %s: its run %s was over before it was created", job.name, spec.name)
            self._api.delete_job(job.name, job.uid)
        if not status.finished and not job.ended:
            self._keeper.ensure_services(spec, job.uid)
        return None if status.finished else spec

    def _adopt(self, told: RunSpec, job: LiveJob) -> tuple[RunSpec, Json]:
        manifest = manifests.adopted(job, self._owner)
        spec = spec_of(manifest, f"Job {job.name}")
        log.info("adopting Job %s as %s", job.name, spec.name)
        try:
            self._runs.create(spec, manifest)
        except AlreadyExists:  # by another replica
            return self._runs.manifest(told.name)
        try:
            session_lock.take(self._runs, spec.session, spec.name)
        except RunActive as error:
            log.warning("%s runs beside another run of its session: %s", spec.name, error)
        return spec, manifest

    def _mark(self, spec: RunSpec, manifest: Json, job: LiveJob) -> bool:
        """Mark a Job made by hand as this run's; whether it is. One that was applied anew after the end starts the run again."""
        mine = manifests.adopted(job, self._owner)
        if _undated(mine) != _undated(manifest):
            log.warning(
                "Job %s is another order than %s, which is there already: give it another run", job.name, spec.name
            )
            return False
        status = self._runs.status(spec.name)
        if status.finished and job.uid != status.job_uid:
            try:
                resuming.resume(self._runs, spec.name, False, self._owner)
            except (RunActive, RunFinished) as error:
                log.warning("Job %s was applied, but %s", job.name, error)
                return False
            status = self._runs.status(spec.name)
        marks = manifests.marks(manifest, status.resumptions)
        marked = LiveJob.of(self._api.patch_job(job.name, job.uid, {"metadata": {"annotations": marks}}))
        self._keeper.record(spec, status, marked)
        return True


def _named(spec: RunSpec) -> RunSpec:
    """The run if its names are such that they can be part of keys. Raises InvalidName, ManifestInvalid."""
    store_names.session_name(spec.session)
    store_names.checkpoint_id(spec.checkpoint)
    if not _RUN_ID.fullmatch(spec.run_id):
        raise ManifestInvalid(spec.name, (f"its run is {spec.run_id!r}, expected 1 to 40 of a-z, 0-9 and '-'",))
    return spec


def _undated(manifest: Json) -> Json:
    about = manifest["metadata"]
    notes = {name: text for name, text in about["annotations"].items() if name != CREATE_TIME}
    return {**manifest, "metadata": {**about, "annotations": notes}}
