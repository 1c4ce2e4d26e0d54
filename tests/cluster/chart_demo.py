"""`darkroom demo` against a release, and the Job that it brings about, watched meanwhile."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from darkroom_cli.connection import Connection

from tests.cluster.chart_release import Release, parse


class JobWatcher(threading.Thread):
    """Remembers training Jobs and their pods while they are there, and what such a pod finds where a token would be."""

    def __init__(self, release: Release) -> None:
        super().__init__(daemon=True)
        self.release = release
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.place_of_tokens = ""
        self._over = threading.Event()

    def __enter__(self) -> "JobWatcher":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        """Look once a second."""
        while not self._over.wait(1):
            self.jobs |= self._found("jobs")
            pods = self._found("pods")
            self.pods |= pods
            running = [name for name, pod in pods.items() if pod["status"]["phase"] == "Running"]
            if running and not self.place_of_tokens:
                look = ("sh", "-c", "ls /var/run/secrets/kubernetes.io 2>&1 || true")
                self.place_of_tokens = self.release.cluster.kubectl("exec", *self._here, running[0], "--", *look)

    @property
    def _here(self) -> tuple[str, str]:
        return "--namespace", self.release.training

    def _found(self, kind: str) -> dict[str, dict[str, Any]]:
        return {item["metadata"]["name"]: item for item in self.release.cluster.get(kind, *self._here)["items"]}


def demo(where: Connection, out: Path) -> dict[str, Any]:
    """Run `darkroom demo` with the services at these addresses; returns its report."""
    addresses = {name: address for name, address in vars(where).items() if name != "token"}
    options = [word for name, address in addresses.items() for word in ("--endpoint", f"{name}={address}")]
    command = [str(Path(sys.executable).with_name("darkroom")), "demo", "--out", str(out), *options]
    env = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
    env["DARKROOM_TOKEN"] = where.token
    done = subprocess.run(command, env=env, cwd=out, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    report: dict[str, Any] = parse(done.stdout)
    return report
