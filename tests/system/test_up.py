"""`darkroom up`: one command, nothing left behind, nothing lost."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from darkroom_cli.connection import NotRunning, load

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
    second = up.run("darkroom", "up", check=False) if _has_command() else None
    assert second is None or "runs on" in second.stderr
    assert up.stop() == 0
    assert processes_with(tmp_path) == []
    assert not (tmp_path / "connection.json").exists()

    again = start(tmp_path)
    sessions = json.loads(again.darkroom("session", "list", "--json").stdout)
    assert [session["session"] for session in sessions] == ["kept"]
    assert again.stop() == 0
    assert processes_with(tmp_path) == []


def test_without_a_system_commands_say_how_to_start_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_DATA", str(tmp_path))
    with pytest.raises(NotRunning, match="darkroom up"):
        load()


def _a_dead_child_is_started_again(tmp_path: Path, data: Path) -> None:
    endpoint = data / "run" / "converter.json"
    before = endpoint.stat().st_mtime_ns
    pids = [pid for pid in processes_with(tmp_path) if b"converter" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(int(pids[0]), signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not endpoint.exists() or endpoint.stat().st_mtime_ns == before:
        assert time.monotonic() < deadline, "the converter did not come back"
        time.sleep(0.2)


def _has_command() -> bool:
    return subprocess.run(["which", "darkroom"], capture_output=True).returncode == 0
