"""Looks at one run of the cluster: what its Job did goes to status.json, what is to be done next goes to the API.

Any number of replicas may do it for one run: what they write follows from what the cluster shows, and is swapped in, so
that no look at an earlier life of the run overwrites a later one.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from artifacts.checkpoints import Checkpoints
from artifacts.errors import ManifestInvalid, NotFound
from jobs import names
from jobs.execution import Execution
from jobs.run_spec import RunSpec

from trainer import event_reader
from trainer.cluster import attempts, endings, manifests, waiting
from trainer.cluster.api import ClusterApi
from trainer.cluster.errors import ClusterError, ClusterUnavailable, JobInvalid, Missing, RecordRefused, Taken
from trainer.cluster.live import Happening, LiveJob, LivePod
from trainer.cluster.mirror import Mirror
from trainer.cluster.rerendering import differences, rendered_anew
from trainer.cluster.steps import Step, next_step
from trainer.job_status import FAILED, Condition, JobStatus
from trainer.runs import Run, Runs, RunState

_EVENTS_EVERY_SECONDS = 5.0
_REFUSED_PAUSE_SECONDS = 10.0

log = logging.getLogger(__name__)


class Keeper:
    """All runs of one namespace. jobs, pods: what the API server shows."""

    def __init__(self, runs: Runs, api: ClusterApi, jobs: Mirror, pods: Mirror, execution: Execution) -> None:
        self._runs = runs
        self._api = api
        self._jobs = jobs
        self._pods = pods
        self._execution = execution
        self._orders: dict[str, tuple[Mapping[str, Any], str]] = {}
        self._events: dict[str, tuple[float, list[Happening]]] = {}
        self._not_before: dict[str, float] = {}

    def tend(self, run: Run) -> None:
        """Do the next step of a run that is not over."""
        spec, cancelling = run.spec, run.state == RunState.CANCELLING
        manifest, digest = self._order(spec)
        job = self.job(manifest["metadata"]["name"])
        status = run.status
        if next_step(status, job, digest, cancelling) is not Step.RECORD:
            status = self._runs.status(spec.name)  # what was read before may be old, and now something is to be done
            if status.finished:
                return
        match next_step(status, job, digest, cancelling):
            case Step.CREATE:
                self._create(spec, manifest, status)
            case Step.CONCLUDE_GONE:
                self._conclude_gone(spec, manifest["metadata"]["name"], digest, cancelling)
            case Step.STRANGER:
                assert job is not None
                self._note(spec, status, f"another Job is in the way: {job.name} was not made for this run; delete it")
            case Step.REMOVE_OLD | Step.DELETE:
                assert job is not None
                if not job.being_deleted:
                    log.info("deleting Job %s of %s", job.name, spec.name)
                    self._api.delete_job(job.name, job.uid)
            case Step.RECORD:
                assert job is not None
                self.record(spec, status, job, cancelling)

    def job(self, name: str) -> LiveJob | None:
        """The Job as it was last seen; where none was, as it is now."""
        raw = self._jobs.get(name)
        return LiveJob.of(raw) if raw else self.fresh_job(name)

    def fresh_job(self, name: str) -> LiveJob | None:
        """The Job as it is now."""
        try:
            return LiveJob.of(self._api.job(name))
        except Missing:
            return None

    def record(self, spec: RunSpec, status: JobStatus, job: LiveJob, cancelling: bool = False) -> None:
        """Write what a Job of this run shows, unless that is known. status: what was read last."""
        digest = self._order(spec)[1]
        pods = self._pods_of(job)
        events = self._events_about(job, pods)
        said = {pod.name: self._words(spec, pod) for pod in attempts.newly_failed(status, pods)}
        now = datetime.now(UTC)

        def change(before: JobStatus) -> JobStatus:
            if before.finished or next_step(before, job, digest, cancelling) not in (Step.RECORD, Step.DELETE):
                return before
            seen = replace(attempts.observe(before, job, pods, said, now), job_uid=job.uid)
            if condition := endings.conclusion(job, seen, cancelling):
                return seen.concluded(condition)
            reason = waiting.reason(job, pods, events, before.pending_reason)
            return replace(seen, suspended=job.suspended and not job.queue, pending_reason=reason)

        after = change(status)
        if after == status:
            return
        if after.finished:
            self._keep_log(spec, pods)
        written = self._runs.change_status(spec.name, change)
        if written.condition:
            self._forget(spec)
            log.info("%s is over: %s %s", spec.name, written.condition.type, written.condition.reason)

    def job_name(self, spec: RunSpec) -> str:
        """Name of the run's Job."""
        return str(self._order(spec)[0]["metadata"]["name"])

    def ensure_services(self, spec: RunSpec, job_uid: str) -> None:
        """Give the pods of an Indexed Job their names."""
        for service in manifests.services(spec, self._order(spec)[0], self._execution, job_uid):
            try:
                self._api.create_service(service)
            except Taken:
                continue

    def _create(self, spec: RunSpec, manifest: Mapping[str, Any], status: JobStatus) -> None:
        if time.monotonic() < self._not_before.get(spec.name, 0.0):
            return
        try:
            wanted = rendered_anew(spec, manifest, self._execution)
            if changed := differences(manifest, wanted):
                log.info("the Job of %s is not what its record says: %s", spec.name, ", ".join(changed))
            job = self._api.create_job(manifests.to_create(wanted, manifest, status.resumptions, status.accept_inexact))
        except Taken as error:  # by another replica, which the next look shows, or by one that is about to go
            log.info("cannot create the Job of %s yet: %s", spec.name, error)
            return
        except JobInvalid as error:
            self._conclude(spec, Condition(FAILED, datetime.now(UTC), "JobInvalid", str(error)))
            return
        except RecordRefused as error:
            log.error("%s", error)
            self._conclude(spec, Condition(FAILED, datetime.now(UTC), "RecordRefused", str(error)))
            return
        except ClusterUnavailable:
            raise
        except ClusterError as error:
            self._not_before[spec.name] = time.monotonic() + _REFUSED_PAUSE_SECONDS
            self._note(spec, status, str(error))
            return
        log.info("created Job %s for %s", job["metadata"]["name"], spec.name)
        self.record(spec, status, LiveJob.of(job))
        self.ensure_services(spec, job["metadata"]["uid"])

    def _conclude_gone(self, spec: RunSpec, job_name: str, digest: str, cancelling: bool) -> None:
        job = self.fresh_job(job_name)
        last, pods = self._last_look(job_name)
        published, now = self._published(spec), datetime.now(UTC)

        def change(before: JobStatus) -> JobStatus:
            if before.finished or next_step(before, job, digest, cancelling) is not Step.CONCLUDE_GONE:
                return before
            if last and next_step(before, last, digest, cancelling) is Step.RECORD:
                seen = replace(attempts.observe(before, last, pods, {}, now), job_uid=last.uid)
                if condition := endings.conclusion(last, seen, cancelling):
                    return seen.concluded(condition)
            seen = attempts.observe(before, None, (), {}, now)
            return seen.concluded(endings.conclusion_of_gone(job_name, seen, published, cancelling, now))

        written = self._runs.change_status(spec.name, change)
        if written.condition:
            log.info("%s is over: %s %s", spec.name, written.condition.reason, written.condition.message)

    def _last_look(self, job_name: str) -> tuple[LiveJob | None, list[LivePod]]:
        """A Job that was over before it was deleted, and its pods, as they were last seen."""
        raw = self._jobs.deleted().get(job_name)
        if raw is None or not (job := LiveJob.of(raw)).ended:
            return None, []
        pods = map(LivePod.of, [*self._pods.deleted().values(), *self._pods.objects()])
        # Its deletion came after its end and has nothing to do with how its pods ended.
        return replace(job, being_deleted=False), [pod for pod in pods if pod.job_uid == job.uid]

    def _conclude(self, spec: RunSpec, condition: Condition) -> None:
        self._runs.change_status(spec.name, lambda before: before if before.finished else before.concluded(condition))
        self._forget(spec)

    def _note(self, spec: RunSpec, status: JobStatus, reason: str) -> None:
        if status.pending_reason != reason:
            log.warning("%s waits: %s", spec.name, reason)
            self._runs.change_status(
                spec.name, lambda before: before if before.finished else replace(before, pending_reason=reason)
            )

    def _order(self, spec: RunSpec) -> tuple[Mapping[str, Any], str]:
        """job.json and its digest. A run made anew under its old name publishes another checkpoint."""
        known = self._orders.get(spec.checkpoint)
        if known is None:
            manifest = self._runs.manifest(spec.name)[1]
            known = self._orders[spec.checkpoint] = manifest, manifests.digest(manifest)
        return known

    def _pods_of(self, job: LiveJob) -> list[LivePod]:
        """Pods of a Job; of one that is over asked for anew, because the mirrors are not in step."""
        if job.ended:
            raw, _ = self._api.listed("pods", f"batch.kubernetes.io/controller-uid={job.uid}")
        else:
            raw = self._pods.objects()
        return [pod for pod in map(LivePod.of, raw) if pod.job_uid == job.uid]

    def _events_about(self, job: LiveJob, pods: Sequence[LivePod]) -> list[Happening]:
        uid = "" if job.ended else waiting.asks_events(job, pods)
        if not uid:
            return []
        asked, events = self._events.get(uid, (-_EVENTS_EVERY_SECONDS, []))
        if time.monotonic() - asked >= _EVENTS_EVERY_SECONDS:
            events = [Happening.of(raw) for raw in self._api.events(uid)]
            self._events[uid] = time.monotonic(), events
        return events

    def _words(self, spec: RunSpec, pod: LivePod) -> str:
        """What the program said about its failure: its own record, else the end of its output."""
        assert pod.start_time is not None or pod.termination is not None
        since = pod.start_time or pod.create_time
        said = event_reader.newest_error_since(self._runs.store, spec.name, since) or attempts.own_words(pod)
        if said:
            return said
        lines = self._log(pod).decode(errors="replace").strip().splitlines()
        return lines[-1].strip()[-500:] if lines else ""

    def _keep_log(self, spec: RunSpec, pods: Sequence[LivePod]) -> None:
        """Put the log of the last pod into the bucket: those of the cluster go with the Job."""
        started = sorted((pod for pod in pods if pod.start_time and not pod.index), key=lambda pod: pod.create_time)
        data = self._log(started[-1]) if started else b""
        if data:
            self._runs.store.put(f"{spec.name}/log.txt", data, "text/plain; charset=utf-8")

    def _log(self, pod: LivePod) -> bytes:
        try:
            return self._api.pod_log(pod.name, names.CONTAINER)
        except ClusterError as error:  # its node is gone, or the log is; the run's record goes on without it
            log.warning("the log of pod %s cannot be read: %s", pod.name, error)
            return b""

    def _published(self, spec: RunSpec) -> bool:
        try:
            Checkpoints(self._runs.store).get(spec.checkpoint)
        except (NotFound, ManifestInvalid):
            return False
        return True

    def _forget(self, spec: RunSpec) -> None:
        self._orders.pop(spec.checkpoint, None)
        old = time.monotonic() - 2 * _EVENTS_EVERY_SECONDS
        self._events = {uid: entry for uid, entry in self._events.items() if entry[0] > old}
        self._not_before.pop(spec.name, None)
