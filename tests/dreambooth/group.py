"""Whole runs of several processes, each forked from one that has imported everything: what takes seconds happens once.

The launcher and its workers do what `python -m dreambooth` does; only how a worker is started is replaced by a fork.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import torch
from artifacts.checkpoints import Checkpoints
from artifacts.store import ObjectStore
from safetensors.torch import load

from tests.dreambooth.conftest import read_records

Recipe = Mapping[str, Any]

SLOW: Final = "TEST_SLOW_SECONDS"
"""A variable of the program here: seconds that each micro-step takes longer, so that there is time to disturb it."""
_CONTEXT: Final = get_context("forkserver")
_WAIT_SECONDS: Final = 280.0


class Fork:
    """A worker, with as much of Popen as the launcher uses."""

    def __init__(self, arguments: Sequence[str], variables: Mapping[str, str]) -> None:
        self.returncode: int | None = None
        self._pid = os.fork()
        if self._pid == 0:
            os.environ.update(variables)
            os._exit(_main())

    def poll(self) -> int | None:
        """Its exit status if it has ended."""
        if self.returncode is None:
            ended, status = os.waitpid(self._pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def terminate(self) -> None:
        """SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._send(signal.SIGKILL)

    def wait(self) -> None:
        """Until it has ended."""
        while self.poll() is None:
            time.sleep(0.01)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self._pid, number)


def attempt(environment: Mapping[str, str], log: str) -> None:
    """The program, in a forked process: from here on as `python -m dreambooth`."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment)
    sys.argv = ["dreambooth"]
    from dreambooth import launcher, loop

    launcher._start = Fork  # type: ignore[assignment]
    check = loop._check

    def slow_check(*arguments: Any) -> None:
        time.sleep(float(os.environ[SLOW]))
        check(*arguments)

    if SLOW in environment:
        loop._check = slow_check
    os._exit(_main())


def _main() -> int:
    from dreambooth.__main__ import main

    return main()


@dataclass(frozen=True)
class Became:
    """What a run became. losses: of every step, in order. weights: of every safetensors file, by file and name."""

    losses: list[float]
    weights: dict[str, torch.Tensor]
    digests: dict[str, str]
    messages: str


class Group:
    """Runs of one session on one base model."""

    def __init__(self, store: ObjectStore, base: Path, folder: Path, session: str = "toy") -> None:
        self.store = store
        self._base = base
        self._session = session
        self._folder = folder
        self._num_before: dict[str, int] = {}
        _CONTEXT.set_forkserver_preload(["tests.dreambooth.torture_preload"])

    def start(self, run: str, recipe: Recipe, processes: int = 2, **variables: str) -> BaseProcess:
        """Start the program."""
        order = {"base_model": "micro", "base_model_source": str(self._base), "checkpoint": f"made-{run}", **recipe}
        config = self.store.config
        environment = {
            "OMP_NUM_THREADS": "1",
            "DARKROOM_RUN": self.name(run),
            "DARKROOM_RECIPE": json.dumps({"resolution_px": 64, **order}),
            "DARKROOM_PROCESSES": str(processes),
            "DARKROOM_S3_ENDPOINT": config.endpoint,
            "DARKROOM_S3_ACCESS_KEY": config.access_key,
            "DARKROOM_S3_SECRET_KEY": config.secret_key,
            "DARKROOM_S3_BUCKET": config.bucket,
            "DARKROOM_LOG_FORMAT": "text",
            **variables,
        }
        self._num_before[run] = len(read_records(self.store, self.name(run)))
        return self.fork(attempt, environment, str(self.log(run)))

    def fork(self, target: Callable[..., None], *arguments: Any) -> BaseProcess:
        """Call a function in a process that has imported everything."""
        process = _CONTEXT.Process(target=target, args=arguments)
        process.start()
        return process

    def name(self, run: str) -> str:
        """Its resource name."""
        return f"sessions/{self._session}/runs/{run}"

    def log(self, run: str) -> Path:
        """What the run's processes have printed."""
        return self._folder / f"{run}.log"

    def carry_out(self, run: str, recipe: Recipe, processes: int = 2, **variables: str) -> Became:
        """A run from its beginning, or its resume point, to its end."""
        code = end_of(self.start(run, recipe, processes, **variables))
        assert code == 0, self.log(run).read_text()
        return self.became(run)

    def became(self, run: str) -> Became:
        """Read a finished run."""
        lines = read_records(self.store, self.name(run))
        losses: dict[tuple[str, int], float] = {}
        for line in lines:
            if line["kind"] == "progress":  # a step that was made again must have had the same loss
                assert losses.setdefault((line["stage"], line["step"]), line["loss"]) == line["loss"]
        checkpoints = Checkpoints(self.store)
        manifest = checkpoints.verify(f"made-{run}")
        weights = {
            f"{entry.path} {name}": tensor
            for entry in manifest.files
            if entry.path.endswith(".safetensors")
            for name, tensor in load(checkpoints.read_file(manifest.id, entry.path)).items()
        }
        digests = {entry.path: entry.sha256 for entry in manifest.files}
        return Became(list(losses.values()), weights, digests, messages_of(lines))

    def messages(self, run: str) -> str:
        """All messages of a run, one a line."""
        return messages_of(read_records(self.store, self.name(run)))

    def wait_for(self, run: str, kind: str, count: int, *processes: BaseProcess) -> None:
        """Until the run has told so many lines of a kind since its last start. Raises AssertionError if a process ends
        before."""

        def told() -> bool:
            lines = read_records(self.store, self.name(run))[self._num_before[run] :]
            return sum(line["kind"] == kind for line in lines) >= count

        wait_until(lambda: told() or any(process.exitcode is not None for process in processes))
        assert all(process.exitcode is None for process in processes), self.log(run).read_text()


def messages_of(lines: Sequence[Mapping[str, Any]]) -> str:
    """The texts of all messages."""
    return "\n".join(line["text"] for line in lines if line["kind"] == "message")


def end_of(process: BaseProcess) -> int | None:
    """Its exit code."""
    process.join(_WAIT_SECONDS)
    return process.exitcode


def workers_of(process: BaseProcess) -> list[int]:
    """Process ids of a launcher's workers, in order of their ranks."""
    return sorted(int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())


def is_gone(pid: int) -> bool:
    """Whether a process has ended; nobody may have asked for its exit status yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return True
    return state == "Z"


def wait_until(condition: Callable[[], bool]) -> None:
    """Raise AssertionError if it never becomes true."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
