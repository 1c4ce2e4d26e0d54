"""Services end with the launcher, however that ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from darkroom_cli.launcher.watchdog import Watchdog

PATIENCE_SECONDS = 30

# Starts a service that ignores SIGTERM or not, has it watched, and says its process id.
LAUNCHER = """
import subprocess, sys, time
from darkroom_cli.launcher.watchdog import Watchdog
watchdog = Watchdog(float(sys.argv[2]))
service = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, start_new_session=True)
service.stdout.readline()
watchdog.watch([service.pid])
print(service.pid, flush=True)
time.sleep(60)
"""
GENTLE = """
import pathlib, signal, sys, time
def stop(*_):
    pathlib.Path({file!r}).touch()
    sys.exit()
signal.signal(signal.SIGTERM, stop)
print(flush=True)
time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(flush=True)
time.sleep(60)
"""


def killed_launcher(service: str, grace_seconds: float) -> int:
    """Start a launcher, kill it, and return the process id of its service."""
    command = [sys.executable, "-c", LAUNCHER, service, str(grace_seconds)]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    pid = int(launcher.stdout.readline())
    launcher.kill()
    launcher.communicate()
    return pid


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_service_of_a_killed_launcher_may_stop_by_itself(tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    pid = killed_launcher(GENTLE.format(file=str(stopped)), grace_seconds=PATIENCE_SECONDS)
    until(lambda: not alive(pid))
    assert stopped.exists()


def test_one_that_does_not_stop_is_killed() -> None:
    pid = killed_launcher(STUBBORN, grace_seconds=0.1)
    until(lambda: not alive(pid))


def test_what_is_not_watched_any_more_lives_on() -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, start_new_session=True) as service:
        assert service.stdout is not None
        service.stdout.readline()
        watchdog = Watchdog(grace_seconds=0)
        watchdog.watch([service.pid])
        watchdog.close()
        assert service.poll() is None
        service.kill()


def test_the_launcher_goes_on_without_a_watchdog() -> None:
    watchdog = Watchdog(grace_seconds=0)
    os.kill(watchdog.pid, signal.SIGKILL)
    until(lambda: not alive(watchdog.pid))
    watchdog.watch([])
    watchdog.close()
