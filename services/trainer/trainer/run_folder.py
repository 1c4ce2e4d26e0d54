"""What this machine remembers of a run: a folder with its lock, its process ids and its logs.

    <state folder>/id                        names this machine in the runs it executes
    <state folder>/runs/<session>.<run>/     lock, pid, child.json, run.log, supervisor.log, tmp/

The lock is held by the run's supervisor for its whole life and released by the operating system when it dies, so
neither a crash nor a reused process id can make a dead supervisor look alive. `local_job` and `local_supervisor` use it.
"""

import fcntl
import json
import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


def machine_id(state_dir: Path) -> str:
    """The id kept in the state folder; made on the first call."""
    path = state_dir / "id"
    state_dir.mkdir(parents=True, exist_ok=True)
    fresh = state_dir / f"id.{os.getpid()}"
    fresh.write_text(secrets.token_hex(8))
    try:
        path.hardlink_to(fresh)  # of several at once, one wins
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return path.read_text()


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run on this machine; made when first used."""

    path: Path

    @classmethod
    def of(cls, state_dir: Path, run_name: str) -> "RunFolder":
        """run_name: "sessions/<session>/runs/<run>"."""
        _, session, _, run_id = run_name.split("/")
        return cls(state_dir.resolve() / "runs" / f"{session}.{run_id}")

    @property
    def log(self) -> Path:
        """What the program printed, all attempts."""
        return self.path / "run.log"

    @property
    def supervisor_log(self) -> Path:
        """What the supervisor itself has to say."""
        return self.path / "supervisor.log"

    def fresh_scratch(self) -> Path:
        """An empty folder for the program's temporary files."""
        self.clear_scratch()
        scratch = self.path / "tmp"
        scratch.mkdir()
        return scratch

    def clear_scratch(self) -> None:
        """Remove the temporary files, whatever the program left: a pod's /tmp also ends with the pod."""
        shutil.rmtree(self.path / "tmp", ignore_errors=True)

    def lock(self) -> int | None:
        """Take the lock; the file descriptor holds it until it is closed everywhere. None if it is taken."""
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def locked(self) -> bool:
        """Whether a supervisor lives."""
        if not (self.path / "lock").exists():
            return False
        descriptor = self.lock()
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    def write_pid(self, pid: int) -> None:
        """Remember the supervisor's process id; valid while the lock is held."""
        _write(self.path / "pid", str(pid))

    def pid(self) -> int | None:
        """The supervisor's process id, if it was noted."""
        path = self.path / "pid"
        return int(path.read_text()) if path.exists() else None

    def write_child(self, pid: int) -> None:
        """Remember the program's process, which leads a process group of its own."""
        _write(self.path / "child.json", json.dumps({"pid": pid, "started": started(pid)}))

    def child(self) -> int | None:
        """The program's process id if that very process still runs."""
        path = self.path / "child.json"
        if not path.exists():
            return None
        noted = json.loads(path.read_text())
        alive = noted["started"] and started(noted["pid"]) == noted["started"]
        return int(noted["pid"]) if alive else None


def started(pid: int) -> str:
    """When a process started, in words that differ for another process of the same id; empty if it is gone."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return "" if fields[0] in "ZX" else fields[19]
    answer = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)
