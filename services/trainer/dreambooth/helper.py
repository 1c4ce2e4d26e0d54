"""A process beside the one that trains, with an interpreter of its own and at a low priority.

A thread that hashes and sends a resume point takes the interpreter's lock from the thread that trains, thousands of times.
What needs only files and gives back little is done here instead: `resuming` has points uploaded, `sample_images` has pictures drawn.

`python -m dreambooth.helper` reads (function, arguments) from its input and answers (whether it returned, what it returned or
raised) on its output, one after the other, by pickle. It ends with its input, so also when the training process is killed.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, BinaryIO, Final, ParamSpec, Self, TypeVar

from dreambooth import point_files  # noqa: F401 - what it will be asked for is there before the first point

_NICE: Final = 5  # a quarter of a core that training uses wholly: a point must not be late in a pod of one core

P = ParamSpec("P")
R = TypeVar("R")


class Helper:
    """The process of one run, started by `start` or the first call; use it in a `with` block. report: takes a sentence and its level.

    If it cannot be started or is killed, that is reported once, and its work is done in the training process.
    """

    def __init__(self, report: Callable[[str, str], None]) -> None:
        self._report = report
        self._process: subprocess.Popen[bytes] | None = None
        self._is_lost = False
        self._is_closed = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Let the process start now, so that the first call need not wait for it. Never waits; `call` tells of a failure."""
        with self._lock, contextlib.suppress(OSError):
            self._ensure_started()

    def call(self, work: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """What work(*arguments) returns or raises, when the calls before it have ended. work: a function of a module."""
        with self._lock:
            if not self._is_lost:
                try:
                    has_returned, answer = self._ask(work, arguments, named)
                except (OSError, EOFError, pickle.UnpicklingError) as error:  # in the middle of its answer
                    self._give_up(error)
                else:
                    if has_returned:
                        return answer  # type: ignore[no-any-return]
                    raise answer
        return work(*arguments, **named)

    def close(self) -> None:
        """End the process, also in the middle of its work; a call that waits for it raises RuntimeError."""
        self._is_closed = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, *request: Any) -> tuple[bool, Any]:
        if self._is_closed:
            raise RuntimeError("the helper process of this run is closed")
        process = self._ensure_started()
        assert process.stdin is not None
        assert process.stdout is not None
        pickle.dump(request, process.stdin)
        process.stdin.flush()
        answer: tuple[bool, Any] = pickle.load(process.stdout)
        return answer

    def _ensure_started(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            command = [sys.executable, "-m", "dreambooth.helper"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._process

    def _give_up(self, error: Exception) -> None:
        if self._is_closed:
            raise RuntimeError("the helper process of this run was closed") from error
        self._is_lost = True
        reason = f"exit status {self._process.wait()}" if self._process else str(error)
        self._report(
            f"the helper process has ended ({reason}): training goes on and does its work itself, somewhat slower",
            "warning",
        )


def main() -> None:
    """Answer requests until the input ends."""
    os.nice(_NICE)
    sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]  # only optimizers need it, and it is slow
    for number in (signal.SIGTERM, signal.SIGINT):  # meant for the training process, which still has a point to save
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not get between the answers
    requests: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, requests), daemon=True).start()
    while True:
        work, arguments, named = requests.get()
        try:
            answer = True, work(*arguments, **named)
        except Exception as error:  # noqa: BLE001 - raised in the training process, by `call`
            error.add_note(f"in the helper process:\n{traceback.format_exc()}")
            answer = False, error
        pickle.dump(answer, answers)
        answers.flush()


def _receive(source: BinaryIO, requests: "queue.SimpleQueue[Any]") -> None:
    try:
        while True:
            requests.put(pickle.load(source))
    finally:
        os._exit(0)  # at once, whatever is being done: the training process has ended


if __name__ == "__main__":
    main()
