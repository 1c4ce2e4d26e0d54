"""What executes runs: the interface that `training` and `active_runs` know, fulfilled by `local_job`."""

from typing import Protocol

from jobs.run_spec import RunSpec


class Backend(Protocol):
    """Executes the manifest of a run (job.json) and keeps its status.json. Blocking; every method is safe to repeat."""

    @property
    def owner(self) -> str:
        """Who executes: written into each run, so that two machines on one bucket leave each other's runs alone."""

    def submit(self, spec: RunSpec) -> None:
        """Begin to execute a run, or go on with it. Does nothing if it is being executed."""

    def cancel(self, spec: RunSpec) -> None:
        """Stop a run for good; its cancel.json is written already. Returns before it has stopped."""

    def alive(self, spec: RunSpec) -> bool:
        """Whether something executes the run now."""

    def close(self) -> None:
        """The service stops. What becomes of the runs is the backend's setting."""
