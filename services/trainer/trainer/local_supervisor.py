"""Executes one run on this machine: `python -m trainer.local_supervisor sessions/<session>/runs/<run>`.

`local_job` starts it in a session of its own, so that it outlives the service. It does for one run what the Job
controller and a kubelet do on a cluster: starts the container's command with the container's environment, retries by
backoffLimit and podFailurePolicy, and keeps status.json. SIGTERM interrupts the run without ending it; cancel.json in
the bucket ends it, and suspend.json stops it until that is taken away.
"""

import argparse
import logging
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from types import FrameType
from typing import Any, TypeVar

from artifacts.errors import NotFound, StoreUnavailable
from artifacts.store import ObjectStore
from chassis import config
from jobs.manifest import environment_of

from trainer import event_reader, retries
from trainer.config import LocalConfig, SupervisorConfig
from trainer.exit_codes import describe
from trainer.job_status import CANCELLED, FAILED, Condition, JobStatus
from trainer.run_folder import RunFolder
from trainer.runs import Runs

_STORE_PAUSE_SECONDS = 1.0
_REQUEST_CHECK_SECONDS = 1.0
# A service that stops waits for its supervisors, and a person at Ctrl-C for the service. Most programs save their state in
# this time; one that is cut off goes on from the resume point before.
STOP_GRACE_SECONDS = 25.0
_STORE = "DARKROOM_S3_"
_CANNOT_START = 127  # as a shell says it
_LOG_TAIL_BYTES = 4 * 1024 * 1024

T = TypeVar("T")
log = logging.getLogger("trainer.local_supervisor")


class Interrupted(Exception):
    """SIGTERM: leave the run as it is; it goes on when it is submitted again."""


class Supervisor:
    """One run from here to its end."""

    def __init__(self, runs: Runs, name: str, settings: LocalConfig) -> None:
        self._runs = runs
        self._name = name
        self._settings = settings
        self._folder = RunFolder.of(settings.state_dir, name)
        self._stopping = False
        self._next_request_check = 0.0

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handler of SIGTERM."""
        self._stopping = True

    def run(self) -> None:
        """Start the program until the Job is over. Raises Interrupted, and NotFound if the run was deleted."""
        _, job = self._patiently(lambda: self._runs.manifest(self._name))
        status = self._patiently(lambda: self._runs.status(self._name))
        if status.finished:
            return
        self._end_leftover_child()
        if status.attempts and status.attempts[-1].end_time is None:
            status = status.ended(_now(), None, "interrupted: its machine or supervisor stopped", counted=False)
        while True:
            condition = retries.conclusion(job, status) or self._cancelled()
            if condition:
                self._conclude(status.concluded(condition))
                return
            if self._patiently(lambda: self._runs.suspend_requested(self._name)):
                log.info("suspended; the run goes on when it is resumed")
                return
            self._pause(retries.delay_seconds(self._settings.backoff_seconds, status))
            if not self._patiently(self._end_requested):
                status = self._attempt(job, status)

    def _attempt(self, job: Mapping[str, Any], status: JobStatus) -> JobStatus:
        earlier = self._patiently(lambda: event_reader.num_attempts(self._runs.store, self._name))
        status = status.started(_now())
        self._save(status)
        exit_code, was_asked = self._execute(job, status)
        log.info("attempt %d ended with exit code %d", len(status.attempts), exit_code)
        if self._stopping and not was_asked:
            interrupted = status.ended(_now(), exit_code, "interrupted: the service stopped", counted=False)
            with suppress(StoreUnavailable):  # the store stops too; the next supervisor closes the attempt
                self._runs.write_status(self._name, interrupted)
            raise Interrupted
        error = "" if exit_code == 0 else self._patiently(lambda: self._error(exit_code, earlier))
        status = status.ended(_now(), exit_code, error, counted=not was_asked or exit_code == 0)
        self._patiently(self._upload_log)
        self._save(status)
        return status

    def _execute(self, job: Mapping[str, Any], status: JobStatus) -> tuple[int, bool]:
        """Run the program to its end: exit code as a shell gives it, and whether somebody asked for the end in the bucket."""
        number = len(status.attempts)
        # Not what the manifest says: who can write to the bucket must not choose what runs on this machine.
        command = shlex.split(self._settings.run_command)
        if command[0] == "python":  # on a cluster that of the image, here the one this supervisor runs on
            command[0] = sys.executable
        grace_seconds = float(job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])
        with self._folder.log.open("ab" if number > 1 else "wb") as output:
            output.write(f"--- attempt {number}: {' '.join(command)}\n".encode())
            output.flush()
            try:
                child = subprocess.Popen(
                    command,
                    env={**_environment(job, status), "TMPDIR": str(self._folder.fresh_scratch())},
                    cwd=self._folder.path,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                output.write(f"cannot start {command[0]}: {error.strerror}\n".encode())
                return _CANNOT_START, False
        self._folder.write_child(child.pid)
        was_asked = self._wait(child, grace_seconds)
        with suppress(ProcessLookupError):  # whatever it started and left behind
            os.killpg(child.pid, signal.SIGKILL)
        self._folder.clear_scratch()
        code = child.returncode
        return (code if code >= 0 else 128 - code), was_asked

    def _wait(self, child: "subprocess.Popen[bytes]", grace_seconds: float) -> bool:
        deadline, was_asked = math.inf, False
        while True:
            with suppress(subprocess.TimeoutExpired):
                child.wait(self._settings.poll_seconds)
                return was_asked
            if math.isinf(deadline) and (self._stopping or self._end_requested_by_now()):
                was_asked = not self._stopping
                deadline = time.monotonic() + grace_seconds
                child.terminate()
            if self._stopping:  # also if a cancel gave it longer before
                deadline = min(deadline, time.monotonic() + STOP_GRACE_SECONDS)
            if time.monotonic() > deadline:
                child.kill()

    def _cancelled(self) -> Condition | None:
        if not self._patiently(lambda: self._runs.cancel_requested(self._name)):
            return None
        return Condition(FAILED, _now(), CANCELLED, "the run was asked to stop")

    def _end_requested(self) -> bool:
        return self._runs.cancel_requested(self._name) or self._runs.suspend_requested(self._name)

    def _end_requested_by_now(self) -> bool:
        """Asks the store not oftener than it should be asked while a program works."""
        if time.monotonic() < self._next_request_check:
            return False
        self._next_request_check = time.monotonic() + _REQUEST_CHECK_SECONDS
        try:
            return self._end_requested()
        except StoreUnavailable as error:
            log.warning("cannot ask whether the run is to end: %s", error)
            return False

    def _conclude(self, status: JobStatus) -> None:
        self._save(status)
        assert status.condition is not None
        log.info("%s: %s %s", status.condition.type, status.condition.reason, status.condition.message)

    def _error(self, exit_code: int, earlier_attempts: int) -> str:
        said = event_reader.newest_error(self._runs.store, self._name, earlier_attempts)
        return f"{said or self._last_line() or 'it printed nothing'} ({describe(exit_code)})"

    def _last_line(self) -> str:
        lines = self._log_tail().decode(errors="replace").strip().splitlines()
        last = lines[-1].strip() if lines else ""
        return "" if last.startswith("--- attempt ") else last[-500:]

    def _log_tail(self) -> bytes:
        with self._folder.log.open("rb") as file:
            file.seek(max(0, self._folder.log.stat().st_size - _LOG_TAIL_BYTES))
            return file.read()

    def _upload_log(self) -> None:
        self._runs.store.put(f"{self._name}/log.txt", self._log_tail(), "text/plain; charset=utf-8")

    def _save(self, status: JobStatus) -> None:
        self._patiently(lambda: self._runs.write_status(self._name, status))

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Ask the store until it answers. Raises Interrupted."""
        while True:
            if self._stopping or not self._folder.path.exists():  # whoever removes the folder wants no more of the run
                raise Interrupted
            try:
                return ask()
            except StoreUnavailable as error:
                log.warning("waiting for the store: %s", error)
                self._pause(_STORE_PAUSE_SECONDS)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, self._settings.poll_seconds))

    def _end_leftover_child(self) -> None:
        """Two programs of one run must never work at once; that of a killed supervisor may still do."""
        while (pid := self._folder.child()) is not None:
            log.warning("ending process %d, left behind by an earlier supervisor", pid)
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            time.sleep(0.05)


def _environment(job: Mapping[str, Any], status: JobStatus) -> dict[str, str]:
    """What a pod would have: the image's variables, those of the manifest, the store, and how it was resumed.

    Where the store is and its credentials are this machine's: a manifest that was made for a cluster names files of a pod.
    Of a manifest only our own variables count: others could choose what the program loads.
    """
    image = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
    store = {name: value for name, value in os.environ.items() if name.startswith(_STORE)}
    ordered = {
        name: value
        for name, value in environment_of(job).items()
        if name.startswith("DARKROOM_") and not name.startswith(_STORE)
    }
    resumed = {"DARKROOM_ACCEPT_INEXACT": "true"} if status.accept_inexact else {}
    return {**image, **ordered, **store, **resumed}


def _now() -> datetime:
    return datetime.now(UTC)


def main() -> int:
    """Execute the run named on the command line; 0 also when it failed: status.json says how it ended."""
    parser = argparse.ArgumentParser(description="Executes one training run on this machine.")
    parser.add_argument("run", help="sessions/<session>/runs/<run>")
    parser.add_argument("--lock", type=int, default=-1, help="file descriptor that holds the run's lock")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings = config.read(SupervisorConfig)
    folder = RunFolder.of(settings.local.state_dir, arguments.run)
    if arguments.lock < 0 and folder.lock() is None:
        log.error("another supervisor executes %s", arguments.run)
        return 1
    folder.write_pid(os.getpid())
    supervisor = Supervisor(Runs(ObjectStore(settings.store)), arguments.run, settings.local)
    signal.signal(signal.SIGTERM, supervisor.stop)
    try:
        supervisor.run()
    except Interrupted:
        log.info("interrupted; the run goes on when it is submitted again")
    except NotFound as error:
        log.info("the run was deleted: %s", error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
