"""The whole system as `darkroom up` starts it, in processes of its own, shared by the tests of this folder."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from darkroom_cli.connection import Connection

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 120


def printed_lines(document: str) -> list[str]:
    """The commands that a document prints: indented lines, continued ones joined, comments cut."""
    text = (ROOT / document).read_text().replace("\\\n", " ")
    return [line.strip() for line in re.findall(r"^    (\S[^\n#]*)", text, re.MULTILINE)]


def environment(data: Path) -> dict[str, str]:
    """What `darkroom` commands of these tests run in: no address, token or store of the outer environment."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
    return outer | {"DARKROOM_DATA": str(data), "OMP_NUM_THREADS": "1"}


@dataclass
class Up:
    """A running `darkroom up`."""

    process: "subprocess.Popen[str]"
    data: Path
    env: dict[str, str]

    @property
    def connection(self) -> Connection:
        return Connection(**json.loads((self.data / "connection.json").read_text()))

    def run(self, *command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a program in the system's environment, as after `. data/env`."""
        env = self.env | {f"DARKROOM_{name.upper()}": value for name, value in vars(self.connection).items()}
        done = subprocess.run(command, env=env, cwd=ROOT, text=True, capture_output=True, timeout=280)
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def shell(self, line: str, folder: Path) -> str:
        """Run a line as a person would in a new terminal: in a folder with `examples` and `data`, after `. data/env`.

        Returns what it printed.
        """
        for name, target in (("examples", ROOT / "examples"), ("data", self.data)):
            if not (folder / name).exists():
                (folder / name).symlink_to(target)
        outer = {name: value for name, value in self.env.items() if not name.startswith("DARKROOM_")}
        command = ("sh", "-ec", f". data/env\n{line}")
        done = subprocess.run(command, env=outer, cwd=folder, text=True, capture_output=True, timeout=280)
        if done.returncode:
            pytest.fail(f"{line} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def darkroom(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a `darkroom` command."""
        return self.run(sys.executable, "-m", "darkroom_cli", *arguments, check=check)

    def stop(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_SECONDS)


def start(data: Path) -> Up:
    """Start `darkroom up` and wait for the line that says where everything is."""
    env = environment(data)
    with (data / "up.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "darkroom_cli", "up", "--json"],
            env=env,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait(STOP_SECONDS)
        logs = "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in data.rglob("*.log"))
        pytest.fail(f"darkroom up ended with {process.returncode}\n{logs}")
    return Up(process, data, env)


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One system for all tests of this folder that do not stop it."""
    running = start(tmp_path_factory.mktemp("darkroom"))
    yield running
    assert running.stop() == 0
