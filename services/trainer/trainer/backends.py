"""What executes runs: the interface that `training` and `active_runs` know.

Fulfilled by `local_job` on one machine and by `cluster.cluster_jobs` on Kubernetes.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from jobs.run_spec import RunSpec

from trainer.runs import Run


class Backend(Protocol):
    """Executes the manifest of a run (job.json) and keeps its status.json. Blocking; every method is safe to repeat."""

    @property
    def owner(self) -> str:
        """Who executes: written into each run, so that two machines on one bucket leave each other's runs alone."""

    def start(self) -> None:
        """Get ready to be asked. Raises BackendUnavailable: then try again."""

    def check(self, manifest: Mapping[str, Any]) -> None:
        """Raise what would keep this run from being executed, before it is accepted."""

    def submit(self, spec: RunSpec) -> None:
        """Begin to execute a run, or go on with it. Does nothing if it is being executed. What fails now `tend` does later."""

    def cancel(self, spec: RunSpec) -> None:
        """Stop a run for good; its cancel.json is written already. Returns before it has stopped."""

    def suspend(self, spec: RunSpec) -> None:
        """Stop a run until `unsuspend`; the program saves a resume point. Returns before it has stopped."""

    def unsuspend(self, spec: RunSpec) -> None:
        """Take back `suspend`; nothing to do for a run that is not suspended."""

    def tend(self, run: Run) -> None:
        """Look at a run that is not over: record what happened, start what was lost. Called again and again."""

    def found(self) -> list[RunSpec]:
        """Runs of this owner that turned up since the last call and that nobody tends yet."""

    def close(self) -> None:
        """The service stops. What becomes of the runs is the backend's setting."""
