"""Ends the services if the launcher vanishes without stopping them: killed, out of memory, crashed.

`Watchdog` is the launcher's side. The other side is this file as a program, `python -I -S watchdog.py SECONDS`: its
stdin is a pipe on which the launcher writes the process ids of its services, and whose end means that nobody else will
stop those. SECONDS: what they get after SIGTERM before they are killed with their process groups.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

_POLL_SECONDS = 0.1


class Watchdog:
    """The program, watching from now on."""

    def __init__(self, grace_seconds: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(grace_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Out of reach of the terminal's Ctrl-C and hang-up.
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def watch(self, pids: Iterable[int]) -> None:
        """From now on look after these processes, and only these; each leads its own process group."""
        assert self._process.stdin is not None
        with contextlib.suppress(
            BrokenPipeError
        ):  # Somebody killed it; the services can be run and stopped without it.
            self._process.stdin.write(f"{' '.join(map(str, pids))}\n".encode())
            self._process.stdin.flush()

    def close(self) -> None:
        """Let everything live that runs, and end."""
        self.watch([])
        self._process.communicate()


def main(grace_seconds: float) -> None:
    """Read until the launcher is gone, then end what it named last."""
    pids: list[int] = []
    for line in sys.stdin:
        pids = [int(word) for word in line.split()]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while any(map(_alive, pids)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main(float(sys.argv[1]))
