"""Long-running programs of the cluster: started in sessions of their own, recorded on disk, stopped by that record.

A record holds the pid and the moment the process began, so that a pid which the kernel has given to another program
meanwhile is never touched.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.cluster.harness.binaries import search_path
from tests.cluster.harness.layout import LOGS, STATE

_RECORDS: Final = STATE / "processes"
_STOP_SECONDS: Final = 30
_POLL_SECONDS: Final = 0.1


class NotReady(Exception):
    """Something that was started did not become ready in its time."""


@dataclass(frozen=True)
class Process:
    """A started program. `began` is in clock ticks since boot, as in /proc/<pid>/stat."""

    name: str
    pid: int
    began: int

    @property
    def alive(self) -> bool:
        return began(self.pid) == self.began


def began(pid: int) -> int | None:
    """When the process with this pid began; None if there is none or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *rest = stat.rpartition(")")[2].split()  # the name in front may hold spaces and brackets
    return None if state == "Z" else int(rest[18])


def start(name: str, command: Sequence[str | Path]) -> Process:
    """Start a program with its output in `logs/<name>.log` and record it."""
    LOGS.mkdir(parents=True, exist_ok=True)
    _RECORDS.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=STATE,
            # Garbage is collected a third as often: that costs memory, which is there, and saves time, which is short.
            env=os.environ | {"PATH": search_path(), "GOGC": "300"},
            start_new_session=True,
        )
    process = Process(name, child.pid, began(child.pid) or 0)
    (_RECORDS / f"{name}.json").write_text(json.dumps(asdict(process)))
    return process


def recorded() -> list[Process]:
    """Every program that was started and not stopped since, alive or not."""
    return [Process(**json.loads(path.read_text())) for path in sorted(_RECORDS.glob("*.json"))]


def stop(name: str, with_signal: signal.Signals = signal.SIGTERM) -> None:
    """Stop a recorded program and wait until it is gone; SIGKILL after half a minute. One that is gone already is fine."""
    record = _RECORDS / f"{name}.json"
    if not record.exists():
        return
    process = Process(**json.loads(record.read_text()))
    for number in (with_signal, signal.SIGKILL):
        if process.alive:
            os.kill(process.pid, number)
            wait_gone([process])
    if process.alive:
        raise NotReady(f"{name} (pid {process.pid}) does not end, not even by SIGKILL")
    record.unlink()


def wait_gone(processes: Sequence[Process], seconds: float = _STOP_SECONDS) -> None:
    """Wait until all have ended, at most so long."""
    deadline = time.monotonic() + seconds
    while any(process.alive for process in processes) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def wait_until(what: str, ready: Callable[[], bool], seconds: float, log_of: Process | None = None) -> None:
    """Poll until `ready`; NotReady with the end of the program's log after `seconds` or when the program has ended."""
    begun = time.monotonic()
    while not ready():
        waited = time.monotonic() - begun
        ended = log_of is not None and not log_of.alive
        if ended or waited > seconds:
            reason = f"{log_of.name} has ended" if log_of and ended else f"not so after {seconds:.0f} s"
            raise NotReady(f"Waiting until {what}: {reason}.{_log_end(log_of)}")
        time.sleep(poll_seconds(waited))


def poll_seconds(waited: float) -> float:
    """When to look again. Most looks are processes or calls, and several tests wait side by side: the longer, the less often."""
    return min(max(_POLL_SECONDS, waited / 10), 2.0)


def _log_end(process: Process | None) -> str:
    if process is None:
        return ""
    path = LOGS / f"{process.name}.log"
    lines = path.read_text(errors="replace").splitlines()[-20:]
    return f" The end of {path}:\n" + "\n".join(lines)
