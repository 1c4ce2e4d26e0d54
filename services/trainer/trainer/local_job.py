"""The backend for one machine: each run is a supervisor process that outlives the service. Fulfils `backends.Backend`.

Submitting, and finding out who is still alive, happens here; what a supervisor does is in `local_supervisor`.
"""

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from artifacts.store import ObjectStore, StoreConfig
from jobs.run_spec import RunSpec

from trainer.config import LocalConfig
from trainer.local_supervisor import STOP_GRACE_SECONDS
from trainer.run_folder import RunFolder, machine_id
from trainer.runs import Run, Runs, RunState

# What supervisors give their programs, and time for their last words.
STOP_SECONDS = STOP_GRACE_SECONDS + 5.0

log = logging.getLogger(__name__)


class LocalJobs:
    """All runs that this machine executes."""

    def __init__(self, store: StoreConfig, settings: LocalConfig, stop_runs: bool) -> None:
        self._runs = Runs(ObjectStore(store))
        self._settings = settings
        self._stop_runs = stop_runs
        given = {**_as_environment(store), **_as_environment(settings)}
        # What the service read from the file of a secret is among them as a value; both would be too many.
        inherited = {name: value for name, value in os.environ.items() if name.removesuffix("_FILE") not in given}
        self._environment = {**inherited, **given}
        self._lock = threading.Lock()
        # Supervisors that are children of this very process: they must be reaped.
        self._children: dict[Path, subprocess.Popen[bytes]] = {}
        self._closed = False
        self.owner = f"local/{machine_id(settings.state_dir)}"

    def start(self) -> None:
        """Nothing to wait for."""

    def check(self, manifest: Mapping[str, Any]) -> None:
        """Nothing that could be known before: processes of this machine ask nobody."""

    def submit(self, spec: RunSpec) -> None:
        """Start a supervisor unless one lives."""
        folder = RunFolder.of(self._settings.state_dir, spec.name)
        with self._lock:
            self._reap()
            descriptor = None if self._closed else folder.lock()
            if descriptor is None:
                return
            try:
                self._start(spec.name, folder, descriptor)
            finally:
                os.close(descriptor)  # the supervisor holds it too

    def cancel(self, spec: RunSpec) -> None:
        """The supervisor looks for cancel.json by itself; if it was lost, a new one records the end."""
        self.submit(spec)

    def suspend(self, spec: RunSpec) -> None:
        """The supervisor looks for suspend.json by itself."""
        self._runs.request_suspend(spec.name)

    def unsuspend(self, spec: RunSpec) -> None:
        """Take the request back; `tend` starts the run again when its supervisor has ended."""
        self._runs.take_back_suspend(spec.name)

    def tend(self, run: Run) -> None:
        """Start a supervisor for a run that should have one."""
        if run.state == RunState.SUSPENDED or self.alive(run.spec):
            return
        now = self._runs.state(run.spec)  # between that look and this one it may just have ended
        if now.finished or now.state == RunState.SUSPENDED:
            return
        log.warning("%s is executed by nobody, starting it again", run.name)
        self.submit(run.spec)

    def found(self) -> list[RunSpec]:
        """None: runs of this machine are made by its service alone."""
        return []

    def alive(self, spec: RunSpec) -> bool:
        """Whether a supervisor lives."""
        with self._lock:
            self._reap()
            return RunFolder.of(self._settings.state_dir, spec.name).locked()

    def close(self) -> None:
        """Interrupt all runs of this machine if that is the setting, else let them go on without the service."""
        with self._lock:
            self._closed = True
            if self._stop_runs:
                self._stop_all()

    def _start(self, name: str, folder: RunFolder, descriptor: int) -> None:
        command = [sys.executable, "-m", "trainer.local_supervisor", name, "--lock", str(descriptor)]
        with folder.supervisor_log.open("ab") as output:
            child = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(descriptor,),
                start_new_session=True,
            )
        folder.write_pid(child.pid)
        self._children[folder.path] = child
        log.info("process %d executes %s, its log is %s", child.pid, name, folder.supervisor_log)

    def _stop_all(self) -> None:
        parent = self._settings.state_dir.resolve() / "runs"
        waiting = [RunFolder(path) for path in parent.iterdir()] if parent.is_dir() else []
        waiting = [folder for folder in waiting if folder.locked()]
        for folder in waiting:
            _signal(folder.pid(), signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while waiting and time.monotonic() < deadline:
            time.sleep(0.05)
            self._reap()
            waiting = [folder for folder in waiting if folder.locked()]
        for folder in waiting:
            log.error("the supervisor of %s does not stop and is killed", folder.path.name)
            _signal(folder.pid(), signal.SIGKILL)
            if (child := folder.child()) is not None:
                with suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)

    def _reap(self) -> None:
        self._children = {path: child for path, child in self._children.items() if child.poll() is None}


def _signal(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _as_environment(settings: StoreConfig | LocalConfig) -> dict[str, str]:
    """The variables from which the same settings are read again."""
    return {
        field.metadata["env"]: str(getattr(settings, field.name))
        for field in dataclasses.fields(settings)
        if "env" in field.metadata
    }
