"""The backend for a cluster: each run is a Job of one namespace. Fulfils `backends.Backend`."""

import logging
from collections.abc import Mapping
from typing import Any

from artifacts.errors import AlreadyExists
from jobs import names
from jobs.errors import FieldsInvalid
from jobs.execution import Execution
from jobs.run_spec import RunSpec

from trainer.cluster.api import ClusterApi
from trainer.cluster.errors import ClusterUnavailable, JobInvalid, QueueDecides, Taken
from trainer.cluster.finder import Finder
from trainer.cluster.keeper import Keeper
from trainer.cluster.live import LiveJob
from trainer.cluster.mirror import Mirror
from trainer.runs import Run, Runs

JOBS: str = names.RUN_LABEL
PODS: str = "batch.kubernetes.io/job-name"
"""Selectors of what is looked at: Jobs of runs, whoever made them, and pods of any Job."""

log = logging.getLogger(__name__)


class ClusterJobs:
    """All runs of one namespace. owner: "kubernetes/<namespace>", or "kubernetes/<cluster>/<namespace>"."""

    def __init__(self, runs: Runs, api: ClusterApi, execution: Execution, cluster: str = "") -> None:
        self.owner = "/".join(filter(None, ("kubernetes", cluster, api.namespace)))
        self._runs = runs
        self._api = api
        self._jobs = Mirror(api, "jobs", JOBS)
        self._pods = Mirror(api, "pods", PODS)
        self._keeper = Keeper(runs, api, self._jobs, self._pods, execution)
        self._finder = Finder(runs, api, self._jobs, self._keeper, self.owner)

    def start(self) -> None:
        """Read what is there, then follow it."""
        self._jobs.start()
        self._pods.start()

    def check(self, manifest: Mapping[str, Any]) -> None:
        """Ask the API server to create the Job without doing it: schema, quota, policies and permissions have their say.

        Raises FieldsInvalid, QuotaExceeded, JobRefused, ClusterForbidden, ClusterUnavailable, and AlreadyExists for a name
        that another Job has.
        """
        try:
            self._api.create_job(manifest, dry_run=True)
        except JobInvalid as error:
            raise FieldsInvalid(*error.problems) from error
        except Taken as error:
            self._make_room(str(manifest["metadata"]["name"]), error)

    def submit(self, spec: RunSpec) -> None:
        """Create the Job unless it is there."""
        self._soon(spec)

    def cancel(self, spec: RunSpec) -> None:
        """Delete the Job and its pods."""
        self._soon(spec)

    def suspend(self, spec: RunSpec) -> None:
        """Set spec.suspend: the Job controller ends the pods. Raises QueueDecides, ClusterUnavailable."""
        self._set_suspend(spec, True)

    def unsuspend(self, spec: RunSpec) -> None:
        """Clear spec.suspend. A Job in a queue is left to the queue."""
        self._set_suspend(spec, False)

    def tend(self, run: Run) -> None:
        """Bring job.json, Job and status.json nearer to each other."""
        self._keeper.tend(run)

    def found(self) -> list[RunSpec]:
        """Runs of Jobs that turned up."""
        return self._finder.found()

    def close(self) -> None:
        """Stop looking; Jobs go on."""
        self._jobs.stop()
        self._pods.stop()
        self._api.close()

    def _soon(self, spec: RunSpec) -> None:
        """Do the next step now if possible; if not, `tend` does it."""
        try:
            self._keeper.tend(self._runs.state(spec))
        except ClusterUnavailable as error:
            log.warning("%s has to wait: %s", spec.name, error)

    def _make_room(self, name: str, taken: Taken) -> None:
        """Raise what a taken name means. A Job whose run was deleted is in nobody's way for long."""
        job = None if taken.being_deleted else self._keeper.fresh_job(name)
        if job and not (job.owner == self.owner and job.ended):
            raise AlreadyExists("Job", name, "another run, or somebody by hand, made it; choose another run_id")
        if job:
            self._api.delete_job(name, job.uid)
        raise ClusterUnavailable(f"create Job {name}", "the Job of an earlier run of that name is being deleted")

    def _set_suspend(self, spec: RunSpec, wanted: bool) -> None:
        name = self._keeper.job_name(spec)
        job = self._keeper.fresh_job(name)
        if job is None:
            if wanted:
                raise ClusterUnavailable(f"suspend {spec.name}", f"its Job {name} is not created yet")
            return
        if job.queue and wanted:
            raise QueueDecides(spec.name, job.queue)
        if job.suspended != wanted and not (job.queue or job.ended or job.being_deleted):
            job = LiveJob.of(self._api.patch_job(name, job.uid, {"spec": {"suspend": wanted}}))
        self._keeper.record(spec, self._runs.status(spec.name), job)
