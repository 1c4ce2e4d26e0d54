"""What a cluster can say no to.

ClusterError
├── ClusterUnavailable       try again
├── QuotaExceeded            a ResourceQuota of the namespace is used up
├── ClusterForbidden         this service may not do it
├── JobRefused               a policy or a webhook of the cluster said no, or the namespace is missing
├── JobInvalid               the API server refuses the Job's fields
├── RecordRefused            job.json asks for what no run has
└── QueueDecides             Kueue, not a person, suspends and resumes this Job
"""

from collections.abc import Sequence

from trainer.errors import BackendUnavailable, TrainerError


class ClusterError(TrainerError):
    """Root of a cluster's errors."""


class ClusterUnavailable(ClusterError, BackendUnavailable):
    """The API server does not answer, or asks to wait. Fields: what, what was asked of it; found."""

    def __init__(self, what: str, found: str) -> None:
        super().__init__(f"the cluster's API did not {what}: {found}; try again")
        self.what = what
        self.found = found


class Changed(ClusterUnavailable):
    """The object is another one by now, or has changed in between (409)."""


class QuotaExceeded(ClusterError):
    """No room in a ResourceQuota. Field: found."""

    def __init__(self, found: str) -> None:
        super().__init__(f"the training namespace is full: {found}; wait for a run to end, or raise the quota")
        self.found = found


class ClusterForbidden(ClusterError):
    """The service's account lacks a permission, or the API does not know it. Field: found."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"the cluster does not let this service do it: {found}; see docs/training-jobs.md, Permissions"
        )
        self.found = found


class JobRefused(ClusterError):
    """Refused by a rule of the cluster. Field: found."""

    def __init__(self, found: str) -> None:
        super().__init__(f"the cluster refuses the Job: {found}")
        self.found = found


class JobInvalid(ClusterError):
    """The API server does not accept the Job. Attributes: problems, pairs of path in the Job and description."""

    def __init__(self, *problems: tuple[str, str]) -> None:
        super().__init__("the Job is invalid: " + "; ".join(f"{field} {text}" for field, text in problems))
        self.problems = problems


class RecordRefused(ClusterError):
    """job.json asks for a Job that this service never makes. Fields: run; fields, the paths of what it asks for."""

    def __init__(self, run: str, fields: Sequence[str]) -> None:
        super().__init__(
            f"{run}/job.json asks for what no run of this service has: {', '.join(fields)}; no Job was created. "
            "If the Job was applied by hand, apply it again; if not, somebody changed the file in the bucket: "
            "order the run anew"
        )
        self.run = run
        self.fields = tuple(fields)


class QueueDecides(ClusterError):
    """The Job is in a queue, which alone starts and stops it. Fields: run, queue."""

    def __init__(self, run: str, queue: str) -> None:
        super().__init__(
            f"{run} is in queue {queue!r}, and Kueue decides when it runs; set spec.active of its Workload, or cancel it"
        )
        self.run = run
        self.queue = queue


class Missing(ClusterError):
    """The object is not there (404). Never leaves this package."""


class Taken(ClusterError):
    """The name is taken (409). being_deleted: by an object that is about to go. Never leaves this package."""

    def __init__(self, message: str, being_deleted: bool) -> None:
        super().__init__(message)
        self.being_deleted = being_deleted


class Expired(ClusterError):
    """A watch is too old to go on (410): list anew. Never leaves this package."""
