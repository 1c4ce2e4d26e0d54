"""Signals of a process that runs a system: they stop it, and a second one does not break off the stopping."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn


def _stops() -> tuple[signal.Signals, ...]:
    """Ctrl-C, `kill`, and the terminal's window closed, unless `nohup` says that this shall not matter."""
    stops = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return stops if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else stops[:2]


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """Within the block each of them raises KeyboardInterrupt. Main thread only, as all signal handling in Python."""
    with _handled(_interrupt):
        yield


@contextlib.contextmanager
def ignored() -> Iterator[None]:
    """Within the block none of them does anything."""
    with _handled(signal.SIG_IGN):
        yield


@contextlib.contextmanager
def _handled(handler: "signal._HANDLER") -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _stops()}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
