"""One service as a child process: started, waited for, restarted when it dies, stopped without leaving anything behind.

Each child leads its own process group, so that what it started goes with it; its output goes to a log file.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# More deaths than this in the window mean that starting it again will not help.
MAX_DEATHS = 3
DEATHS_WINDOW_SECONDS = 60.0
# The trainer gives its runs half a minute to stop, which is what a Job's pod gets.
STOP_SECONDS = 45.0


class ChildFailed(Exception):
    """A service cannot run. Fields: name, exit_code, log (its last lines)."""

    def __init__(self, name: str, exit_code: int, num_deaths: int, log_file: Path) -> None:
        self.log = tail(log_file)
        times = f", {num_deaths} times within {DEATHS_WINDOW_SECONDS:.0f} s" if num_deaths > 1 else ""
        super().__init__(f"{name} ended with code {exit_code}{times}; the end of its log, {log_file}:\n{self.log}")
        self.name = name
        self.exit_code = exit_code


@dataclass
class Child:
    """A service: `python -m module` with an environment. endpoint_file is removed before each start."""

    name: str
    module: str
    env: Mapping[str, str]
    log_file: Path
    endpoint_file: Path
    num_restarts: int = 0
    _process: "subprocess.Popen[bytes] | None" = None
    _deaths: list[float] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """Process id; 0 before the first start."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start the process; returns at once."""
        self.endpoint_file.unlink(missing_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def revive(self) -> int | None:
        """Start it again if it died. Returns the exit code it died with, None if it lives. Raises ChildFailed."""
        code = self._process.poll() if self._process else None
        if code is None:
            return None
        now = time.monotonic()
        self._deaths = [death for death in self._deaths if now - death < DEATHS_WINDOW_SECONDS] + [now]
        if len(self._deaths) >= MAX_DEATHS:
            raise ChildFailed(self.name, code, len(self._deaths), self.log_file)
        self.num_restarts += 1
        self.start()
        return code

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the service itself; it stops what it started."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait_stopped(self, seconds: float = STOP_SECONDS) -> None:
        """Wait for the end after `ask_to_stop`, then kill whatever is left of its process group."""
        if self._process is None:
            return
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def tail(log_file: Path, num_lines: int = 12) -> str:
    """The last lines of a log."""
    if not log_file.exists():
        return "(no output)"
    return "\n".join(log_file.read_text(errors="replace").splitlines()[-num_lines:])
