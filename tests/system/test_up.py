"""`darkroom up`: one command, nothing left behind, nothing lost."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.conftest import start

PATIENCE_SECONDS = 90


def processes_with(data: Path) -> list[str]:
    """Command lines and environments of processes that know this data folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            known = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
        if str(data).encode() in known and int(process.name) != os.getpid():
            found.append(process.name)
    return found


@pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="looks for left processes in /proc, which only Linux has"
)
def test_life_of_a_system(tmp_path: Path) -> None:
    up = start(tmp_path)
    up.darkroom("session", "create", "kept")
    _a_dead_child_is_started_again(tmp_path, up.data)
    second = up.darkroom("up", check=False)
    assert (second.returncode, "runs on" in second.stderr) == (1, True)
    assert (tmp_path / "connection.json").exists()
    assert up.stop() == 0
    assert processes_with(tmp_path) == []
    assert not (tmp_path / "connection.json").exists()

    again = start(tmp_path)
    sessions = json.loads(again.darkroom("session", "list", "--json").stdout)
    assert [session["name"] for session in sessions] == ["sessions/kept"]
    again.process.kill()
    again.process.wait()
    _until(lambda: processes_with(tmp_path) == [], "services outlived a killed launcher")


def _a_dead_child_is_started_again(tmp_path: Path, data: Path) -> None:
    endpoint = data / "run" / "converter.json"
    before = endpoint.stat().st_mtime_ns
    pids = [pid for pid in processes_with(tmp_path) if b"converter" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(int(pids[0]), signal.SIGKILL)
    _until(lambda: endpoint.exists() and endpoint.stat().st_mtime_ns != before, "the converter did not come back")


def _until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.2)
