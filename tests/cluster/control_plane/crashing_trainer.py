"""The trainer, which kills itself at a point named on the command line: `crashing_trainer.py after-create`.

before-record       CreateRun is about to write job.json
before-create       job.json is written, the Job is not created
after-create        the Job is created, CreateRun has not answered
before-recording    the Job is over, status.json does not say so
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from trainer.__main__ import main
from trainer.cluster.api import ClusterApi
from trainer.job_status import JobStatus
from trainer.runs import Runs


def die() -> None:
    """As kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


def break_at(point: str) -> None:
    """Put the end of the process where it was asked for."""
    create, create_job, change_status = Runs.create, ClusterApi.create_job, Runs.change_status

    def dying_create(self: Runs, *arguments: Any) -> None:
        die()

    def dying_create_job(self: ClusterApi, job: Any, dry_run: bool = False) -> Any:
        if point == "before-create" and not dry_run:
            die()
        answer = create_job(self, job, dry_run)
        if point == "after-create" and not dry_run:
            die()
        return answer

    def dying_change_status(self: Runs, name: str, change: Callable[[JobStatus], JobStatus]) -> JobStatus:
        if change(self.status(name)).finished:
            die()
        return change_status(self, name, change)

    Runs.create = dying_create if point == "before-record" else create  # type: ignore[method-assign]
    ClusterApi.create_job = dying_create_job  # type: ignore[method-assign]
    if point == "before-recording":
        Runs.change_status = dying_change_status  # type: ignore[method-assign]


if __name__ == "__main__":
    break_at(sys.argv.pop(1))
    sys.exit(main())
