"""Which process holds a run, told so exactly that another one on the same machine can see that it is dead.

`lease` calls this. A process id alone says too little: ids are used again, and every container counts its own. Host,
boot, pid namespace and start time together name one process for ever. Where there is no /proc nobody is ever found
dead, and the lease is waited for instead.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_STATE, _START_TICKS = 0, 19  # fields 3 and 22 of proc_pid_stat(5), counted behind the process's name
_DEAD_STATES = ("Z", "X")


@dataclass(frozen=True)
class Holder:
    """One process. start_ticks: clock ticks from boot to its start. What this system does not tell is empty or 0."""

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    start_ticks: int

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host!r}"

    def is_dead(self) -> bool:
        """Whether this machine knows that the process has ended. False also for a process it cannot see."""
        here = this_process()
        machine = (self.host, self.boot_id, self.pid_namespace)
        if not (self.boot_id and self.pid_namespace) or machine != (here.host, here.boot_id, here.pid_namespace):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # another user's; /proc may hide it
            pass
        fields = _stat_fields(self.pid)
        return bool(fields) and (fields[_STATE] in _DEAD_STATES or int(fields[_START_TICKS]) != self.start_ticks)


def this_process() -> Holder:
    """The calling process."""
    fields = _stat_fields(os.getpid())
    return Holder(
        socket.gethostname(),
        _read(_PROC / "sys/kernel/random/boot_id").strip(),
        _pid_namespace(),
        os.getpid(),
        int(fields[_START_TICKS]) if fields else 0,
    )


def _stat_fields(pid: int) -> list[str]:
    # The name before ") " may itself hold spaces and brackets.
    return _read(_PROC / str(pid) / "stat").rpartition(") ")[2].split()


def _pid_namespace() -> str:
    try:
        return os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return ""


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # no such system, no such process, or hidden from us
        return ""
